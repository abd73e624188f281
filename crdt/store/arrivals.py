"""When blocks came to a hub, to a quarter of an hour of its own clock: what was here then was written before.

Blocks are numbered in the order in which they came, so of each quarter of an hour it is enough to know the
last number before it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BindParameter, Connection, bindparam, delete, func, select

from crdt.store.days import QUARTER_MS
from crdt.store.hub_schema import ARRIVAL
from crdt.store.schema import BLOCK
from crdt.store.sql import Bulk
from crdt.store.statement import Statement

_NOTE: Final = Bulk(ARRIVAL, changes={"ordinal": "{old}"})
_QUARTER: Final[BindParameter[int]] = bindparam("quarter")
_FORGET_LATER: Final = Statement(delete(ARRIVAL).where(ARRIVAL.c.quarter > _QUARTER))
_LAST: Final = Statement(select(func.coalesce(func.max(BLOCK.c.ordinal), 0)))
_SINCE: Final = Statement(
    select(ARRIVAL.c.ordinal).where(ARRIVAL.c.quarter >= _QUARTER).order_by(ARRIVAL.c.quarter).limit(1)
)
_BEFORE: Final = Statement(
    select(ARRIVAL.c.ordinal).where(ARRIVAL.c.quarter < _QUARTER).order_by(ARRIVAL.c.quarter.desc()).limit(1)
)


def quarter_of(at_ms: int) -> int:
    """Which quarter of an hour it is by the hub's clock."""
    return at_ms // QUARTER_MS


def note(connection: Connection, quarter: int) -> None:
    """Within a write, before its blocks: they are the first of this quarter. Again for the same is fine.

    What was noted of later ones, but the next, was by a clock that was ahead: they begin when they have come.
    """
    _FORGET_LATER.run(connection, quarter=quarter + 1)
    _NOTE.run(connection, [(quarter, _LAST.value(connection))])


def came_after(connection: Connection, ordinal: int, at_ms: int) -> bool:
    """Whether a block came after this moment, the beginning of a quarter; False where it cannot be told.

    What was here in an earlier quarter did not, also where the clock was ahead for a while and has noted this
    one too early.
    """
    quarter = quarter_of(at_ms)
    before, since = _BEFORE.value(connection, quarter=quarter), _SINCE.value(connection, quarter=quarter)
    return since is not None and ordinal > max(since, before or 0)
