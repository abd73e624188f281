"""Bytes in and out, bounded and with one way to write each value.

A varint is unsigned LEB128 of at most 64 bits without superfluous bytes; zigzag maps a signed 64-bit
integer onto it (0, -1, 1, -2 ... become 0, 1, 2, 3 ...). Fixed integers are big-endian. A text is one
length byte and UTF-8.
"""

from typing import Final

from crdt.errors import Malformed
from crdt.facts import text_fits

MAX_VARINT: Final = 2**64 - 1


class Writer:
    """Collects bytes. Values that do not fit are a bug of the caller (OverflowError, ValueError)."""

    __slots__ = ("_out",)

    def __init__(self) -> None:
        self._out = bytearray()

    def raw(self, data: bytes) -> "Writer":
        """Append the bytes as they are."""
        self._out += data
        return self

    def uint(self, value: int, width: int) -> "Writer":
        """Append an unsigned integer of `width` bytes."""
        self._out += value.to_bytes(width, "big")
        return self

    def varint(self, value: int) -> "Writer":
        """Append an unsigned integer of at most 64 bits, in 1 to 10 bytes."""
        if not 0 <= value <= MAX_VARINT:
            raise OverflowError("a varint holds 0 to 2**64 - 1")
        while value > 0x7F:
            self._out.append(value & 0x7F | 0x80)
            value >>= 7
        self._out.append(value)
        return self

    def zigzag(self, value: int) -> "Writer":
        """Append a signed integer of at most 64 bits, in 1 to 10 bytes."""
        return self.varint(zigzag(value))

    def short(self, data: bytes) -> "Writer":
        """Append a length byte and at most 255 bytes."""
        return self.uint(len(data), 1).raw(data)

    def text(self, text: str) -> "Writer":
        """Append a length byte and the text in UTF-8."""
        return self.short(text.encode())

    def __len__(self) -> int:
        """How many bytes have been written."""
        return len(self._out)

    def done(self) -> bytes:
        """Everything written so far."""
        return bytes(self._out)


class Reader:
    """Takes values off the front of `data`. Methods raise Malformed when the bytes are not what they read."""

    __slots__ = ("_data", "_end", "at")

    at: int  # how many bytes have been read

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._end = len(data)
        self.at = 0

    def raw(self, count: int) -> bytes:
        """The next `count` bytes."""
        start = self.at
        if count > self._end - start:
            raise Malformed("the data ends too early")
        self.at = start + count
        return self._data[start : self.at]

    def uint(self, width: int, low: int = 0, high: int = MAX_VARINT) -> int:
        """An unsigned integer of `width` bytes, between `low` and `high`."""
        return _within(int.from_bytes(self.raw(width), "big"), low, high)

    def varint(self, low: int = 0, high: int = MAX_VARINT) -> int:
        """A varint between `low` and `high`."""
        data, at = self._data, self.at
        value = shift = 0
        while at < self._end:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if not byte and shift:
                    raise Malformed("a number is written with more bytes than it needs")
                self.at = at
                return _within(value, low, high)
            shift += 7
            if shift > 63:
                break
        raise Malformed("a number is too long or the data ends within it")

    def zigzag(self, low: int = -(2**63), high: int = 2**63 - 1) -> int:
        """A zigzag varint between `low` and `high`."""
        return _within(unzigzag(self.varint()), low, high)

    def short(self, low: int = 0, high: int = 255) -> bytes:
        """A length byte between `low` and `high`, and that many bytes."""
        return self.raw(self.uint(1, low, high))

    def text(self) -> str:
        """A text of at most 64 bytes, valid UTF-8 without control characters."""
        data = self.short()
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise Malformed("a text is not valid UTF-8") from None
        if not text_fits(text):
            raise Malformed("a text is too long or has control characters")
        return text

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.raw(self._end - self.at)

    @property
    def ended(self) -> bool:
        """Whether everything has been read."""
        return self.at == self._end

    def end(self) -> None:
        """Raise Malformed when anything is left."""
        if self.at != self._end:
            raise Malformed("there are bytes after the end")


def zigzag(value: int) -> int:
    """0, -1, 1, -2 ... as 0, 1, 2, 3 ..."""
    return value * 2 if value >= 0 else -value * 2 - 1


def unzigzag(value: int) -> int:
    """0, 1, 2, 3 ... as 0, -1, 1, -2 ..."""
    return value >> 1 ^ -(value & 1)


def _within(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise Malformed("a number is out of range")
    return value
