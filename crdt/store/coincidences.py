"""Moments of which the hub wrote and others too: there a copy of the hub's may count beside what it is of.

A hub that was put back forgets why a block did not count: which branch was first, or whom it had ended. Then
it takes the block in, and no quarantine says what an earlier identity had copied of it. So whatever comes is
held against the moments of what the hub wrote; and at a start all of those are looked at, because it may have
ended before it came to that, and where facts have left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, exists, func, select

from crdt.facts import ReplicaId
from crdt.store import moments, projection
from crdt.store.hub_schema import HISTORY, MOMENT
from crdt.store.moments import FIRST, Moment
from crdt.store.statement import Statement

AT_ONCE: Final = 1_000  # facts, or moments, that a step looks at

_FEW: Final = (
    select(HISTORY.c.id).where(HISTORY.c.id > bindparam("after")).order_by(HISTORY.c.id).limit(AT_ONCE)
)
_END: Final = Statement(select(func.max(_FEW.subquery().c.id)))
_MET: Final = Statement(
    select(HISTORY.c.card, HISTORY.c.at_ms)
    .where(
        HISTORY.c.id > bindparam("after"),
        HISTORY.c.id <= bindparam("end"),
        HISTORY.c.replica != bindparam("own"),
        exists().where(MOMENT.c.card == HISTORY.c.card, MOMENT.c.at_ms == HISTORY.c.at_ms),
    )
    .distinct()
)


class Seen(NamedTuple):
    """How far was looked."""

    row: int  # the last row of the history
    moment: Moment | None  # the last one of the hub's; None: all that were there at the start


class Part(NamedTuple):
    """What one step looks at."""

    moments: Sequence[Moment]
    end: Seen  # how far was looked with it
    more: bool = True  # whether there may be another


class Coincidences:
    """Looks at each of them once, in parts. For the writer's thread; a start knows of none that was seen.

    A step that does not become durable has looked at nothing: only `settle` moves on.
    """

    def __init__(self) -> None:
        self._seen: Seen | None = None

    def part(self, connection: Connection, own: ReplicaId) -> Part:
        """The next moments to look at. The history has caught up.

        `own`: what this identity writes, it writes in the light of what is there.
        """
        seen = self._seen or Seen(projection.last_row(connection), FIRST)
        if seen.moment is not None:
            found = moments.some(connection, seen.moment, AT_ONCE)
            return Part(found, seen._replace(moment=found[-1] if len(found) == AT_ONCE else None))
        end = _END.value(connection, after=seen.row)
        if end is None:
            return Part((), seen, more=False)
        met = _MET.rows(connection, after=seen.row, end=end, own=own)
        return Part([Moment(*one) for one in met], Seen(end, None))

    def begin_again(self) -> None:
        """Facts may have left the history."""
        self._seen = None

    def settle(self, part: Part) -> None:
        """The step that looked at this part is durable."""
        self._seen = part.end
