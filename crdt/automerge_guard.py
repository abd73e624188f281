"""Automerge within bounds: what a saved document would cost to load, found out before it is loaded.

Saved columns are run-length encoded and deflated: a hundred bytes can say "a billion operations", and
automerge would make them all. So the columns are counted here first, as the format (automerge.org/
automerge-binary-format-spec) writes them. Automerge also panics on some input, with a BaseException; that
is contained here.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from automerge.core import Document

from crdt.errors import InputRefused, Malformed, TooLarge
from crdt.wire import Reader

MAX_INFLATED_BYTES: Final = 4 * 1024 * 1024  # all columns of a document, and its texts written out
_MAGIC: Final = b"\x85\x6f\x4a\x83"
_CHECKSUM_BYTES: Final = 4
_DOCUMENT_CHUNK: Final = 0
_HEAD_BYTES: Final = 32
_MAX_COLUMNS: Final = 32
_MAX_ACTOR_BYTES: Final = 64
_DEFLATED: Final = 8  # a bit of a column's specification; the three below it are its type
_GROUP, _DELTA, _BOOLEAN, _TEXT, _RAW = 0, 3, 4, 5, 7  # column types; all others are unsigned integers


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that a document may have."""

    size_bytes: int
    writers: frozenset[bytes]  # automerge calls them actors
    changes: int
    operations: int


@dataclass(frozen=True, slots=True)
class Size:
    """What a document has."""

    changes: int
    operations: int


def open_saved(body: bytes, bounds: Bounds) -> tuple[Document, Size]:
    """The document that was saved as `body`, and its size. Raises TooLarge or Malformed."""
    size = measure(body, bounds)
    with contained():
        document = Document.load(body)
        if any(change.max_op > size.operations for change in document.get_changes([])):
            raise Malformed("the document numbers operations that it does not have")
    return document, size


def measure(body: bytes, bounds: Bounds) -> Size:
    """The size of a saved document, without loading it. Raises TooLarge beyond `bounds`, or Malformed."""
    if len(body) > bounds.size_bytes:
        raise TooLarge(f"a document has at most {bounds.size_bytes} bytes")
    reader = Reader(body)
    if reader.raw(len(_MAGIC)) != _MAGIC:
        raise Malformed("this is not an automerge document")
    reader.raw(_CHECKSUM_BYTES)  # automerge checks it
    if reader.uint(1) != _DOCUMENT_CHUNK or reader.varint() != len(body) - reader.at:
        raise Malformed("the document is not one whole saved document")
    for _ in range(reader.varint(0, len(bounds.writers))):
        if reader.raw(reader.varint(0, _MAX_ACTOR_BYTES)) not in bounds.writers:
            raise Malformed("somebody has written in the document who may not")
    for _ in range(reader.varint(0, bounds.changes)):
        reader.raw(_HEAD_BYTES)
    changes, operations = _read_layout(reader), _read_layout(reader)
    room = _Room(MAX_INFLATED_BYTES)
    return Size(
        _longest(reader, changes, bounds.changes, room), _longest(reader, operations, bounds.operations, room)
    )


@contextmanager
def contained() -> Iterator[None]:
    """Whatever automerge raises in here is Malformed, its panics too; interrupts and exits are not."""
    try:
        yield
    except InputRefused:
        raise
    except Exception as error:
        raise Malformed("the document cannot be read") from error
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":  # a Rust panic; anything else is an interrupt or an exit
            raise
        raise Malformed("the document cannot be read") from error


class _Room:
    """How many bytes a document may still come to."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise TooLarge(f"a document has at most {MAX_INFLATED_BYTES} bytes when it is unpacked")


def _read_layout(reader: Reader) -> list[tuple[int, int]]:
    return [(reader.varint(0, 2**32 - 1), reader.varint()) for _ in range(reader.varint(0, _MAX_COLUMNS))]


def _longest(reader: Reader, layout: list[tuple[int, int]], most: int, room: _Room) -> int:
    """How many rows the longest of these columns has, or how many the rows of a group add up to."""
    rows = 0
    for specification, length in layout:
        data = reader.raw(length)
        if specification & _DEFLATED:
            data = _inflated(data, room.left)
        room.take(len(data))
        rows = max(rows, _count(specification & 7, Reader(data), most, room))
    return rows


def _inflated(data: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(data, most + 1)
    except zlib.error as error:
        raise Malformed("a column of the document does not decompress") from error
    return plain


def _count(kind: int, reader: Reader, most: int, room: _Room) -> int:
    if kind == _RAW:
        return 0
    if kind == _BOOLEAN:
        return _count_booleans(reader, most)
    read = {_TEXT: _read_text, _DELTA: _read_delta}.get(kind, _read_number)
    return _count_runs(reader, read, most, room, adds_up=kind == _GROUP)


def _count_booleans(reader: Reader, most: int) -> int:
    rows = 0
    while not reader.ended:
        rows = _within(rows + reader.varint(), most)
    return rows


def _count_runs(
    reader: Reader, read: Callable[[Reader], tuple[int, int]], most: int, room: _Room, *, adds_up: bool
) -> int:
    """Rows of a column: a positive length and one value, a negative one and so many, or 0 and nulls."""
    rows = total = 0
    while not reader.ended:
        length = _read_signed(reader)
        if not length:
            rows = _within(rows + reader.varint(), most)
            continue
        rows = _within(rows + abs(length), most)
        times = max(length, 1)
        for _ in range(1 if length > 0 else -length):
            value, size = read(reader)
            room.take(times * size)
            if adds_up:
                total = _within(total + times * value, most)
    return max(rows, total)


def _read_number(reader: Reader) -> tuple[int, int]:
    return reader.varint(), 0


def _read_delta(reader: Reader) -> tuple[int, int]:
    return _read_signed(reader), 0


def _read_text(reader: Reader) -> tuple[int, int]:
    size = reader.varint()
    reader.raw(size)
    return 0, size


def _read_signed(reader: Reader) -> int:
    """A signed LEB128 number of at most 64 bits."""
    value = shift = 0
    while shift < 70:
        byte = reader.uint(1)
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value - (1 << shift) if byte & 0x40 else value
    raise Malformed("a number in the document is too long")


def _within(rows: int, most: int) -> int:
    if rows > most:
        raise TooLarge(f"a document has a history of at most {most} entries")
    return rows
