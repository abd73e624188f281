"""Whether a day's taps are all here: proved by chains without gaps, and by each author's word since.

The hub holds the beginning of every chain without a gap, so nothing can be missing before the last fact it
holds. What may come after that is known from whoever named how far the chain goes. That the last fact is of a
later day tells that what is missing is later too, unless the clock that said so may have been ahead: by what
it says itself, by an hour in any case, and by whatever it was where the fact was here before the day ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Final, NamedTuple

from sqlalchemy import Connection, Integer, bindparam, func, or_, select

from crdt.block import Block, parse
from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from crdt.revocations import Revocations
from crdt.store import arrivals, cutting, days, expectations, projection, quarantine
from crdt.store.blocks import NO_HEAD, facts_of, heads_of
from crdt.store.days import NO_FIGURES, Day, Figures
from crdt.store.expectations import NOTHING_EXPECTED, Expected
from crdt.store.hub_schema import HUB
from crdt.store.resolutions import UNRESOLVED
from crdt.store.schema import BLOCK, QUARANTINE
from crdt.store.silent import Silent
from crdt.store.statement import Statement

AHEAD_MS: Final = 60 * 60 * 1000  # that a clock may be ahead, however sure it is of itself
MANY_BLOCKS: Final = 32  # of an author's: with more of them to come, the history is not waited for

_LAST: Final = Statement(
    select(BLOCK.c.ordinal, BLOCK.c.raw)
    .where(BLOCK.c.replica == bindparam("replica"))
    .order_by(BLOCK.c.first_seq.desc())
    .limit(1)
)
_UNPROJECTED: Final = Statement(
    select(BLOCK.c.raw)
    .where(
        BLOCK.c.replica == bindparam("replica"),
        BLOCK.c.ordinal > select(HUB.c.projected).scalar_subquery(),
    )
    .limit(MANY_BLOCKS + 1)
)
_CONTESTED: Final = Statement(
    select(func.coalesce(func.sum(QUARANTINE.c.last_seq - QUARANTINE.c.first_seq + 1), 0)).where(
        QUARANTINE.c.replica == bindparam("replica"),
        or_(
            QUARANTINE.c.reason == int(RefusalCode.FORK_DETECTED),
            QUARANTINE.c.reason == bindparam("revoked", type_=Integer),
        ),
        or_(*(QUARANTINE.c.resolution == one for one in UNRESOLVED)),
    )
)


@dataclass(frozen=True, slots=True)
class Complete:
    """Taps 1 to `taps` of the day are here, and there are no others."""

    taps: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Facts of an author that exist, are not here, and may be of the day."""

    replica: ReplicaId
    after_tap: int  # the day's last tap here before them
    first_seq: int  # numbers of the author's chain
    last_seq: int


@dataclass(frozen=True, slots=True)
class Missing:
    """Taps 1 to `taps` are here, and some are not."""

    taps: int
    gaps: Sequence[Gap]
    contested: int  # facts in quarantine because of a fork that nobody has resolved


@dataclass(frozen=True, slots=True)
class Open:
    """Taps 1 to `until` are here; nobody has said yet whether there are more."""

    until: int
    last_heard_ms: int  # until when the terminal has said all it had; 0: never
    silent: Sequence[Silent] = ()  # former identities that nobody can speak for


@dataclass(frozen=True, slots=True)
class Behind:
    """What is here is still being counted: much has come at once, or leaves the record."""


Completeness = Complete | Missing | Open | Behind


class AuthorsDay(NamedTuple):
    """A day of a bus, in one reading: what its taps took in is of as many of them as are said to be here."""

    completeness: Completeness
    figures: Figures | None  # of all that is here, in the history or not yet; None: Behind


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one author and a day."""

    replica: ReplicaId
    taps: int  # of the day, here
    held_seq: int
    last_ms: int  # when the last fact here was written at the earliest, by its author's clock; 0: unknown
    expected: Expected
    contested: int = 0  # facts of it in quarantine that nobody has decided about

    @property
    def missing(self) -> bool:
        """Whether facts of it are known to exist that are not here."""
        return self.expected.seq > self.held_seq

    def has_said_all(self, day: Day, now_ms: int) -> bool:
        """Whether it has nothing of the day but what is named.

        A word of a time that has not come yet was noted by a clock that was ahead, or it is behind now.
        """
        return self.expected.ended or day.end_ms <= self.expected.heard_ms <= now_ms

    def went_on_after(self, day: Day, now_ms: int) -> bool:
        """Whether whatever is missing of it was written after the day.

        It was written after the last fact here, and what is named before it was named. So a last fact that
        even at the earliest is later than that, by the hub's clock, has a wrong date.
        """
        named_ms = self.expected.at_ms
        if self.last_ms < day.end_ms or 0 < named_ms < day.end_ms:
            return False
        return self.last_ms <= (named_ms if self.missing and named_ms else now_ms)


def judge(day: Day, authors: Sequence[Known], now_ms: int) -> Complete | Missing | Open:
    """The day of a bus that had these identities, in their order. `now_ms`: by the hub's clock."""
    taps, contested = 0, 0
    gaps: list[Gap] = []
    unheard: list[Known] = []
    for known in authors:
        taps += known.taps
        contested += known.contested
        if known.went_on_after(day, now_ms):
            continue
        if known.missing and known.expected.at_ms > day.start_ms:
            gaps.append(Gap(known.replica, taps, known.held_seq + 1, known.expected.seq))
        elif known.missing or not known.has_said_all(day, now_ms):
            unheard.append(known)
    if gaps or contested:
        return Missing(taps, tuple(gaps), contested)
    return _open(taps, unheard, authors) if unheard else Complete(taps)


