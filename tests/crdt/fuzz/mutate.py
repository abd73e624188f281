"""Changes to bytes that a decoder may stumble over: bits, lengths, varints, cuts, repetitions and splices."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeVar

from crdt.wire import Writer

T = TypeVar("T")

_WIDTHS: Final = (1, 7, 8, 12, 14, 16, 32, 40, 48, 62, 63, 64)  # bits at which something ends
_BOUNDARIES: Final = sorted({2**bits + step for bits in _WIDTHS for step in (-2, -1, 0, 1)})
_MAX_GROWTH_BYTES: Final = 4096


class Mutator:
    """Makes mutants with one source of chance; `others` are what it splices in."""

    def __init__(self, source: Random, others: Sequence[bytes] = ()) -> None:
        self.source = source
        self._others = others
        common = [self._flip, self._byte, self._varint, self._pad]
        rare = [self._integer, self._cut, self._drop, self._repeat, self._insert, self._splice, self._swap]
        self._changes: list[Callable[[bytes], bytes]] = [*common, *common, *rare, self._fill]

    def chance(self, one_in: int) -> bool:
        """True once in so many times."""
        return not self.source.randrange(one_in)

    def pick(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self.source.randrange(len(choices))]

    def number(self, most: int) -> int:
        """A number from 0 to `most`, often at a border of something."""
        fitting = [each for each in _BOUNDARIES if each <= most]
        return self.pick([*fitting, most]) if self.chance(2) else self.source.randint(0, most)

    def mutated(self, data: bytes) -> bytes:
        """The bytes with one to four changes."""
        for _ in range(self.source.choice((1, 1, 1, 2, 2, 3, 4))):
            data = self.pick(self._changes)(data)
        return data

    def _at(self, data: bytes) -> int:
        return self.source.randint(0, len(data))

    def _span(self, data: bytes) -> tuple[int, int]:
        begin = self._at(data)
        return begin, min(len(data), begin + self.source.choice((1, 2, 4, 8, 16, 32, 64)))

    def _flip(self, data: bytes) -> bytes:
        changed = bytearray(data)
        if changed:
            changed[self.source.randrange(len(data))] ^= 1 << self.source.randrange(8)
        return bytes(changed)

    def _byte(self, data: bytes) -> bytes:
        changed = bytearray(data)
        if changed:
            changed[self.source.randrange(len(data))] = self.source.choice(
                (0, 1, 2, 3, 4, 5, 16, 127, 128, 255)
            )
        return bytes(changed)

    def _varint(self, data: bytes) -> bytes:
        """Take what may be a varint for one, and write another."""
        at = end = self._at(data)
        while end < len(data) and data[end] >= 0x80 and end - at < 9:
            end += 1
        value = self.pick([each for each in _BOUNDARIES if each < 2**64])
        return data[:at] + Writer().varint(value).done() + data[end + 1 :]

    def _pad(self, data: bytes) -> bytes:
        """Take what may be the end of a varint for one, and go on with superfluous bytes."""
        at = self._at(data)
        return data[:at] + bytes([data[at] | 0x80, 0]) + data[at + 1 :] if at < len(data) else data

    def _integer(self, data: bytes) -> bytes:
        width = self.source.choice((1, 2, 4, 8))
        value = self.pick([each for each in _BOUNDARIES if each < 256**width])
        at = self._at(data)
        return data[:at] + value.to_bytes(width, "big") + data[at + width :]

    def _cut(self, data: bytes) -> bytes:
        return data[: self._at(data)]

    def _drop(self, data: bytes) -> bytes:
        begin, end = self._span(data)
        return data[:begin] + data[end:]

    def _repeat(self, data: bytes) -> bytes:
        begin, end = self._span(data)
        times = min(self.source.choice((2, 3, 300)), 1 + _MAX_GROWTH_BYTES // max(1, end - begin))
        return data[:begin] + data[begin:end] * times + data[end:]

    def _insert(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self.source.randbytes(self.source.choice((1, 2, 4, 16, 64))) + data[at:]

    def _splice(self, data: bytes) -> bytes:
        if not self._others:
            return data
        other = self.pick(self._others)
        return data[: self._at(data)] + other[self._at(other) :]

    def _swap(self, data: bytes) -> bytes:
        first, second = sorted((self._at(data), self._at(data)))
        third = self.source.randint(second, len(data))
        return data[:first] + data[second:third] + data[first:second] + data[third:]

    def _fill(self, data: bytes) -> bytes:
        begin, end = self._span(data)
        return data[:begin] + bytes([self.source.choice((0, 0xFF))]) * (end - begin) + data[end:]
