"""When the hub has written about cards, so that nothing it sells is of a moment of which it wrote before.

Facts that are lost and adopted are told apart by their content alone. A terminal's reader takes no two of a
card in a millisecond; two equal sales may come to a hub in one, and would be taken for one.

A hub that was put back knows the moments of what it has lost as soon as that comes again, and not before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, func, select

from crdt.facts import CardId, Delta
from crdt.store.hub_schema import MOMENT
from crdt.store.sql import GIVEN, Bulk, beyond
from crdt.store.statement import Statement


class Moment(NamedTuple):
    """A card and a time at which the hub wrote about it."""

    card: CardId
    at_ms: int


FIRST: Final = Moment(CardId(b""), 0)  # before all of them

_AT_ONCE_MS: Final = 1_000  # passed over where one is taken: a clock that stands still costs no long search

_NOTE: Final = Bulk(MOMENT, changes={"at_ms": GIVEN})
_TAKEN: Final = Statement(
    select(func.min(MOMENT.c.at_ms), func.max(MOMENT.c.at_ms)).where(
        MOMENT.c.card == bindparam("card"),
        MOMENT.c.at_ms >= bindparam("first"),
        MOMENT.c.at_ms < bindparam("end"),
    )
)

_SOME: Final = Statement(
    lambda dialect: (
        select(MOMENT.c.card, MOMENT.c.at_ms)
        .where(beyond(dialect, (MOMENT.c.card, MOMENT.c.at_ms), (bindparam("card"), bindparam("at_ms"))))
        .order_by(MOMENT.c.card, MOMENT.c.at_ms)
        .limit(bindparam("count", type_=BigInteger))
    )
)


def free(connection: Connection, card: CardId, at_ms: int, count: int) -> int:
    """The first of `count` milliseconds in a row, from `at_ms` on, at which the hub wrote nothing of it."""
    first = at_ms
    while True:
        end = first + count + _AT_ONCE_MS
        ((next_ms, last_ms),) = _TAKEN.rows(connection, card=card, first=first, end=end)
        if next_ms is None or next_ms >= first + count:
            return first
        first = last_ms + 1


def note(connection: Connection, facts: Iterable[Delta]) -> None:
    """The hub writes these."""
    _NOTE.run(connection, sorted({(fact.card, fact.at_ms) for fact in facts}))


def some(connection: Connection, after: Moment, count: int) -> Sequence[Moment]:
    """So many of all moments, or what is left of them, after one."""
    found = _SOME.rows(connection, card=after.card, at_ms=after.at_ms, count=count)
    return [Moment(CardId(card), at_ms) for card, at_ms in found]