def day_of(
    connection: Connection, replicas: Sequence[ReplicaId], day: Day, revocations: Revocations, now_ms: int
) -> AuthorsDay:
    """What is here of these authors on that day, and whether it is all. `now_ms`: by the hub's clock."""
    figures = _figures_of(connection, replicas, day)
    if figures is None:
        return AuthorsDay(Behind(), None)
    heads = heads_of(connection, replicas)
    expected = expectations.read(connection, replicas)
    authors = []
    for replica in replicas:
        one, held_seq = expected.get(replica, NOTHING_EXPECTED), heads.get(replica, NO_HEAD).seq
        if replica in revocations.replaced:
            # Nobody decided that its facts beyond the cut-off do not count: they are looked at one by one.
            held_seq = quarantine.examined(connection, replica, held_seq)
        else:
            one = one.limited(revocations.cut_offs.get(replica, one.seq))
            one = replace(one, ended=one.ended or revocations.ends(replica, held_seq))
        known = Known(
            replica,
            figures[replica].taps,
            held_seq,
            _last_ms(connection, replica, day),
            one,
            _contested(connection, replica, replaced=replica in revocations.replaced),
        )
        authors.append(known)
    return AuthorsDay(judge(day, authors, now_ms), reduce(Figures.plus, figures.values(), NO_FIGURES))


def _figures_of(
    connection: Connection, replicas: Sequence[ReplicaId], day: Day
) -> dict[ReplicaId, Figures] | None:
    """What the record has of these authors on a day; None while much of it is still to be counted, or not to
    be counted any more."""
    if cutting.among(connection, replicas):
        return None
    found = days.figures_of(connection, day, replicas)
    if projection.has_all(connection):
        return found  # else all that an author ever wrote is looked through for what is not counted yet
    for replica in replicas:
        lacking = _UNPROJECTED.rows(connection, replica=replica)
        if len(lacking) > MANY_BLOCKS:
            return None
        for (raw,) in lacking:
            found[replica] = found[replica].plus(_of_day(parse(raw), day))
    return found


def _of_day(block: Block, day: Day) -> Figures:
    facts = facts_of(block)
    rows = zip(facts.times.values(), facts.index, strict=True)
    entries = Counter(entry for at_ms, entry in rows if day.start_ms <= at_ms < day.end_ms)
    found = NO_FIGURES
    for entry, count in entries.items():
        found = found.plus(Figures.of_many(count, *facts.money[entry]))
    return found


def _open(taps: int, unheard: Sequence[Known], authors: Sequence[Known]) -> Open:
    kin = [one.expected for one in authors]
    silent = [
        Silent(one.replica, one.held_seq, one.expected.heard_ms)
        for one in unheard
        if one.expected.is_silent(kin)
    ]
    return Open(taps, min(one.expected.heard_ms for one in unheard), tuple(silent))


def _last_ms(connection: Connection, replica: ReplicaId, day: Day) -> int:
    """See `Known`. 0 where there is none, or where it was here before the day ended: then it was written
    before, whatever its author's clock says."""
    found = _LAST.row(connection, replica=replica)
    if found is None or not arrivals.came_after(connection, found[0], day.end_ms):
        return 0
    block = parse(found[1])
    last = facts_of(block).deltas(replica, block.header.first_seq)[-1]
    return max(0, last.at_ms - max(last.context.clock_error_ms, AHEAD_MS))


def _contested(connection: Connection, replica: ReplicaId, *, replaced: bool) -> int:
    """Facts in quarantine that nobody has decided about; of a revoked author the revocation has decided."""
    revoked = RefusalCode.REVOKED if replaced else RefusalCode.FORK_DETECTED
    return int(_CONTESTED.value(connection, replica=replica, revoked=int(revoked)))
