"""Automerge's saved documents byte by byte, for tests that write what automerge itself would not."""

import zlib
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from crdt.wire import Reader, Writer

HEADER_BYTES = 8  # magic and checksum


class Column(NamedTuple):
    """A column: its id and type, and its bytes as they are stored."""

    specification: int
    data: bytes


class Parts(NamedTuple):
    """What a document chunk consists of."""

    actors: list[bytes]
    heads: list[bytes]
    changes: list[Column]
    operations: list[Column]
    suffix: bytes  # where the heads are

    def saved(self) -> bytes:
        """The document with a checksum that is right."""
        writer = Writer().varint(len(self.actors))
        for actor in self.actors:
            writer.varint(len(actor)).raw(actor)
        writer.varint(len(self.heads)).raw(b"".join(self.heads))
        for columns in (self.changes, self.operations):
            writer.varint(len(columns))
            for column in columns:
                writer.varint(column.specification).varint(len(column.data))
        for column in (*self.changes, *self.operations):
            writer.raw(column.data)
        return chunk(writer.raw(self.suffix).done())


def chunk(content: bytes, kind: int = 0) -> bytes:
    """A chunk around any content, with a checksum that is right."""
    body = bytes([kind]) + Writer().varint(len(content)).done() + content
    return b"\x85\x6f\x4a\x83" + sha256(body).digest()[:4] + body


def parts(saved: bytes) -> Parts:
    """The parts of a document that automerge saved."""
    reader = Reader(saved)
    reader.raw(HEADER_BYTES + 1)
    reader.varint()
    actors = [reader.raw(reader.varint()) for _ in range(reader.varint())]
    heads = [reader.raw(32) for _ in range(reader.varint())]
    layouts = [[(reader.varint(), reader.varint()) for _ in range(reader.varint())] for _ in range(2)]
    changes, operations = (
        [Column(specification, reader.raw(length)) for specification, length in layout] for layout in layouts
    )
    return Parts(actors, heads, changes, operations, reader.rest())


def signed(value: int) -> bytes:
    """A signed LEB128 number."""
    out = bytearray()
    while not -64 <= value < 64:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def run(count: int, value: bytes) -> bytes:
    """A run of `count` times the value."""
    return signed(count) + value


def deflated(column: Column) -> Column:
    """The column, compressed."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return Column(column.specification | 8, packer.compress(column.data) + packer.flush())


def swelling(saved: bytes, count: int, keys: bytes = b"\x01a") -> bytes:
    """A small document whose operations are said to be `count`, in a few bytes."""
    whole = parts(saved)
    runs = {0x15: run(count, keys), 0x21: run(count, b"\0"), 0x23: run(count, b"\x01")}
    runs |= {0x42: run(count, b"\x01"), 0x56: run(count, b"\0"), 0x80: run(count, b"\0")}
    runs |= {0x34: Writer().varint(count).done(), 0x57: b""}
    operations = [Column(each.specification, runs.get(each.specification, b"")) for each in whole.operations]
    changes = with_column(whole.changes, 0x13, run(1, signed(count)))  # the number of the last operation
    return whole._replace(changes=changes, operations=operations).saved()


def with_column(columns: Sequence[Column], specification: int, data: bytes) -> list[Column]:
    """The columns with one replaced, or added in its place."""
    kept = [column for column in columns if column.specification != specification]
    return sorted([*kept, Column(specification, data)], key=lambda column: column.specification)
