"""The open segment on disk: what this terminal has written since its last sealed block, or writes again.

A row's place says only in which order rows stand. The number of a fact follows from it: the first row has
the number after the sealed head, and so on. So a new identity, whose numbers are others, takes all of it over
without writing a row.

Rows from the terminal's `again_from` on do not show. What is written again after a month would hold up a tap
if it were put there at once; so it is put there a part at a time, and shows all at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, func, select, update

from crdt.facts import Delta, Kind, ReplicaId
from crdt.store.blocks import SegmentRow, delta_of, fact_row
from crdt.store.schema import HEAD
from crdt.store.sql import Bulk
from crdt.store.statement import Statement
from crdt.store.terminal_schema import NO_PLACE, OPEN_DELTA, TERMINAL

PART_ROWS: Final = 500  # put there in one transaction: a tap waits for one at most

_ROOM: Final = 2**32  # places for the taps that come meanwhile

_INSERT: Final = Bulk(OPEN_DELTA)
_PLACE: Final = OPEN_DELTA.c.place
_SHOWN: Final = select(TERMINAL.c.again_from).scalar_subquery() > _PLACE
_ROWS: Final = Statement(select(OPEN_DELTA).where(_SHOWN).order_by(_PLACE))
_HEAD_SEQ: Final = select(HEAD.c.seq).join(TERMINAL, TERMINAL.c.replica == HEAD.c.replica).scalar_subquery()
_LAST: Final = Statement(select(func.coalesce(func.max(_PLACE), _HEAD_SEQ, 0)).where(_SHOWN))
_ANY: Final = Statement(select(_PLACE).where(_SHOWN).limit(1))
_MONEY: Final = Statement(select(OPEN_DELTA.c.kind, OPEN_DELTA.c.amount_minor).where(_SHOWN).distinct())
_DELETE: Final = Statement(OPEN_DELTA.delete().where(_PLACE.between(bindparam("first"), bindparam("last"))))
_AGAIN_FROM: Final = Statement(update(TERMINAL).values(again_from=bindparam("place")))


def read(connection: Connection) -> list[SegmentRow]:
    """The facts that are not sealed, in order."""
    rows: list[SegmentRow] = [*_ROWS.rows(connection)]
    return rows


def is_empty(connection: Connection) -> bool:
    """Whether there are none."""
    return _ANY.value(connection) is None


def last_place(connection: Connection) -> int:
    """After which the next one stands: in plain life a place is the number that the fact has then."""
    return int(_LAST.value(connection))


def money(connection: Connection) -> list[tuple[Kind, int]]:
    """Which kinds and amounts are among them."""
    return [(Kind(kind), amount_minor) for kind, amount_minor in _MONEY.rows(connection)]


def numbered(replica: ReplicaId, head_seq: int, rows: Iterable[SegmentRow]) -> list[Delta]:
    """The first rows as this author's facts after its sealed head."""
    return [delta_of(replica, seq, row[1:]) for seq, row in enumerate(rows, head_seq + 1)]


def placed(facts: Iterable[Delta], after: int) -> list[SegmentRow]:
    """Facts as rows that stand after a place."""
    return [(place, *fact_row(fact)) for place, fact in enumerate(facts, after + 1)]


def put(connection: Connection, rows: Sequence[SegmentRow]) -> None:
    """Add rows."""
    _INSERT.run(connection, rows)


def delete(connection: Connection, places: Sequence[int]) -> None:
    """Remove the rows of these places, which ascend."""
    first = 0
    for at, place in enumerate(places, 1):
        if at == len(places) or places[at] != place + 1:
            _DELETE.run(connection, first=places[first], last=place)
            first = at


def hide(connection: Connection) -> int:
    """Let what is put after a place not show until `show`; that place. What was left there goes."""
    after = last_place(connection) + _ROOM
    _DELETE.run(connection, first=last_place(connection) + 1, last=NO_PLACE)
    _AGAIN_FROM.run(connection, place=after + 1)
    return after


def show(connection: Connection) -> None:
    """Let everything show."""
    _AGAIN_FROM.run(connection, place=NO_PLACE)
