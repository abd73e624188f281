"""A settlement page as the hub makes it: what has changed after a cursor, cards and heads in one order.

A full load begins with an inventory instead, in the order of the tables: reading a million cards by the
position of their last change would look up each of them by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Dialect, Select, and_, bindparam, not_, select

from crdt.cursor import START, Cursor, beginning
from crdt.facts import ReplicaId
from crdt.frontier import Head
from crdt.settlement import UNMET, CardRow, card_rows
from crdt.store.balances import NOTHING, ROW, Standing, is_made, read_standing
from crdt.store.hub_schema import CARD, LISTED
from crdt.store.schema import HEAD
from crdt.store.sql import beyond
from crdt.store.statement import Statement


def _rows_after(dialect: Dialect) -> Select[Any]:
    """The rows of cards after a place, by place."""
    place = (CARD.c.position, CARD.c.card)
    given = (bindparam("position", type_=BigInteger), bindparam("card", type_=CARD.c.card.type))
    # A row without facts and flag takes a card off the hotlist; to whom it was never on it says nothing.
    never_listed = select(LISTED.c.card).where(LISTED.c.since > bindparam("known", type_=BigInteger))
    query = select(CARD.c.position, *ROW).where(
        beyond(dialect, place, given), not_(and_(NOTHING, CARD.c.card.in_(never_listed)))
    )
    return query.order_by(*place).limit(bindparam("limit", type_=BigInteger))


def _heads_after(dialect: Dialect) -> Select[Any]:
    """The heads after a place up to a position, by place."""
    place = (HEAD.c.position, HEAD.c.replica)
    given = (bindparam("position", type_=BigInteger), bindparam("replica", type_=HEAD.c.replica.type))
    query = select(HEAD.c.position, HEAD.c.replica, HEAD.c.seq, HEAD.c.hash).where(
        beyond(dialect, place, given), HEAD.c.position <= bindparam("until", type_=BigInteger)
    )
    return query.order_by(*place).limit(bindparam("limit", type_=BigInteger))


def _cards_by_id() -> Select[Any]:
    """Cards after an id, whatever is to be said of them: so many are read, and no more."""
    after = CARD.c.card > bindparam("card", type_=CARD.c.card.type)
    query = select(CARD.c.position, *ROW).where(after)
    return query.order_by(CARD.c.card).limit(bindparam("limit", type_=BigInteger))


def _heads_of_inventory() -> Select[Any]:
    """Heads by replica that last moved until a position. All are looked at: there is one for each author."""
    after = HEAD.c.replica > bindparam("replica", type_=HEAD.c.replica.type)
    query = select(HEAD.c.replica, HEAD.c.seq, HEAD.c.hash)
    query = query.where(after, HEAD.c.position <= _SINCE, HEAD.c.seq > 0)
    return query.order_by(HEAD.c.replica).limit(bindparam("limit", type_=BigInteger))


_SINCE: Final = bindparam("since", type_=BigInteger)
_CARDS_BY_ID: Final = Statement(_cards_by_id())
_INVENTORY_HEADS: Final = Statement(_heads_of_inventory())
_ROW_OF_CARD: Final = itemgetter(slice(1, None))  # of (position, *ROW)
_FLAGS: Final = 1 + [column.name for column in ROW].index("flags")  # of the same

_ROWS_AFTER: Final = Statement(_rows_after)
_HEADS_AFTER: Final = Statement(_heads_after)


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts of a settlement page."""

    series: bytes
    base: int
    after: Cursor
    until: Cursor
    rows: list[CardRow]
    position: int
    heads: dict[ReplicaId, Head]
    final: bool


