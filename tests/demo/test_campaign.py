"""kill -9 of hub and terminals in a loop under taps: no acknowledged tap lost, no duplicate, digests equal.

Short here; `FAREBOX_CAMPAIGN=200 tests/run tests/demo/test_campaign.py` kills two hundred times.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest

from hub.demo.audit import audit
from hub.demo.bus import Bus
from hub.demo.compare import differences
from hub.demo.errors import NotAnswering
from hub.demo.headless import check, ledger_views
from hub.demo.home import Home
from hub.demo.script import CROWD, DECK, STRANGER
from hub.demo.stage import Stage

KILLS = int(os.environ.get("FAREBOX_CAMPAIGN", "6"))
SEED = int(os.environ.get("FAREBOX_CAMPAIGN_SEED", "1"))

pytestmark = pytest.mark.timeout(240 + 20 * KILLS)


@pytest.fixture
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A hub and three paired terminals that agree."""
    home = Home(tmp_path_factory.mktemp("c"))
    stage = Stage(home, DECK, passback_s=0)
    try:
        await stage.start(lambda _line: None)
        yield stage
    finally:
        await stage.stop()


async def test_nothing_acknowledged_is_lost_whatever_is_killed(stage: Stage) -> None:
    """Invariants 1, 2, 3, 4, 5: acknowledged taps are in the hub's ledger once, and all ledgers agree."""
    chance, enough = dice("misfortunes"), asyncio.Event()
    taps = [asyncio.create_task(passengers(bus, dice(key), enough)) for key, bus in stage.buses.items()]
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.1, 1.5))
        await one_misfortune(stage, chance)
    enough.set()
    await asyncio.gather(*taps)
    for bus in stage.buses.values():
        bus.router.restore()
    assert await stage.agree(120), "the ledgers did not come to agree"
    result = await check(stage)
    assert list(result.problems) == []
    assert sum(bus.tally.accepted.total() for bus in stage.buses.values()) > 5 * KILLS
    await the_checker_would_have_noticed(stage)


async def one_misfortune(stage: Stage, chance: random.Random) -> None:
    """kill -9 of the hub or of a terminal, with its network cut or not, and a start again."""
    buses = list(stage.buses.values())
    bus = chance.choice(buses)
    if chance.random() < 0.3:
        (bus.router.restore if bus.router.is_cut else bus.router.cut)()
    if chance.random() < 0.3:
        await stage.depot.kill()
        await asyncio.sleep(chance.uniform(0, 0.5))
        await stage.depot.switch_on()
    else:
        await bus.kill()
        await asyncio.sleep(chance.uniform(0, 0.3))
        await bus.switch_on()


async def passengers(bus: Bus, chance: random.Random, enough: asyncio.Event) -> None:
    """Taps on one bus, whenever it is on, until it is enough."""
    deck = [card.uid for card in (*CROWD, STRANGER)]
    while not enough.is_set():
        with suppress(NotAnswering):
            await bus.present(chance.choice(deck))
        await asyncio.sleep(0.01)


async def the_checker_would_have_noticed(stage: Stage) -> None:
    """The same figures with one more accepted tap, or with one ledger apart, are not let through."""
    found = await asyncio.to_thread(audit, stage.depot.database, stage.depot.key_file)
    views = ledger_views(stage)
    witnesses = [bus.tally.witness(bus.role.name, bus.replica) for bus in stage.buses.values()]
    tap = next(iter(witnesses[0].accepted))
    one_more = replace(witnesses[0], accepted=Counter({tap: 1_000_000}))
    assert any(" lost" in said for said in differences([one_more], found.facts, views))
    apart = [replace(views[0], digest="00" * 32), *views[1:]]
    assert any("digests differ" in said for said in differences(witnesses, found.facts, apart))


def dice(what: str) -> random.Random:
    return random.Random(f"{SEED} {what}")  # noqa: S311  (a campaign to play again, not a secret)
