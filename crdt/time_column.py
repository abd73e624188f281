"""The time column of a payload: a first time, the smallest step between neighbours, and each step beyond it.

All in the largest of four units that divides every time: a terminal that rounds its times to a second saves
more than a byte a tap. Times may run backwards; the clock of a bus does.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from math import gcd
from typing import Final, NamedTuple

from crdt.errors import Malformed
from crdt.facts import MAX_AT_MS
from crdt.planes import read_numbers, write_numbers
from crdt.wire import Reader, Writer

UNITS_MS: Final = (1, 10, 100, 1000)
MAX_OFFSET_WIDTH: Final = 7  # bytes: times differ by less than 2**48 ms, differences by less than 2**49


class Times(NamedTuple):
    """The times of a block's deltas, in units of `unit_ms`."""

    unit_ms: int
    first: int
    step: int  # the smallest difference between neighbours; 0 for a single delta
    offsets: Sequence[int]  # each difference, less the smallest

    def values(self) -> Iterator[int]:
        """One time per delta, in milliseconds."""
        steps = (offset + self.step for offset in self.offsets)
        return (time * self.unit_ms for time in accumulate(chain((self.first,), steps)))


def write_times(writer: Writer, at_ms: Sequence[int]) -> int:
    """Append the column. Returns how many bytes `writer` holds before the last, most regular plane."""
    code = max(code for code, unit in enumerate(UNITS_MS) if not any(time % unit for time in at_ms))
    times = [time // UNITS_MS[code] for time in at_ms]
    steps = [after - before for before, after in zip(times, times[1:], strict=False)]
    step = min(steps, default=0)
    offsets = [each - step for each in steps]
    writer.uint(code, 1).varint(times[0]).zigzag(step)
    width = write_numbers(writer, offsets)
    return len(writer) - (len(offsets) if width else 0)


def read_times(reader: Reader, count: int) -> Times:
    """The column of `count` times. Malformed when one is out of range or the writing is not the shortest."""
    unit_ms = UNITS_MS[reader.uint(1, 0, len(UNITS_MS) - 1)]
    first = reader.varint(0, MAX_AT_MS // unit_ms)
    step = reader.zigzag(-MAX_AT_MS, MAX_AT_MS)
    offsets, width = read_numbers(reader, count - 1, MAX_OFFSET_WIDTH)
    times = Times(unit_ms, first, step, offsets)
    _check_shortest(times)
    _check_range(times, width)
    return times


def _check_shortest(times: Times) -> None:
    offsets = times.offsets
    if 0 not in offsets if offsets else times.step:
        raise Malformed("the smallest step between the times is not the smallest")
    if times.unit_ms < UNITS_MS[-1] and not gcd(times.first, times.step) % 10 and not gcd(*offsets) % 10:
        raise Malformed("the times are not written in the largest unit")


def _check_range(times: Times, width: int) -> None:
    highest = times.first + len(times.offsets) * (max(times.step, 0) + (1 << 8 * width))
    if times.step >= 0 and highest * times.unit_ms <= MAX_AT_MS:
        return  # whatever the offsets are: the usual case, without adding them up
    every = list(times.values())
    if min(every) < 0 or max(every) > MAX_AT_MS:
        raise Malformed("a time is out of range")
