"""Numbers and texts on the wire: one way to write each, and nothing unbounded (invariant 8)."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.errors import Malformed
from crdt.wire import MAX_VARINT, Reader, Writer, unzigzag, zigzag


@given(st.integers(0, MAX_VARINT))
def test_a_varint_reads_as_written_and_is_minimal(value: int) -> None:
    data = Writer().varint(value).done()
    reader = Reader(data)
    assert reader.varint() == value
    reader.end()
    assert len(data) == max(1, -(-value.bit_length() // 7))
    for longer in (data[:-1] + bytes([data[-1] | 0x80, 0]), b"\x80" * 10 + b"\x01"):
        with pytest.raises(Malformed):
            Reader(longer).varint()


@given(st.integers(-(2**63), 2**63 - 1))
def test_zigzag_reads_as_written(value: int) -> None:
    assert unzigzag(zigzag(value)) == value
    assert Reader(Writer().zigzag(value).done()).zigzag() == value


@given(st.binary(max_size=12))
def test_any_bytes_read_as_a_varint_are_refused_or_are_its_only_writing(data: bytes) -> None:
    reader = Reader(data)
    try:
        value = reader.varint()
    except Malformed:
        return
    assert Writer().varint(value).done() == data[: reader.at]


@pytest.mark.parametrize("value", [-1, MAX_VARINT + 1])
def test_a_number_that_does_not_fit_is_not_written(value: int) -> None:
    with pytest.raises(OverflowError):
        Writer().varint(value)


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (b"", lambda reader: reader.uint(1)),
        (b"\x05", lambda reader: reader.uint(1, 0, 4)),
        (b"\x02a", lambda reader: reader.short()),
        (b"\x02\xc3\x28", lambda reader: reader.text()),
        (b"\x01\n", lambda reader: reader.text()),
        (b"\x41" + b"a" * 65, lambda reader: reader.text()),
        (b"\x00", lambda reader: reader.end()),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", lambda reader: reader.varint()),
        (b"\xff", lambda reader: reader.varint()),
        (b"ab", lambda reader: reader.raw(2**62)),
    ],
)
def test_bad_values_are_malformed(data: bytes, read: Callable[[Reader], object]) -> None:
    with pytest.raises(Malformed):
        read(Reader(data))


def test_what_is_left_can_be_read_at_once() -> None:
    reader = Reader(b"abc")
    assert reader.raw(1) + reader.rest() == b"abc"
    reader.end()
