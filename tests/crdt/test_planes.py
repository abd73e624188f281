"""The parts of a payload: each has one writing, and every other one is Malformed (invariants 2 and 8)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.columns import decode, encode
from crdt.errors import Malformed
from crdt.facts import CardId, Delta, Kind
from crdt.planes import (
    index_width,
    read_dictionary,
    read_numbers,
    read_plane,
    read_rows,
    read_runs,
    write_dictionary,
    write_numbers,
    write_plane,
    write_rows,
    write_runs,
)
from crdt.wire import Reader, Writer
from tests.crdt.world import TERMINALS

numbers = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 300), min_size=1, max_size=20)


def plane(values: list[int], width: int) -> bytes:
    writer = Writer()
    write_plane(writer, values, width)
    return writer.done()


@given(numbers)
def test_numbers_read_as_written_in_the_smallest_width(values: list[int]) -> None:
    writer = Writer()
    width = write_numbers(writer, values)
    assert width == (max(values).bit_length() + 7) // 8
    found, found_width = read_numbers(Reader(writer.done()), len(values), 8)
    assert (list(found), found_width) == (values, width)
    for wider in range(width + 1, 9):
        with pytest.raises(Malformed):
            read_numbers(Reader(bytes([wider]) + plane(values, wider)), len(values), 8)


@given(st.integers(1, 8), st.data())
def test_a_plane_of_any_width_reads_as_written(width: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 256**width - 1), max_size=10))
    assert list(read_plane(Reader(plane(values, width)), len(values), width)) == values
    rows = [value.to_bytes(width, "big") for value in values]
    writer = Writer()
    write_rows(writer, rows, width)
    assert list(read_rows(Reader(writer.done()), len(rows), width)) == rows


def dictionary(entries: list[int], index: list[int]) -> bytes:
    writer = Writer().varint(len(entries))
    for entry in entries:
        writer.varint(entry)
    write_plane(writer, index, index_width(len(entries)))
    return writer.done()


def read(data: bytes, count: int) -> list[int]:
    reader = Reader(data)
    entries, index = read_dictionary(reader, count, Reader.varint)
    reader.end()
    return [entries[at] for at in index]


@given(st.lists(st.integers(0, 400), min_size=1, max_size=600))
def test_a_dictionary_reads_as_written(values: list[int]) -> None:
    writer = Writer()
    write_dictionary(writer, values, Writer.varint)
    entries = list(dict.fromkeys(values))
    assert writer.done() == dictionary(entries, [entries.index(value) for value in values])
    assert read(writer.done(), len(values)) == values


MANY = list(range(300))


@pytest.mark.parametrize(
    ("entries", "index"),
    [
        pytest.param([7, 8], [0, 0], id="an entry is not used"),
        pytest.param([7, 8], [1, 0], id="not in order of appearance"),
        pytest.param([7, 7], [0, 1], id="an entry twice"),
        pytest.param([7, 8], [0, 1, 2], id="an index beyond the entries"),
        pytest.param([7, 8, 9], [0, 2, 1], id="a later entry first"),
        pytest.param(MANY[:20], [*range(19), 18], id="one of many not used"),
        pytest.param(MANY[:20], [1, 0, *range(2, 20)], id="many, not in order"),
        pytest.param(MANY[:20], [*range(20), 20], id="many, an index beyond"),
        pytest.param(MANY, [*range(299), 298], id="indexes of two bytes, one not used"),
        pytest.param(MANY, [*range(300), 300], id="indexes of two bytes, one beyond"),
        pytest.param([7] * 300, [*range(300)], id="indexes of two bytes, entries alike"),
    ],
)
def test_a_dictionary_written_otherwise_is_malformed(entries: list[int], index: list[int]) -> None:
    with pytest.raises(Malformed):
        read(dictionary(entries, index), len(index))


@pytest.mark.parametrize("data", [b"\x00", b"\x04\x01\x02\x03\x04"])
def test_a_dictionary_with_no_entry_or_more_than_values_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(data, 3)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_runs_read_as_written(values: list[int]) -> None:
    writer = Writer()
    write_runs(writer, values, Writer.varint)
    reader = Reader(writer.done())
    assert list(read_runs(reader, len(values), Reader.varint).values()) == values
    reader.end()


@pytest.mark.parametrize(
    ("lengths", "entries", "index"),
    [
        pytest.param([1, 2], [7], [0, 0], id="two neighbours alike"),
        pytest.param([1, 1, 1], [7, 8], [0, 1, 1], id="two of three alike"),
        pytest.param([1, 1], [7, 8], [0, 1], id="too short for the column"),
        pytest.param([2, 2], [7, 8], [0, 1], id="too long for the column"),
    ],
)
def test_runs_written_otherwise_are_malformed(
    lengths: list[int], entries: list[int], index: list[int]
) -> None:
    data = Writer().varint(len(lengths)).raw(plane([length - 1 for length in lengths], 2)).done()
    with pytest.raises(Malformed):
        read_runs(Reader(data + dictionary(entries, index)), 3, Reader.varint)


@pytest.mark.parametrize(
    ("kind", "amount"),
    [
        (1, 1),
        (2, 0),
        (2, -1),
        (3, -1),
        (4, 0),
        (5, 0),
        (0, 1),
        (6, -1),
        (7, 0),
        (8, -1),
        (9, 1),
        (10, 1),
        (5, 2**40 + 1),
        (1, -(2**40) - 1),
    ],
)
def test_a_payload_with_an_amount_that_does_not_suit_its_kind_is_malformed(kind: int, amount: int) -> None:
    """Whoever signed it: a fare that gives money would be a top-up nobody allowed (invariants 3 and 10)."""
    delta = Delta(TERMINALS[0].key.replica, 1, CardId(bytes(7)), Kind.FARE, -250, 0)
    good = Writer().uint(Kind.FARE, 1).zigzag(-250).done()
    bad = Writer().uint(kind, 1).zigzag(amount).done()
    payload = encode([delta]).data
    assert payload.count(good) == 1
    with pytest.raises(Malformed):
        decode(payload.replace(good, bad), 1)
