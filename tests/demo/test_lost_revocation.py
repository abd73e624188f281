"""A real terminal gives a real hub the revocation back that it lost when it was put back (invariant 5)."""

import asyncio
import shutil
from pathlib import Path

import pytest

from crdt.revocations import REVOKED_DOCUMENT
from edge.terminal import Terminal
from hub.settings import HubSettings
from tests.demo.test_forgotten_promise import bus, listed, pair, settings, sync
from tests.demo.test_settings_documents import enrolled
from tests.edge.test_uplink import CARDS, ride
from tests.hub import conftest as hub_fixtures
from tests.hub.test_restoring import up

__all__ = ["bus", "settings"]
write_settings = hub_fixtures.write_settings

pytestmark = pytest.mark.may_block("a start and an end of the hub wait for the disk")


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
