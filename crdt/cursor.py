"""How far a terminal has come that takes a settlement page by page: a place in the hub's order of changes.

And at which position the hub was then. What had changed by that was left for later; so a hub that has lost
these changes cannot go on from the place, and tells by the position, which it never makes again.
"""

from typing import Final, NamedTuple

from crdt.errors import Malformed
from crdt.facts import ID_BYTES, MAX_CARD_BYTES, MIN_CARD_BYTES
from crdt.wire import Reader, Writer

MAX_POSITION: Final = 2**63 - 2


class Cursor(NamedTuple):
    """A place in the hub's order of changes: everything up to and with it has been given.

    The place of a card, or that of a head, or neither: before all changes at the position. An inventory has
    position 0, before all changes. Cursors are in the order of their places.
    """

    position: int
    card: bytes = b""
    replica: bytes = b""  # whose head: at each position before the cards
    since: int = 0  # in an inventory: the position at which it began, and after which changes follow
    seen: int = 0  # the hub's position on the last page that gave something; 0: none has

    @property
    def place(self) -> "Cursor":
        """The place alone."""
        return self._replace(seen=0)


START: Final = Cursor(0)


def beginning(base: int) -> Cursor:
    """Where paging starts for a terminal with position `base` installed: after that position's changes."""
    return Cursor(base + 1) if base else START


def write_cursor(writer: Writer, cursor: Cursor) -> None:
    """Append a cursor: position varint, then two shorts: card (0 or 4..16 bytes), replica (0 or 16).

    Where it is in an inventory, then `since` varint. In any case `seen` varint.
    """
    writer.varint(cursor.position).short(cursor.card).short(cursor.replica)
    if in_inventory(cursor):
        writer.varint(cursor.since)
    writer.varint(cursor.seen)


def read_cursor(reader: Reader) -> Cursor:
    """The cursor written by write_cursor."""
    position, card = reader.varint(0, MAX_POSITION + 1), reader.short(0, MAX_CARD_BYTES)
    replica = reader.short(0, ID_BYTES)
    if (card and len(card) < MIN_CARD_BYTES) or (replica and (card or len(replica) < ID_BYTES)):
        raise Malformed("a cursor names neither one card nor one replica")
    cursor = Cursor(position, card, replica)
    since = reader.varint(1, MAX_POSITION) if in_inventory(cursor) else 0
    cursor = cursor._replace(since=since, seen=reader.varint(0, MAX_POSITION))
    if not is_reached(cursor):
        raise Malformed("a cursor names a place that the hub had not made when it gave it")
    return cursor


def is_reached(cursor: Cursor) -> bool:
    """Whether the hub had made the place when it gave it; the beginning after a position needs none given."""
    position, card, replica, since, seen = cursor
    if seen:
        return cursor.place != START and max(position - (not card and not replica), since) <= seen
    return not card and not replica


def in_inventory(cursor: Cursor) -> bool:
    """Whether it is a place in an inventory."""
    return cursor.position == 0 and bool(cursor.card or cursor.replica)
