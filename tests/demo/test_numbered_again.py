"""A hub put back with its marks numbers top-ups again, and terminals tell it (invariants 3, 4 and 5)."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crdt.errors import RefusalCode
from crdt.store.resolutions import ADOPTED
from edge.delivery import MAX_PAUSE_RUNS
from edge.errors import HubUnreachable
from edge.terminal import Terminal
from hub.settings import HubSettings
from tests.demo.test_keepsake import Bus, agreed, balance, buses, paired, settings
from tests.hub import conftest as hub_fixtures
from tests.hub.conftest import Depot
from tests.hub.test_restoring import top_up, up
from tests.hub.test_whole_state_put_back import copy, own_blocks, put_back

__all__ = ["buses", "settings"]

write_settings = hub_fixtures.write_settings

pytestmark = pytest.mark.may_block("a start and an end of the hub wait for the disk")


@contextlib.asynccontextmanager
async def began(settings: HubSettings, bus: Bus) -> AsyncIterator[Depot]:
    """The hub, started once more; the bus goes there."""
    async with up(settings) as bus.depot:
        yield bus.depot


async def sell(depot: Depot, bus: Bus, kept: int, count: int) -> list[bytes]:
    """Top-ups of a new series of forms; how many of the hub's entries the bus keeps then."""
    for number in range(count):
        await top_up(depot, f"request-{kept}-{number}")
    await bus.run()
    await bus.run()
    assert await bus.kept() >= kept
    return await own_blocks(depot)


async def resolve(depot: Depot) -> list[str]:
    """The operator books what lies in quarantine; what became of each."""
    for row in (await depot.ask("GET", "/ledger/forks"))["blocks"]:
        await depot.ask("POST", "/ledger/adopt", {"block": row["block"]})
    return [row["resolution"] for row in (await depot.ask("GET", "/ledger/forks"))["blocks"]]


@pytest.mark.parametrize("common", [0, 3])
@pytest.mark.parametrize("lost, again", [(1, 0), (3, 0), (1, 1), (3, 1), (1, 3), (9, 9), (9, 2), (2, 9)])
async def test_what_a_terminal_keeps_tells_the_hub_and_comes_back_once(
    common: int, lost: int, again: int, settings: HubSettings, buses: list[Terminal], tmp_path: Path
) -> None:
    """However many entries both branches have, with a common beginning or without one."""
    async with up(settings) as depot:
        (bus,) = await paired(depot, buses[:1])
        await sell(depot, bus, common, common)
    copy(settings.state_directory, tmp_path / "image")
    async with began(settings, bus) as depot:
        former = depot.hub.ledger.replica
        await sell(depot, bus, common + lost, lost)
    put_back(tmp_path / "image", settings.state_directory)
    async with began(settings, bus) as depot:
        assert depot.hub.ledger.replica == former
        for number in range(again):
            await top_up(depot, f"request-again-{number}")
        for _ in range(3):
            await bus.run()
        assert depot.hub.ledger.restored, "from here on the process ends and is started again"
    async with began(settings, bus) as depot:
        assert depot.hub.ledger.replica != former
        for _ in range(4):
            await bus.run()
        resolutions = await resolve(depot)
        assert len(resolutions) == (lost if again else 0)
        assert set(resolutions) <= {ADOPTED}
        await top_up(depot, "request-last")
        await bus.run()
        assert await balance(depot) == 500 * (common + lost + again + 1)
        assert await agreed(depot, bus)
        exchanges, brought = bus.exchanges, bus.brought
        await bus.run()
        assert bus.brought == brought, "the hub has all of it"
        assert bus.exchanges <= exchanges + 2


async def test_a_hub_that_is_not_what_it_was_is_told_at_once_however_seldom_it_was_asked(
    settings: HubSettings, buses: list[Terminal], tmp_path: Path
) -> None:
    """Ten minutes in which it gives more numbers again are so many more bookings for an operator."""
    async with up(settings) as depot:
        (bus,) = await paired(depot, buses[:1])
    copy(settings.state_directory, tmp_path / "image")
    async with began(settings, bus) as depot:
        await sell(depot, bus, 2, 2)
    bus.delivery.keepsake.left = bus.delivery.keepsake.following = MAX_PAUSE_RUNS
    put_back(tmp_path / "image", settings.state_directory)
    async with began(settings, bus) as depot:
        for number in range(9):
            await top_up(depot, f"request-again-{number}")
        await bus.run()
        await bus.run()
        assert depot.hub.ledger.restored


@pytest.mark.parametrize("code", [RefusalCode.COME_AGAIN, RefusalCode.REVOKED, None], ids=str)
async def test_what_the_hub_has_not_taken_as_evidence_is_kept(
    code: RefusalCode | None, settings: HubSettings, buses: list[Terminal], tmp_path: Path
) -> None:
    """Invariant 4: it says that there is too much now, or something else, or its answer gets lost."""
    async with up(settings) as depot:
        (bus,) = await paired(depot, buses[:1])
    copy(settings.state_directory, tmp_path / "image")
    async with began(settings, bus) as depot:
        await sell(depot, bus, 3, 3)
    put_back(tmp_path / "image", settings.state_directory)
    async with began(settings, bus) as depot:
        await top_up(depot, "request-again")
        bus.refused, bus.lose = code, code is None
        if code is None:
            with pytest.raises(HubUnreachable):
                await bus.run()
        for _ in range(3 if code is not None else 0):
            await bus.run()
        assert await bus.kept() == 3
        assert depot.hub.ledger.restored == (code is None), "the answer was lost, and not what was said"
    async with began(settings, bus) as depot:
        bus.refused = None
        for _ in range(MAX_PAUSE_RUNS):
            await bus.run()
        assert depot.hub.ledger.restored == (code is not None), "it is told once"
    async with began(settings, bus) as depot:
        await resolve(depot)
        assert await balance(depot) == 500 * 4
        await bus.run()
        assert await agreed(depot, bus)
