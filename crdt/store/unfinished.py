"""Background work that is not at its end, as the database tells, and whether anybody goes on with it.

Each kind is judged by its own progress: a process that is busy with one may have died over another.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, select

from crdt.store import comparing, cutting, said_again
from crdt.store.hub_schema import HUB
from crdt.store.schema import BLOCK
from crdt.store.statement import Statement

STANDSTILL_S: Final = 1.0  # after which nobody goes on: many times what a step takes

_STANDS: Final = Statement(select(HUB.c.projected, HUB.c.judge_after))
_LAST_BLOCK: Final = Statement(select(func.max(BLOCK.c.ordinal)))


class Work(Enum):
    """A kind of it."""

    HISTORY = auto()  # blocks become rows
    CUTTING = auto()  # what lies beyond the cut-offs of revoked authors leaves
    JUDGING = auto()  # cards, by a new floor
    COMPARING = auto()  # what was asked for, see `comparing`
    REPEATS = auto()  # rides that may be there more than once are looked at
    RIDES = auto()  # what came is held against what a hub that was put back has copied


class Stand(NamedTuple):
    """Of one kind: where it is, and since when."""

    at: Hashable  # another one after each step
    since_s: float


def places(connection: Connection) -> dict[Work, Hashable]:
    """Where each kind of work is that is not at its end, but for RIDES, which no database tells."""
    projected, judge_after = _STANDS.rows(connection)[0]
    cut, requests = cutting.place(connection), comparing.requests(connection)
    found: dict[Work, Hashable] = {}
    if _LAST_BLOCK.value(connection) not in (None, projected):
        found[Work.HISTORY] = projected
    if cut is not None:
        found[Work.CUTTING] = cut
    if judge_after is not None:
        found[Work.JUDGING] = judge_after
    if repeats := said_again.some(connection, 1):
        found[Work.REPEATS] = repeats[0]
    if requests.open:
        found[Work.COMPARING] = (requests.answered, requests.steps)
    return found


def stands(before: Mapping[Work, Stand], found: Mapping[Work, Hashable], now_s: float) -> dict[Work, Stand]:
    """Since when each is where it is. `before`: as was seen last; `now_s`: by a clock that only grows."""
    return {work: _stand(before.get(work), at, now_s) for work, at in found.items()}


def stuck(standing: Mapping[Work, Stand], now_s: float) -> Collection[Work]:
    """What nobody goes on with."""
    return {work for work, stand in standing.items() if now_s - stand.since_s >= STANDSTILL_S}


def _stand(before: Stand | None, at: Hashable, now_s: float) -> Stand:
    return before if before is not None and before.at == at else Stand(at, now_s)
