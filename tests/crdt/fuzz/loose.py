"""Payloads as a careless implementation may write them: the same facts, or nearly, in another writing."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from crdt.card_column import write_repeats
from crdt.facts import MAX_AT_MS, Delta
from crdt.planes import index_width, write_plane
from crdt.time_column import UNITS_MS
from crdt.wire import Writer
from tests.crdt.fuzz.mutate import Mutator

H = TypeVar("H", bound=Hashable)


def loose_rest(mutator: Mutator, deltas: Sequence[Delta]) -> bytes:
    """A payload without its ids section. Each rule of the writing is broken now and then, or kept."""
    writer = Writer()
    _times(mutator, writer, [delta.at_ms for delta in deltas])
    cards = [delta.card for delta in deltas]
    write_repeats(writer, cards, list(dict.fromkeys(cards)))
    _dictionary(mutator, writer, [(delta.kind, delta.amount_minor) for delta in deltas], _money)
    for name in ("route", "trip", "stop"):
        _runs(mutator, writer, [getattr(delta.context, name) for delta in deltas], Writer.text)
    for name in ("clock_epoch", "clock_error_ms"):
        _runs(mutator, writer, [getattr(delta.context, name) for delta in deltas], Writer.varint)
    return writer.done()


def _money(writer: Writer, money: tuple[int, int]) -> None:
    writer.uint(money[0], 1).zigzag(money[1])


def _times(mutator: Mutator, writer: Writer, at_ms: Sequence[int]) -> None:
    fitting = [code for code, unit in enumerate(UNITS_MS) if not any(time % unit for time in at_ms)]
    code = mutator.pick(fitting) if mutator.chance(6) else fitting[-1]
    times = [time // UNITS_MS[code] for time in at_ms]
    steps = [after - before for before, after in zip(times, times[1:], strict=False)]
    step = min(steps, default=0) - (1 if mutator.chance(8) else 0)
    borders = (0, mutator.number(9), MAX_AT_MS // UNITS_MS[code] - mutator.number(300), MAX_AT_MS)
    first = mutator.pick(borders) if mutator.chance(6) else times[0]
    writer.uint(code, 1).varint(first).zigzag(step)
    _numbers(mutator, writer, [each - step for each in steps])


def _numbers(mutator: Mutator, writer: Writer, values: Sequence[int]) -> None:
    width = (max(values, default=0).bit_length() + 7) // 8 + (1 if mutator.chance(12) else 0)
    writer.uint(width, 1)
    write_plane(writer, values, width)


def _dictionary(
    mutator: Mutator, writer: Writer, values: Sequence[H], write_entry: Callable[[Writer, H], object]
) -> None:
    entries = list(dict.fromkeys(values))
    if mutator.chance(8):
        mutator.source.shuffle(entries)
    if mutator.chance(12):
        entries.append(mutator.pick(entries))
    writer.varint(len(entries))
    for entry in entries:
        write_entry(writer, entry)
    write_plane(writer, [entries.index(value) for value in values], index_width(len(entries)))


def _runs(
    mutator: Mutator, writer: Writer, values: Sequence[H], write_entry: Callable[[Writer, H], object]
) -> None:
    split = {at for at in range(1, len(values)) if mutator.chance(20 * len(values))}
    starts = [at for at in range(len(values)) if not at or values[at] != values[at - 1] or at in split]
    writer.varint(len(starts))
    if len(starts) > 1:
        ends = [*starts[1:], len(values)]
        write_plane(writer, [end - start - 1 for start, end in zip(starts, ends, strict=True)], 2)
    _dictionary(mutator, writer, [values[start] for start in starts], write_entry)
