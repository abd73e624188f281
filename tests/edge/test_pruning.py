"""Forgetting: only what the hub has signed for, and only after the fleet's retention time (invariant 4)."""

import asyncio
from dataclasses import replace

import pytest

from crdt.facts import CardId
from crdt.store.database import Database
from edge.clock import Reading
from edge.pruning import AFTER_START_S, DAY_MS, EVERY_S, Pruning
from edge.terminal import Terminal
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, document
from tests.edge.test_delivery import Line, synced
from tests.edge.test_uplink import enrolled, ride
from tests.edge.testhub import TestHub, open_ledger

NOW_MS = 1_780_000_000_000


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    return TestHub(fleet, ledger, document=document(fleet, FARES))


async def test_settled_blocks_go_after_the_retention_time_and_the_newest_stay(
    paired: Terminal, hub: TestHub, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the fleet's setting; balances and digest are what they were."""
    monkeypatch.setattr("edge.pruning.KEEP_DELTAS", 1)
    monkeypatch.setattr("crdt.store.pruning.RECENT_FARES", 1)
    for number in range(4):
        await asyncio.to_thread(ride, paired, CardId(bytes([4, 0, 0, number])))
        await asyncio.to_thread(enrolled(paired).ledger.seal)
    await asyncio.to_thread(paired.adopt, document(fleet, replace(FARES, retention_days=3), 2))
    now = [NOW_MS]
    pruning = Pruning(paired, lambda: Reading(now[0], 0, 1))
    assert await pruning.once() == 0, "nothing is settled"
    await synced(paired, Line(hub))
    before = await asyncio.to_thread(enrolled(paired).ledger.digest)
    assert await pruning.once() == 0
    now[0] += 2 * DAY_MS
    assert await pruning.once() == 0
    now[0] += 2 * DAY_MS
    assert await pruning.once() == 3
    assert await asyncio.to_thread(enrolled(paired).ledger.digest) == before
    assert (await asyncio.to_thread(enrolled(paired).ledger.books)).balance


async def test_it_is_done_daily_and_not_at_the_moment_of_the_start(terminal: Terminal) -> None:
    """A terminal without a pairing, or with a failing ledger, goes on."""
    waits: list[float] = []

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        if len(waits) == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Pruning(terminal, lambda: Reading(NOW_MS, 0, 1), sleep).run()
    assert waits == [AFTER_START_S, EVERY_S, EVERY_S]