def answer_pull(connection: Connection, series: bytes, base: int, after: Cursor, limit: int) -> Answer:
    """The page for a terminal that has `base` of `series` installed and everything up to `after` staged.

    One that this hub cannot continue (another series, or of a time that it lost) begins a full load. At most
    `limit` cards, and as many heads.
    """
    standing = read_standing(connection)
    if series != standing.series or not is_continued(connection, base, after, standing.position):
        base, after = 0, START
    if base == after.position == 0:
        return _inventory(connection, standing, after, limit)
    known = max(base, after.position)
    rows = _ROWS_AFTER.rows(
        connection, position=after.position, card=after.card, known=known, limit=limit + 1
    )
    until = rows[limit - 1][0] if len(rows) > limit else standing.position
    heads = _moved(connection, after, until, limit + 1)
    ends = [_place_of_row(rows[limit - 1])] if len(rows) > limit else []
    if len(heads) > limit:
        ends.append(_place_of_head(heads[limit - 1]))
        rows = [row for row in rows if _place_of_row(row) <= min(ends)]
    heads = [head for head in heads[:limit] if not ends or _place_of_head(head) <= min(ends)]
    return Answer(
        series=standing.series,
        base=base,
        after=after,
        until=max([after, *map(_place_of_row, rows[:limit][-1:]), *map(_place_of_head, heads[-1:])]),
        rows=list(card_rows(map(_ROW_OF_CARD, rows[:limit]))),
        position=standing.position,
        heads={ReplicaId(replica): Head(seq, hash_) for _, replica, seq, hash_ in heads},
        final=not ends,
    )


def is_continued(connection: Connection, base: int, after: Cursor, last: int) -> bool:
    """Whether a terminal has only what this hub said, and knows of; `last`: its newest position.

    What is staged was left out where it had changed by the hub's position then (`Cursor.seen`), so that has
    to be one that it made: a hub that was put back has forgotten those after the backup.
    """
    begins = after.place == beginning(base)
    possible = begins or (bool(after.seen) and not (base and after.since))
    return possible and all(is_made(connection, position, last) for position in {base, after.seen or base})


def _inventory(connection: Connection, standing: Standing, after: Cursor, limit: int) -> Answer:
    """The page of an inventory after a place in it; with START it begins.

    At most `limit` cards are looked at, for anybody may ask from any place in an old inventory, of which no
    card may be left: then there is nothing on the page, and the cursor moves all the same.
    """
    since = after.since or standing.position
    heads, looked = list[Sequence[Any]](), list[Sequence[Any]]()
    if not after.card:
        heads += _INVENTORY_HEADS.rows(connection, replica=after.replica, since=since, limit=limit + 1)
    if len(heads) <= limit:
        looked += _CARDS_BY_ID.rows(connection, card=after.card, limit=limit + 1)
    ends = max(len(heads), len(looked)) <= limit
    heads, looked = heads[:limit], looked[:limit]
    # What has changed since is left to its place. Given here too, a card that nobody had listed before could
    # be taken off the hotlist without a word: see `never_listed`.
    rows = [row[1:] for row in looked if row[0] <= since and row[_FLAGS] != UNMET]
    until = after
    if ends and standing.position > since:
        until = beginning(since)
    elif rows or (looked and not ends):
        until = Cursor(0, card=looked[-1][1], since=since)
    elif heads:
        until = Cursor(0, replica=heads[-1][0], since=since)
    return Answer(
        series=standing.series,
        base=0,
        after=after,
        until=until,
        rows=list(card_rows(rows)),
        position=standing.position,
        heads={ReplicaId(replica): Head(seq, hash_) for replica, seq, hash_ in heads},
        final=ends and standing.position == since,
    )


def _moved(connection: Connection, after: Cursor, until: int, limit: int) -> Sequence[tuple[Any, ...]]:
    """Heads that moved after a cursor, until a position; those of a position come before its cards."""
    position = after.position + bool(after.card)
    return _HEADS_AFTER.rows(connection, position=position, replica=after.replica, until=until, limit=limit)


def _place_of_row(row: Sequence[Any]) -> Cursor:
    return Cursor(row[0], row[1])


def _place_of_head(row: Sequence[Any]) -> Cursor:
    return Cursor(row[0], replica=row[1])
