"""A real terminal gives a real hub the revocation back that it lost when it was put back (invariant 5)."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crdt.revocations import REVOKED_DOCUMENT
from crdt.store.database import Database
from edge.terminal import Terminal
from hub import founding
from hub.settings import HubSettings
from tests.demo.test_forgotten_promise import listed, pair, sync
from tests.demo.test_settings_documents import KEY, enrolled
from tests.edge.test_uplink import CARDS, ride
from tests.hub import conftest as hub_fixtures
from tests.hub.conftest import PASSWORD
from tests.hub.test_restoring import up

write_settings = hub_fixtures.write_settings

pytestmark = pytest.mark.may_block("a start and an end of the hub wait for the disk")


@pytest.fixture
def settings(write_settings: Callable[[str], HubSettings]) -> HubSettings:
    """Of a founded hub that is not up."""
    settings = write_settings("")
    founding.found(settings, PASSWORD, {})
    return settings


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Terminal]:
    with Database.open(tmp_path / "bus.db", KEY) as database:
        yield Terminal(database)


@pytest.mark.parametrize("marks", [True, False], ids=["it knows", "its marks went back too"])
async def test_a_stolen_terminal_stays_revoked(
    marks: bool, settings: HubSettings, bus: Terminal, tmp_path: Path
) -> None:
    """In one sync run, whose taps go up as well; and both sides have the same list then."""
    state, image = settings.state_directory, tmp_path / "image"
    async with up(settings) as depot:
        stolen = await depot.pair("Bus 2")
        await pair(depot, bus)
        assert not (await sync(depot, bus)).trouble
    shutil.copytree(state, image, ignore=shutil.ignore_patterns("*.sock"))
    async with up(settings) as depot:
        await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 2"})
        assert not (await sync(depot, bus)).trouble
    for path in image.glob("*" if not marks else "ledger.db*"):
        shutil.copy(path, state)
    async with up(settings) as depot:
        assert await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT)) is None, "it is lost"
        await asyncio.to_thread(ride, bus, CARDS[0])
        status = await sync(depot, bus)
        assert (status.online, status.trouble, status.disputed) == (True, "", "")
        known = await asyncio.to_thread(enrolled(bus).ledger.revocations)
        assert known == await listed(depot)
        assert known.revoked == {stolen.key.replica}
        assert await asyncio.wrap_future(depot.hub.ledger.balance(CARDS[0])) == 750
