"""The card column of a payload: distinct ids in order of appearance, and where an id appears again.

Most taps of a block are of different cards, so an id costs its own bytes and a repetition costs one or two.
"""

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import NamedTuple

from crdt.errors import Malformed
from crdt.facts import MAX_CARD_BYTES, MIN_CARD_BYTES, CardId
from crdt.planes import read_dictionary, read_plane, read_rows, write_dictionary, write_plane, write_rows
from crdt.wire import Reader, Writer


class Cards(NamedTuple):
    """The cards of a block's deltas."""

    ids: Sequence[CardId]
    repeats: Sequence[int]  # one per delta: 0 is the next new id, i + 1 is ids[i] again; empty: all are new

    def values(self) -> Iterator[CardId]:
        """One card per delta."""
        if not self.repeats:
            return iter(self.ids)
        fresh = iter(self.ids)
        return (self.ids[again - 1] if again else next(fresh) for again in self.repeats)


def write_card_ids(writer: Writer, ids: Sequence[CardId]) -> None:
    """Append the ids: their lengths as a dictionary column, then the ids of each length as planes."""
    lengths = dict.fromkeys(map(len, ids))
    if len(lengths) == 1:  # nearly always, and ten times as fast
        (length,) = lengths
        write_rows(writer.varint(1).uint(length, 1), ids, length)
        return
    write_dictionary(writer, [len(card) for card in ids], lambda out, length: out.uint(length, 1))
    for length in lengths:
        write_rows(writer, [card for card in ids if len(card) == length], length)


def read_card_ids(reader: Reader, size: int) -> Sequence[CardId]:
    """The `size` ids written by write_card_ids. Malformed when one appears twice."""
    lengths, index = read_dictionary(reader, size, _read_length)
    ids: Sequence[bytes]
    if len(lengths) == 1:
        ids = read_rows(reader, size, lengths[0])
    else:
        used = bytes(index)  # there are at most 13 lengths, so the indexes are bytes
        groups = [iter(read_rows(reader, used.count(at), length)) for at, length in enumerate(lengths)]
        ids = [next(groups[at]) for at in used]
    if len(set(ids)) != size:
        raise Malformed("a card id is listed twice")
    return ids  # type: ignore[return-value]  # the rows are bytes of a checked length, which is what a CardId is


def write_repeats(writer: Writer, cards: Sequence[CardId], ids: Sequence[CardId]) -> None:
    """Append where ids appear again: nothing when none does, else a plane with one entry per delta."""
    if len(ids) == len(cards):
        return
    places: dict[CardId, int] = {}
    plane = []
    for card in cards:
        plane.append(places.get(card, 0))
        places.setdefault(card, len(places) + 1)
    write_plane(writer, plane, _repeat_width(len(ids)))


def read_repeats(reader: Reader, count: int, ids: int) -> Sequence[int]:
    """The plane written by write_repeats. Malformed when it names an id that has not appeared yet."""
    if ids == count:
        return b""
    repeats = read_plane(reader, count, _repeat_width(ids))
    seen = 0
    for at, again in compress(enumerate(repeats), repeats):
        if again > at - seen:
            raise Malformed("a card is said to appear again before it first appears")
        seen += 1
    if seen != count - ids:
        raise Malformed("the card ids and their repetitions do not add up")
    return repeats


def _repeat_width(ids: int) -> int:
    return 1 if ids < 256 else 2


def _read_length(reader: Reader) -> int:
    return reader.uint(1, MIN_CARD_BYTES, MAX_CARD_BYTES)
