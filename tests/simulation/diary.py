"""What the hub says of days, against what was written: which taps are here, and the figures of closed days.

A service day is half a real one here, so that a world has several. Times are true ones, which the hub's clock
shows; what terminals date may be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from crdt.facts import Kind, ReplicaId
from crdt.store.completeness import Behind, Complete, Missing
from crdt.store.days import NO_FIGURES, Day, DayReport, Figures
from hub.daybook import writers
from tests.simulation.adoptions import Said
from tests.simulation.oracle import Fact, expect

if TYPE_CHECKING:
    from tests.simulation.buses import Bus
    from tests.simulation.world import World

HALF_DAY_MS: Final = 12 * 60 * 60 * 1000
_TAPS: Final = {Kind.FARE: 1, Kind.REVERSAL: -1, Kind.DUPLICATE: -1, Kind.REINSTATED: 1}
LOOK_BACK: Final = 1  # days before the one that it is now
_LEARNT: Final = """
    SELECT block.replica, max(last_seq) FROM block, hub WHERE ordinal <= hub.projected GROUP BY block.replica
"""


def day_at(at_ms: int) -> Day:
    """The day of service at a moment."""
    number = at_ms // HALF_DAY_MS
    return Day(number * HALF_DAY_MS, (number + 1) * HALF_DAY_MS, number)


def days_until(at_ms: int) -> list[Day]:
    """The day that it is, and those before it."""
    return [day_at(at_ms - back * HALF_DAY_MS) for back in range(LOOK_BACK, -1, -1)]


def check_days(world: World) -> None:
    """No day is said to be complete that lacks a tap, and closed ones are restated to what the ledger has."""
    replicas = writers(world.hub.ledger.authors(), [])
    for day in days_until(world.now_ms)[:-1]:
        for bus in world.present():
            known = [one.replicas for one in replicas if bus.replica in one.replicas]
            if known:
                _check_complete(world, bus, known[0], day)
        _check_figures(world, world.hub.ledger.report(day).result())


def check_all_complete(world: World) -> None:
    """When everybody has said all: the days of terminals that were never renewed, nor put back, are complete.

    What else an identity may have written that was renewed nobody can know.
    """
    terminals = writers(world.hub.ledger.authors(), [])
    renewed = world.hub.revocations.replaced
    for day in days_until(world.now_ms)[:-1]:
        for bus in world.present():
            sure = not bus.storage.was_put_back and renewed.isdisjoint(bus.replicas)
            for one in terminals:
                if sure and bus.replica in one.replicas:
                    found = world.hub.ledger.day_of(one.replicas, day).result().completeness
                    expect(isinstance(found, Complete), f"the day of {bus.name} is not complete: {found}")


def _check_complete(world: World, bus: Bus, replicas: list[ReplicaId], day: Day) -> None:
    found = world.hub.ledger.day_of(replicas, day).result().completeness
    if isinstance(found, Behind):
        return  # it says nothing; once all is quiet every day has to be complete
    oracle = world.oracle
    reach = oracle.hub.reach
    here = list(_taps((f for one in replicas for f in oracle.facts.get(one, ())[: reach.get(one, 0)]), day))
    taps = found.taps if isinstance(found, Complete | Missing) else found.until
    expect(taps == len(here), f"{taps} taps of {bus.name} are said to be here, not {len(here)}")
    if isinstance(found, Complete):
        written = _taps((fact for one in bus.names for fact in oracle.facts[one]), day)
        known = {Said.by(fact) for one, seq in reach.items() for fact in oracle.facts[one][:seq]}
        lacks = [
            fact
            for fact in written
            if oracle.written_ms.get(fact, 0) < day.end_ms
            and Said.by(fact) not in known
            and not world.network.overtaken(bus.replicas, oracle.written_ms.get(fact, 0))
        ]
        expect(not lacks, f"the day of {bus.name} is said to be complete, and lacks {lacks}")
    elif isinstance(found, Missing):
        for gap in found.gaps:
            held = reach.get(gap.replica, 0)
            expect(gap.last_seq > held, f"facts {gap.first_seq} to {gap.last_seq} are said to be missing")


def _check_figures(world: World, report: DayReport) -> None:
    """What was closed, with all adjustments, is what the ledger has of the day as far as the history goes."""
    if report.closed_ms is None:
        return
    restated = {replica: one for replica, one in report.restated.items() if one != NO_FIGURES}
    expected = {}
    for replica, last_seq in world.hub.disk.rows(_LEARNT):
        figures = NO_FIGURES
        for fact in world.oracle.facts[ReplicaId(replica)][:last_seq]:
            if report.day.start_ms <= fact.at_ms < report.day.end_ms:
                figures = figures.plus(_figures(fact))
        if figures != NO_FIGURES:
            expected[replica] = figures
    expect(restated == expected, f"a closed day is restated to {restated}, not {expected}")


def _figures(fact: Fact) -> Figures:
    taps = _TAPS.get(fact.kind, 0)
    return Figures(1, taps, fact.amount_minor if taps else 0, fact.amount_minor)


def _taps(facts: Iterable[Fact], day: Day) -> Iterator[Fact]:
    return (fact for fact in facts if fact.kind is Kind.FARE and day.start_ms <= fact.at_ms < day.end_ms)
