"""Lists of small integers as byte planes, and dictionaries over them: the parts of a columnar payload.

A plane of width w holds n unsigned integers as w runs of n bytes: first every least significant byte, then
every next one. The upper bytes of neighbours are alike, which is what a compressor wants. Reading is left
to `struct` and slices, because a Python loop over every value would cost more than checking the signature.
"""

import struct
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from operator import eq
from typing import Final, Generic, NamedTuple, TypeVar

from crdt.errors import Malformed
from crdt.wire import Reader, Writer

H = TypeVar("H", bound=Hashable)

# How many bytes `struct` reads for a plane of each width, and its letter for them.
_UNPACKED: Final = {2: (2, "H"), 3: (4, "I"), 4: (4, "I"), 5: (8, "Q"), 6: (8, "Q"), 7: (8, "Q"), 8: (8, "Q")}


@lru_cache(maxsize=256)  # compiled layouts for usual block sizes; bounded because counts come from outside
def _row_layout(count: int, width: int) -> struct.Struct:
    return struct.Struct(f"{width}s" * count)


@lru_cache(maxsize=256)
def _plane_layout(count: int, letter: str) -> struct.Struct:
    return struct.Struct(f"<{count}{letter}")


def write_rows(writer: Writer, values: Sequence[bytes], width: int) -> None:
    """Append byte strings, each `width` bytes long, as planes."""
    joined = b"".join(values)
    for place in range(width):
        writer.raw(joined[place::width])


def read_rows(reader: Reader, count: int, width: int) -> Sequence[bytes]:
    """`count` byte strings of `width` bytes."""
    return _row_layout(count, width).unpack(_transposed(reader.raw(count * width), count, width))


def write_plane(writer: Writer, values: Iterable[int], width: int) -> None:
    """Append unsigned integers as a plane of `width` bytes, 0 to 8; a width of 0 writes nothing."""
    write_rows(writer, [value.to_bytes(width, "little") for value in values], width)


def read_plane(reader: Reader, count: int, width: int) -> Sequence[int]:
    """`count` unsigned integers of `width` bytes; zeros when the width is 0."""
    return _unpack_plane(reader.raw(count * width), count, width)


def write_numbers(writer: Writer, values: Sequence[int]) -> int:
    """Append the smallest width that holds the values, and their plane. Returns the width."""
    width = (max(values, default=0).bit_length() + 7) // 8
    writer.uint(width, 1)
    write_plane(writer, values, width)
    return width


def read_numbers(reader: Reader, count: int, max_width: int) -> tuple[Sequence[int], int]:
    """The numbers written by write_numbers, and their width. Malformed when the width is not the smallest."""
    width = reader.uint(1, 0, max_width)
    planes = reader.raw(count * width)
    top_plane = planes[count * (width - 1) :] if width else b"\1"
    if top_plane.count(0) == len(top_plane):
        raise Malformed("numbers are written wider than they need")
    return _unpack_plane(planes, count, width), width


def _transposed(planes: bytes, count: int, width: int) -> bytearray:
    rows = bytearray(count * width)
    for place in range(width):
        rows[place::width] = planes[place * count : (place + 1) * count]
    return rows


def index_width(entries: int) -> int:
    """How many bytes an index into a dictionary of this size takes: none for one entry, else one or two."""
    if entries == 1:
        return 0
    return 1 if entries <= 256 else 2


def write_dictionary(writer: Writer, values: Sequence[H], write_entry: Callable[[Writer, H], object]) -> None:
    """Append a column as its distinct values in order of appearance, and a plane of indexes into them."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    writer.varint(len(places))
    for value in places:
        write_entry(writer, value)
    write_plane(writer, (places[value] for value in values), index_width(len(places)))


def read_dictionary(
    reader: Reader, count: int, read_entry: Callable[[Reader], H]
) -> tuple[Sequence[H], Sequence[int]]:
    """The entries and indexes of a dictionary column. Malformed unless distinct, in order and all used."""
    size = reader.varint(1, count)
    if size == 1:
        return (read_entry(reader),), bytes(count)
    entries = [read_entry(reader) for _ in range(size)]
    index = read_plane(reader, count, index_width(size))
    if len(set(entries)) != size or not _in_order_of_appearance(index, size):
        raise Malformed("a dictionary is not in order of appearance")
    return entries, index


def _in_order_of_appearance(index: Sequence[int], size: int) -> bool:
    if isinstance(index, bytes) and size <= 8:  # a few searches at memory speed, for a few fares
        firsts = [index.find(entry) for entry in range(size)]
        return firsts == sorted(firsts) and firsts[0] == 0 and not index.translate(None, bytes(range(size)))
    return list(dict.fromkeys(index)) == list(range(size))


class Runs(NamedTuple, Generic[H]):
    """A slowly changing column: run i is `lengths[i] + 1` times `entries[picks[i]]`."""

    entries: Sequence[H]
    picks: Sequence[int]
    lengths: Sequence[int]

    def values(self) -> Iterator[H]:
        """The column's values, one by one."""
        for entry, length in zip(self.picks, self.lengths, strict=True):
            yield from repeat(self.entries[entry], length + 1)


def write_runs(writer: Writer, values: Sequence[H], write_entry: Callable[[Writer, H], object]) -> None:
    """Append a slowly changing column: its runs' lengths, and a dictionary column of the runs' values."""
    starts = [at for at in range(len(values)) if not at or values[at] != values[at - 1]]
    writer.varint(len(starts))
    if len(starts) > 1:
        ends = [*starts[1:], len(values)]
        write_plane(writer, (end - start - 1 for start, end in zip(starts, ends, strict=True)), 2)
    write_dictionary(writer, [values[start] for start in starts], write_entry)


def read_runs(reader: Reader, count: int, read_entry: Callable[[Reader], H]) -> Runs[H]:
    """A column written by write_runs. Malformed unless the runs are maximal and cover the column."""
    size = reader.varint(1, count)
    if size == 1:
        entries, index = read_dictionary(reader, 1, read_entry)
        return Runs(entries, index, (count - 1,))
    lengths = read_plane(reader, size, 2)
    if sum(lengths) + size != count:
        raise Malformed("the runs do not cover the column")
    entries, index = read_dictionary(reader, size, read_entry)
    if any(map(eq, index, index[1:])):
        raise Malformed("two neighbouring runs have the same value")
    return Runs(entries, index, lengths)


def _unpack_plane(planes: bytes, count: int, width: int) -> Sequence[int]:
    """`count` unsigned integers from the bytes of a plane."""
    if width == 1:
        return planes
    if not width:
        return bytes(count)
    unpacked, letter = _UNPACKED[width]
    padded = planes + bytes(count * (unpacked - width))
    return _plane_layout(count, letter).unpack(_transposed(padded, count, unpacked))
