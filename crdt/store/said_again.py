"""Moments of which a ride may be in the ledger more than once, until somebody has looked.

Copies of a terminal's storage that do not know of each other may each write again what the storage held. So
as facts enter the history, or leave it, the moments at which several authors say something of a ride are
noted in the same transaction: whoever looks, and whatever ends before, none is missed. What is due of them
says `reckoning.reckon_repeats`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, bindparam, func, or_, select, tuple_

from crdt.facts import CERTIFIED, HUBS_OWN, CardId, Kind, ReplicaId
from crdt.store.hub_schema import HISTORY, SAID_AGAIN
from crdt.store.moments import Moment
from crdt.store.sql import GIVEN, Bulk
from crdt.store.statement import Statement

AT_ONCE: Final = 250  # moments that a step looks at, and that a statement is about
_LAST: Final = (1 << 62) - 1  # with both limits SQLite looks at these rows, and not at every card's
OF_RIDES: Final = (int(Kind.FARE), *sorted(map(int, HUBS_OWN)))


def _moments(*those: ColumnElement[bool]) -> Select[Any]:
    """Of these rows: those of rides of which another author writes too, or of which a hub took one back.

    Each moment is looked at once, for there may be any number of rows of it.
    """
    of_rides = or_(*(HISTORY.c.kind == kind for kind in OF_RIDES))
    found = select(HISTORY.c.card, HISTORY.c.at_ms).where(*those, of_rides).distinct().subquery("found").c
    table = HISTORY.alias("there").c
    another = func.count(table.replica.distinct()) > 1
    taken_back = func.max(table.kind) > int(max(CERTIFIED))
    return (
        select(found.card, found.at_ms)
        .where(table.card == found.card, table.at_ms == found.at_ms)
        .group_by(found.card, found.at_ms)
        .having(another | taken_back)
    )


_CAME: Final = Statement(_moments(HISTORY.c.id.between(bindparam("first"), bindparam("last"))))
_LEAVE: Final = Statement(
    _moments(
        HISTORY.c.id.between(bindparam("first"), bindparam("last")),
        HISTORY.c.replica == bindparam("replica"),
    )
)
_NOTE: Final = Bulk(SAID_AGAIN, changes={"at_ms": GIVEN})
_SOME: Final = Statement(
    select(SAID_AGAIN.c.card, SAID_AGAIN.c.at_ms)
    .order_by(SAID_AGAIN.c.card, SAID_AGAIN.c.at_ms)
    .limit(bindparam("count", type_=BigInteger))
)


def note_came(connection: Connection, after: int) -> None:
    """The rows of the history after this one are new."""
    _note(connection, _CAME.rows(connection, first=after + 1, last=_LAST))


def note_leaving(connection: Connection, replica: ReplicaId, first: int, last: int) -> None:
    """This author's rows from the one to the other are about to leave the history."""
    _note(connection, _LEAVE.rows(connection, replica=replica, first=first, last=last))


def some(connection: Connection, count: int = AT_ONCE) -> Sequence[Moment]:
    """So many of those that are noted, or all."""
    return [Moment(CardId(card), at_ms) for card, at_ms in _SOME.rows(connection, count=count)]


def are_noted(connection: Connection) -> bool:
    """Whether there is any."""
    return bool(some(connection, 1))


def done(connection: Connection, moments: Sequence[Moment]) -> None:
    """These were looked at, and what is due of them is written."""
    here = tuple_(SAID_AGAIN.c.card, SAID_AGAIN.c.at_ms)
    connection.execute(SAID_AGAIN.delete().where(here.in_(moments)))


def _note(connection: Connection, found: Sequence[tuple[Any, ...]]) -> None:
    _NOTE.run(connection, [(card, at_ms) for card, at_ms in found])
