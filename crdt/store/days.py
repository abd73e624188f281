"""Service days: what each author took in, closed once, and restated by explicit adjustments for ever after.

A day is a stretch of time made of quarters of an hour, and has a number; the caller knows calendar, time zone
and when a service day begins. Facts belong to a day by the clock of whoever wrote them.

Where a day begins may be decided anew at any time. Closed days keep their numbers and limits; the others take
what those leave. So every moment is in one day, whatever was decided: see Day.among.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, select

from crdt.errors import MisuseError
from crdt.facts import Delta, Kind, ReplicaId
from crdt.store.hub_schema import DAY, DAY_ADJUSTMENT, DAY_FIGURE, QUARTER
from crdt.store.sql import ADDED, Bulk, total
from crdt.store.statement import Statement

QUARTER_MS: Final = 15 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Day:
    """From `start_ms` until before `end_ms`, Unix milliseconds. MisuseError unless made of whole quarters."""

    start_ms: int
    end_ms: int
    number: int  # one more than that of the day before

    def __post_init__(self) -> None:
        """Check the limits."""
        if not 0 <= self.start_ms < self.end_ms or self.start_ms % QUARTER_MS or self.end_ms % QUARTER_MS:
            raise MisuseError("a day begins and ends at quarters of an hour, and has at least one")

    @property
    def quarters(self) -> range:
        """The day's quarters of an hour."""
        return range(self.start_ms // QUARTER_MS, self.end_ms // QUARTER_MS)

    def among(self, closed: Iterable[Day]) -> Day:
        """The closed day of its number; or this one with the limits that closed days leave it.

        It begins where the closed day before it ended, and ends where the one after it begins. Where they
        leave it nothing, as after a change by more than a day, it is the closed day that has its time.
        """
        before = after = None
        for one in sorted(closed, key=lambda day: day.number):
            if one.number == self.number:
                return one
            if one.number < self.number:
                before = one
            elif after is None:
                after = one
        return self._between(before, after)

    def _between(self, before: Day | None, after: Day | None) -> Day:
        start_ms, end_ms = self.start_ms, self.end_ms
        if before is not None:
            start_ms = before.end_ms if before.number == self.number - 1 else max(start_ms, before.end_ms)
            end_ms = max(end_ms, before.end_ms)
        if after is not None:
            start_ms = min(start_ms, after.start_ms)
            end_ms = after.start_ms if after.number == self.number + 1 else min(end_ms, after.start_ms)
        if start_ms < end_ms:
            return Day(start_ms, end_ms, self.number)
        taken_by = [one for one in (before, after) if one is not None]
        return taken_by[0] if self.end_ms <= taken_by[0].end_ms else taken_by[-1]


# An adjustment is a correction, and of no ride.
_TAPS: Final = {Kind.FARE: 1, Kind.REVERSAL: -1, Kind.DUPLICATE: -1, Kind.REINSTATED: 1}


class Figures(NamedTuple):
    """What some facts add up to."""

    facts: int = 0
    taps: int = 0  # fares, free rides included, less those that the hub took back
    fares_minor: int = 0  # what they took, as a negative sum
    amount_minor: int = 0  # of all facts

    def plus(self, other: Figures) -> Figures:
        """Both together."""
        return Figures(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def negated(self) -> Figures:
        """To take these away."""
        return Figures(*(-mine for mine in self))

    @classmethod
    def of(cls, delta: Delta) -> Figures:
        """One fact's."""
        return cls.of_many(1, delta.kind, delta.amount_minor)

    @classmethod
    def of_many(cls, count: int, kind: Kind, amount_minor: int) -> Figures:
        """Those of so many equal facts."""
        taps = _TAPS.get(kind, 0)
        total_minor = count * amount_minor
        return cls(count, count * taps, total_minor if taps else 0, total_minor)


NO_FIGURES: Final = Figures()


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What was learnt of a closed day afterwards: late blocks, or ones that count no more."""

    learnt_ms: int  # by the hub's clock
    replica: ReplicaId
    figures: Figures


@dataclass(frozen=True, slots=True)
class DayReport:
    """A day by author."""

    day: Day
    closed_ms: int | None  # None: it is open, and `figures` still grow
    figures: Mapping[ReplicaId, Figures]  # as of closing
    adjustments: Sequence[Adjustment] = field(default=())  # since then, in the order of learning

    @property
    def restated(self) -> dict[ReplicaId, Figures]:
        """The figures with all adjustments."""
        found = dict(self.figures)
        for one in self.adjustments:
            found[one.replica] = found.get(one.replica, NO_FIGURES).plus(one.figures)
        return found


_FIGURES: Final = Figures._fields


def _of(columns: Any) -> list[Any]:
    return [columns[name] for name in _FIGURES]


_ADD: Final = Bulk(QUARTER, ("replica", "quarter", *_FIGURES), dict.fromkeys(_FIGURES, ADDED))
_ADJUST: Final = Bulk(
    DAY_ADJUSTMENT, ("start_ms", "learnt_ms", "replica", *_FIGURES), dict.fromkeys(_FIGURES, ADDED)
)
_CLOSED: Final = Statement(
    select(DAY.c.start_ms, DAY.c.end_ms).where(
        DAY.c.start_ms <= bindparam("last"), DAY.c.end_ms > bindparam("first")
    )
)
_LIMITS: Final = select(DAY.c.start_ms, DAY.c.end_ms, DAY.c.number)
_BEFORE: Final = Statement(
    _LIMITS.where(DAY.c.number <= bindparam("number")).order_by(DAY.c.number.desc()).limit(1)
)
_AFTER: Final = Statement(_LIMITS.where(DAY.c.number > bindparam("number")).order_by(DAY.c.number).limit(1))
_CLOSED_MS: Final = select(DAY.c.closed_ms).where(DAY.c.number == bindparam("number"))
_IN_DAY: Final = QUARTER.c.quarter.between(bindparam("first"), bindparam("last"))
_SUMS: Final = tuple(total(column) for column in _of(QUARTER.c))
_CLEAR: Final = Statement(
    QUARTER.delete().where(QUARTER.c.replica == bindparam("replica"), _IN_DAY, QUARTER.c.facts == 0)
)
_BY_AUTHOR: Final = Statement(select(QUARTER.c.replica, *_SUMS).where(_IN_DAY).group_by(QUARTER.c.replica))
_OF_AUTHOR: Final = Statement(select(*_SUMS).where(_IN_DAY, QUARTER.c.replica == bindparam("replica")))
_CLOSE: Final = Bulk(DAY_FIGURE, ("start_ms", "replica", *_FIGURES))


def tally(deltas: Iterable[Delta]) -> dict[tuple[ReplicaId, int], Figures]:
    """The figures of these facts by author and quarter of an hour."""
    found: defaultdict[tuple[ReplicaId, int], Figures] = defaultdict(Figures)
    for delta in deltas:
        key = delta.replica, delta.at_ms // QUARTER_MS
        found[key] = found[key].plus(Figures.of(delta))
    return found


def add(connection: Connection, deltas: Iterable[Delta]) -> None:
    """Add facts that are projected."""
    _ADD.run(connection, [(*key, *figures) for key, figures in sorted(tally(deltas).items())])


def take_back(connection: Connection, deltas: Sequence[Delta], at_ms: int) -> None:
    """Take away facts that are in the history and count no more; closed days are adjusted."""
    taken = sorted(tally(deltas).items())
    _ADD.run(connection, [(*key, *figures.negated()) for key, figures in taken])
    for replica, quarters in groupby((key for key, _ in taken), key=lambda key: key[0]):
        first, *others = (quarter for _, quarter in quarters)
        _CLEAR.run(connection, replica=replica, first=first, last=max(others, default=first))
    adjust(connection, deltas, at_ms, sign=-1)


def adjust(connection: Connection, deltas: Sequence[Delta], learnt_ms: int, sign: int = 1) -> None:
    """Note facts that were learnt, or lost with `sign` -1, of days that were closed before."""
    if not deltas:
        return
    times = [delta.at_ms for delta in deltas]
    closed = _CLOSED.rows(connection, first=min(times), last=max(times))
    found: defaultdict[tuple[int, int, ReplicaId], Figures] = defaultdict(Figures)
    for start_ms, end_ms in closed:
        for delta in deltas:
            if start_ms <= delta.at_ms < end_ms:
                figures = Figures.of(delta) if sign > 0 else Figures.of(delta).negated()
                key = start_ms, learnt_ms, delta.replica
                found[key] = found[key].plus(figures)
    _ADJUST.run(connection, [(*key, *figures) for key, figures in sorted(found.items())])


def close(connection: Connection, day: Day, closed_ms: int) -> DayReport:
    """Fix a day's figures; the history has to have caught up. Closing it again changes nothing.

    What is closed is what other closed days leave of it, see Day.among.
    """
    found = report(connection, day)
    if found.closed_ms is not None:
        return found
    start_ms = found.day.start_ms
    rows = [(start_ms, replica, *figures) for replica, figures in sorted(found.figures.items())]
    _CLOSE.run(connection, rows)
    limits = {"start_ms": start_ms, "end_ms": found.day.end_ms, "number": found.day.number}
    connection.execute(DAY.insert().values(**limits, closed_ms=closed_ms))
    return report(connection, day)


def report(connection: Connection, day: Day) -> DayReport:
    """A day's figures: as closed, with what was learnt since; or as they are now. See Day.among."""
    near = [*_BEFORE.rows(connection, number=day.number), *_AFTER.rows(connection, number=day.number)]
    day = day.among(Day(*limits) for limits in near)
    closed_ms = connection.execute(_CLOSED_MS, {"number": day.number}).scalar_one_or_none()
    if closed_ms is None:
        return DayReport(day, None, _now(connection, day))
    fixed = select(DAY_FIGURE.c.replica, *_of(DAY_FIGURE.c)).where(DAY_FIGURE.c.start_ms == day.start_ms)
    figures = {ReplicaId(row[0]): Figures(*row[1:]) for row in connection.execute(fixed)}
    table = DAY_ADJUSTMENT.c
    query = select(table.learnt_ms, table.replica, *_of(table)).where(table.start_ms == day.start_ms)
    rows = connection.execute(query.order_by(table.learnt_ms, table.replica))
    adjustments = [Adjustment(row[0], ReplicaId(row[1]), Figures(*row[2:])) for row in rows]
    return DayReport(day, closed_ms, figures, tuple(adjustments))


def figures_of(connection: Connection, day: Day, replicas: Sequence[ReplicaId]) -> dict[ReplicaId, Figures]:
    """What the history has of these authors on a day, as far as it has come."""
    span = _span(day)
    rows = ((one, _OF_AUTHOR.rows(connection, **span, replica=one)[0]) for one in replicas)
    return {replica: Figures(*map(int, row)) for replica, row in rows}


def _now(connection: Connection, day: Day) -> dict[ReplicaId, Figures]:
    rows = _BY_AUTHOR.rows(connection, **_span(day))
    return {ReplicaId(row[0]): Figures(*map(int, row[1:])) for row in rows}


def _span(day: Day) -> dict[str, int]:
    return {"first": day.quarters[0], "last": day.quarters[-1]}
