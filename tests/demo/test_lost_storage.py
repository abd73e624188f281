"""Both sides' real code: who may say of a terminal's day that no other taps are on it.

Issue: "for any bus and day the hub says "taps 1-4,312 complete" or names the missing ranges".
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.facts import CardId, ReplicaId, TerminalId
from crdt.store.completeness import Complete, Completeness, Open
from crdt.store.database import Database
from crdt.store.days import QUARTER_MS, Day
from edge.report import Report
from edge.settings import Settings
from edge.terminal import Terminal
from tests.demo.test_carried_branch import synced
from tests.edge.authority import Fleet
from tests.edge.clocks import standing_clock
from tests.edge.conftest import FARES, KEY, document
from tests.edge.doors import Door, compared, doors, revoked
from tests.edge.program import Bus
from tests.edge.test_uplink import enrolled, ride
from tests.edge.testhub import TestHub, open_ledger

CARD = CardId(bytes([4, 0, 0, 1]))
FRONT = TerminalId(bytes([7] * 16))
START_MS = 1_780_000_000_000 // QUARTER_MS * QUARTER_MS  # when the rides are
DAY = Day(START_MS, START_MS + QUARTER_MS, 1)
EARLY_MS = DAY.start_ms + 1
LATE_MS = DAY.end_ms + 1


@pytest.fixture
def hub(tmp_path: Path, fleet: Fleet) -> Iterator[TestHub]:
    with Database.open(tmp_path / "hub.db", KEY) as opened:
        yield TestHub(fleet, open_ledger(opened, fleet))


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet(1)


@pytest.fixture
def rear(tmp_path: Path, fleet: Fleet) -> Iterator[Door]:
    (tmp_path / "rear").mkdir()
    with doors(tmp_path / "rear", fleet, 1) as (door,):
        yield door


class Front:
    """The front door of a bus, with some storage."""

    def __init__(self, database: Database, fleet: Fleet, settings: Settings) -> None:
        self.terminal = Terminal(database)
        self._fleet = fleet
        self._settings = settings
        self.pair()

    def pair(self) -> None:
        self.terminal.enrol(self._fleet.enrol(terminal=FRONT))
        self.terminal.adopt(document(self._fleet, FARES))

    @property
    def replica(self) -> ReplicaId:
        return enrolled(self.terminal).identity.replica

    async def rides(self) -> None:
        await asyncio.to_thread(ride, self.terminal, CARD)

    async def sync(self, hub: TestHub, at_ms: int) -> None:
        """A run, with what the real program says of itself. Pairing has enrolled it."""
        await asyncio.wrap_future(hub.ledger.enrol(enrolled(self.terminal).identity.certificate))
        report = Report(self._settings, self.terminal, standing_clock(at_ms), str)
        assert (await synced(self.terminal, hub, at_ms, report.for_hub)).complete


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    bus = Bus(tmp_path)
    bus.configure()
    return bus.settings


@pytest.fixture
def front(tmp_path: Path, fleet: Fleet, settings: Settings) -> Iterator[Front]:
    with Database.open(tmp_path / "front.db", KEY) as database:
        yield Front(database, fleet, settings)


@pytest.fixture
def again(tmp_path: Path, fleet: Fleet, settings: Settings) -> Iterator[Front]:
    """The same door on a new storage."""
    with Database.open(tmp_path / "new.db", KEY) as database:
        yield Front(database, fleet, settings)


async def found(hub: TestHub, *replicas: ReplicaId) -> Completeness:
    return (await asyncio.wrap_future(hub.ledger.day_of(replicas, DAY))).completeness


async def test_paired_anew_with_its_storage_the_day_becomes_complete(hub: TestHub, front: Front) -> None:
    """What the former identity had not sent comes with it; later words need not name it again."""
    former = front.replica
    await front.rides()
    await front.sync(hub, EARLY_MS)
    await front.rides()
    await asyncio.to_thread(front.pair)
    await front.rides()
    await front.sync(hub, LATE_MS)
    assert await found(hub, former, front.replica) == Complete(3)


async def test_paired_anew_before_it_wrote_anything_too(hub: TestHub, front: Front) -> None:
    former = front.replica
    await front.sync(hub, EARLY_MS)
    await asyncio.to_thread(front.pair)
    await front.sync(hub, LATE_MS)
    assert await found(hub, former, front.replica) == Complete(0)


@pytest.mark.parametrize("carried", [False, True])
async def test_a_new_storage_speaks_not_for_the_one_that_was_lost(
    hub: TestHub, front: Front, again: Front, rear: Door, carried: bool
) -> None:
    """The SD card died with taps on it. Also where another door gives the new one all that was sealed."""
    await front.rides()
    await front.sync(hub, EARLY_MS)
    if carried:
        await front.rides()
        await asyncio.to_thread(enrolled(front.terminal).ledger.seal)
        await compared(await asyncio.to_thread(Door.of, front.terminal), rear)
        await compared(await asyncio.to_thread(Door.of, again.terminal), rear)
        assert front.replica in await asyncio.to_thread(enrolled(again.terminal).ledger.frontier)
    await front.rides()
    await again.sync(hub, LATE_MS)
    day = await found(hub, front.replica, again.replica)
    assert isinstance(day, Open)
    (silent,) = day.silent
    assert (silent.replica, silent.heard_ms, day.until) == (front.replica, EARLY_MS, 1 + carried)
    assert await asyncio.wrap_future(hub.ledger.give_up(front.replica))
    assert await found(hub, front.replica, again.replica) == Complete(1 + carried)


def test_of_many_former_identities_those_that_the_hub_ended_are_not_named(front: Front, fleet: Fleet) -> None:
    """A status has room for some; nobody speaks for one that was replaced or revoked."""
    former = [front.replica]
    for _ in range(3):
        front.pair()
        former.append(front.replica)
    ledger = enrolled(front.terminal).ledger
    assert ledger.former(9) == sorted(former[:3])
    ledger.put_document(revoked(fleet, {former[0]: 0, former[1]: 0}))
    assert ledger.former(2) == [former[2]]
    assert ledger.former(3) == sorted(former[:3])
