"""A saved document is measured before automerge touches it (invariant 8): within bounded memory and time."""

import tracemalloc
from collections.abc import Callable

import pytest
from automerge.core import ROOT, Document, ScalarType
from hypothesis import given
from hypothesis import strategies as st

from crdt.automerge_guard import MAX_INFLATED_BYTES, Bounds, Size, measure, open_saved
from crdt.errors import InputRefused, Malformed, TooLarge
from crdt.wire import Writer
from tests.crdt.saved_bytes import Column, Parts, chunk, deflated, parts, run, signed, swelling, with_column

WRITER, OTHER = b"writer".ljust(16), b"other".ljust(16)
BOUNDS = Bounds(64 * 1024, frozenset({WRITER, OTHER}), changes=50, operations=500)


def saved(changes: int = 3, size: int = 5, writer: bytes = WRITER) -> bytes:
    document = Document(writer)
    for count in range(changes):
        with document.transaction() as transaction:
            transaction.put(ROOT, f"key {count % 4}", ScalarType.Str, f"{count}".ljust(size))
            transaction.put(ROOT, "b", ScalarType.Int, count)
    return document.save()


SAVED = saved()


@given(st.integers(1, 50), st.integers(0, 400))
def test_what_automerge_saves_is_measured_as_it_is(changes: int, size: int) -> None:
    """Plain columns, deflated ones, runs and single values."""
    body = saved(changes, size)
    assert measure(body, BOUNDS) == Size(changes, 2 * changes)
    document, found = open_saved(body, BOUNDS)
    assert (len(document.get_changes([])), found) == (changes, Size(changes, 2 * changes))


def test_the_parts_of_a_document_make_it_again() -> None:
    """The tests' own writing of the format is automerge's."""
    assert parts(SAVED).saved() == SAVED
    swollen = swelling(SAVED, 500)
    assert len(swollen) < 250
    assert measure(swollen, BOUNDS).operations == 500


@pytest.mark.parametrize("bytes_", range(len(SAVED)))
def test_a_document_cut_short_is_malformed(bytes_: int) -> None:
    with pytest.raises(Malformed):
        measure(SAVED[:bytes_], BOUNDS)


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_refused(data: bytes, as_a_chunk: bool) -> None:
    with pytest.raises(InputRefused):
        open_saved(chunk(data) if as_a_chunk else data, BOUNDS)


def columns(change: Callable[[Parts], Parts]) -> bytes:
    return change(parts(SAVED)).saved()


def operations(specification: int, data: bytes) -> bytes:
    return columns(
        lambda whole: whole._replace(operations=with_column(whole.operations, specification, data))
    )


def changes(specification: int, data: bytes) -> bytes:
    return columns(lambda whole: whole._replace(changes=with_column(whole.changes, specification, data)))


LONG_KEY = Writer().varint(300_000).raw(b"k" * 300_000).done()
MANY = 10**9


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(swelling(SAVED, 501), TooLarge, id="an operation too many"),
        pytest.param(swelling(SAVED, MANY), TooLarge, id="a billion operations"),
        pytest.param(swelling(SAVED, 2**60), TooLarge, id="more operations than memory has bytes"),
        pytest.param(changes(0x01, run(51, b"\0")), TooLarge, id="a change too many"),
        pytest.param(changes(0x03, run(MANY, b"\1")), TooLarge, id="a billion changes"),
        pytest.param(
            changes(0x40, run(3, b"\x80\x80\x80\x80\x01")), TooLarge, id="changes after a billion others"
        ),
        pytest.param(operations(0x80, run(2, b"\xff\xff\xff\xff\x0f")), TooLarge, id="a billion successors"),
        pytest.param(operations(0x21, b"\x00" + b"\xff\xff\xff\xff\x0f"), TooLarge, id="a billion nulls"),
        pytest.param(operations(0x34, b"\xff\xff\xff\xff\x0f"), TooLarge, id="a billion booleans"),
        pytest.param(operations(0x21, signed(-MANY) + bytes(8)), TooLarge, id="a billion single values"),
        pytest.param(operations(0x21, signed(-400) + bytes(8)), Malformed, id="fewer values than it says"),
        pytest.param(operations(0x23, b"\xff" * 12), Malformed, id="a number without an end"),
        pytest.param(saved(51), TooLarge, id="a long history"),
        pytest.param(saved(writer=b"somebody else..."), Malformed, id="another writer"),
        pytest.param(SAVED + SAVED, Malformed, id="two documents"),
        pytest.param(SAVED + b"\0", Malformed, id="bytes after it"),
        pytest.param(chunk(SAVED[11:], 1), Malformed, id="a change and no document"),
        pytest.param(b"\x86" + SAVED[1:], Malformed, id="something else"),
        pytest.param(bytes(64 * 1024 + 1), TooLarge, id="too many bytes"),
    ],
)
def test_a_document_beyond_its_bounds_is_refused_before_it_is_loaded(
    body: bytes, error: type[InputRefused]
) -> None:
    """A hundred bytes can claim a billion operations, for each of which automerge takes 180 bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(error):
            measure(body, BOUNDS)
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(Column(0x15, run(500, LONG_KEY)), id="one long key for all"),
        pytest.param(Column(0x57, bytes(MAX_INFLATED_BYTES + 1)), id="long values"),
        pytest.param(Column(0x57, bytes(16 * MAX_INFLATED_BYTES)), id="very long values"),
    ],
)
def test_what_unpacks_to_more_than_fits_is_refused(column: Column) -> None:
    whole = parts(SAVED)
    kept = [each for each in whole.operations if each.specification != column.specification]
    packed = sorted([*kept, deflated(column)], key=lambda each: each.specification)
    body = whole._replace(operations=packed).saved()
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            measure(body, Bounds(2 * MAX_INFLATED_BYTES, BOUNDS.writers, 50, 500))
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_INFLATED_BYTES
    finally:
        tracemalloc.stop()


def test_a_column_that_does_not_decompress_is_malformed() -> None:
    whole = parts(SAVED)
    broken = [Column(whole.operations[0].specification | 8, b"\xff\xff"), *whole.operations[1:]]
    with pytest.raises(Malformed):
        measure(whole._replace(operations=broken).saved(), BOUNDS)


def test_operations_that_are_numbered_beyond_their_count_are_refused() -> None:
    """Else the next edit could not be numbered."""
    document = Document(WRITER)
    with document.transaction() as transaction:
        transaction.put(ROOT, "a", ScalarType.Int, 1)
        transaction.put(ROOT, "b", ScalarType.Int, 1)
        transaction.delete(ROOT, "b")
    with pytest.raises(Malformed):
        open_saved(document.save(), Bounds(1000, BOUNDS.writers, 5, 5))
