"""A block's payload: its deltas in columns, with exactly one encoding for each list of deltas.

Card ids are a section of their own, because they do not compress and because numbering.py replaces them on
the wire. The rest begins with the times, which are noise to a compressor too; then which cards repeat, kinds
and amounts, and contexts. Reading is strict: whatever `encode` would not have written is Malformed, so that
equal facts have equal bytes. Sums are made straight from the columns, deltas only on demand.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import not_
from typing import Final

from crdt.card_column import Cards, read_card_ids, read_repeats, write_card_ids, write_repeats
from crdt.errors import Malformed, MisuseError
from crdt.facts import (
    MAX_AMOUNT_MINOR,
    MAX_CLOCK_EPOCH,
    MAX_CLOCK_ERROR_MS,
    NEW_CARD,
    CardId,
    CardState,
    Context,
    Delta,
    Kind,
    ReplicaId,
    amount_fits,
)
from crdt.planes import Runs, read_dictionary, read_runs, write_dictionary, write_runs
from crdt.time_column import Times, read_times, write_times
from crdt.wire import Reader, Writer

MAX_BLOCK_DELTAS: Final = 4096

Money = tuple[Kind, int]  # a kind and an amount in minor units


@dataclass(frozen=True, slots=True)
class Columns:
    """The decoded payload of one block."""

    cards: Cards
    times: Times
    money: Sequence[Money]  # the distinct kinds and amounts: what an author's limits are checked on
    index: Sequence[int]  # one per delta, into `money`
    texts: Sequence[Runs[str]]  # route, trip, stop
    clocks: Sequence[Runs[int]]  # clock_epoch, clock_error_ms

    def totals(self) -> dict[CardId, CardState]:
        """What the block adds to each card it mentions, in order of appearance."""
        states = [NEW_CARD.plus(kind, amount) for kind, amount in self.money]
        each = list(map(states.__getitem__, self.index))  # shared values: making one per delta costs more
        ids, repeats = self.cards.ids, self.cards.repeats
        if not repeats:
            return dict(zip(ids, each, strict=True))
        totals = dict(zip(ids, compress(each, _first_appearances(repeats)), strict=True))
        for at in compress(range(len(each)), repeats):
            card = ids[repeats[at] - 1]
            totals[card] = totals[card].combined(each[at])
        return totals

    def total_minor(self) -> int:
        """The sum of all deltas, openings included."""
        amounts = [amount for _, amount in self.money]
        return sum(map(amounts.__getitem__, self.index))

    def credit_minor(self) -> int:
        """The sum of all amounts above zero, openings included: what an author's allowance is used up by."""
        amounts = [max(0, amount) for _, amount in self.money]
        return sum(map(amounts.__getitem__, self.index)) if any(amounts) else 0

    def openings_minor(self) -> int:
        """The sum of all openings, also of those that lose to a larger one."""
        amounts = [amount if kind is Kind.OPENING else 0 for kind, amount in self.money]
        return sum(map(amounts.__getitem__, self.index)) if any(amounts) else 0

    def deltas(self, replica: ReplicaId, first_seq: int) -> tuple[Delta, ...]:
        """The facts themselves, of `replica`, the first numbered `first_seq`."""
        money = (self.money[entry] for entry in self.index)
        rows = zip(self.cards.values(), money, self.times.values(), self._contexts(), strict=True)
        return tuple(
            Delta(replica, seq, card, kind, amount, at_ms, context)
            for seq, (card, (kind, amount), at_ms, context) in enumerate(rows, first_seq)
        )

    def _contexts(self) -> list[Context]:
        texts = [column.values() for column in self.texts]
        keys = list(zip(*texts, *(column.values() for column in self.clocks), strict=True))
        made = {key: Context(*key) for key in dict.fromkeys(keys)}
        return [made[key] for key in keys]


@dataclass(frozen=True, slots=True)
class Payload:
    """An encoded payload: the section of card ids, and the rest, of which `noise_bytes` do not compress."""

    ids: bytes
    rest: bytes
    noise_bytes: int

    @property
    def data(self) -> bytes:
        """All of it."""
        return self.ids + self.rest


def encode(deltas: Sequence[Delta]) -> Payload:
    """The payload of 1 to MAX_BLOCK_DELTAS deltas. Replica and numbers are the block header's matter."""
    if not 1 <= len(deltas) <= MAX_BLOCK_DELTAS:
        raise MisuseError(f"a block holds 1 to {MAX_BLOCK_DELTAS} deltas")
    cards = [delta.card for delta in deltas]
    ids = list(dict.fromkeys(cards))
    writer = Writer()
    noise_bytes = write_times(writer, [delta.at_ms for delta in deltas])
    write_repeats(writer, cards, ids)
    write_dictionary(writer, [(delta.kind, delta.amount_minor) for delta in deltas], _write_money)
    contexts = [delta.context for delta in deltas]
    for name in ("route", "trip", "stop"):
        write_runs(writer, [getattr(context, name) for context in contexts], Writer.text)
    for name in ("clock_epoch", "clock_error_ms"):
        write_runs(writer, [getattr(context, name) for context in contexts], Writer.varint)
    return Payload(ids_section(ids), writer.done(), noise_bytes)


def decode(data: bytes, count: int) -> Columns:
    """The columns of a payload of `count` deltas. Malformed unless `encode` would write exactly `data`."""
    reader = Reader(data)
    ids = read_ids(reader, count)
    return decode_rest(ids, reader.rest(), count)


def ids_section(ids: Sequence[CardId]) -> bytes:
    """The section of a payload's distinct cards, in order of first appearance: how many, and the ids."""
    writer = Writer().varint(len(ids))
    write_card_ids(writer, ids)
    return writer.done()


def read_ids(reader: Reader, count: int) -> Sequence[CardId]:
    """The cards of the section written by ids_section, for `count` deltas."""
    return read_card_ids(reader, reader.varint(1, count))


def decode_rest(ids: Sequence[CardId], rest: bytes, count: int) -> Columns:
    """The columns of a payload whose cards are `ids`. Malformed unless `encode` would write just that."""
    reader = Reader(rest)
    times = read_times(reader, count)
    cards = Cards(ids, read_repeats(reader, count, len(ids)))
    money, index = read_dictionary(reader, count, _read_money)
    texts = [read_runs(reader, count, Reader.text) for _ in range(3)]
    clocks = [read_runs(reader, count, read_clock) for read_clock in (_read_epoch, _read_error)]
    reader.end()
    return Columns(cards, times, money, index, texts, clocks)


_IS_ZERO: Final = bytes([1]) + bytes(255)


def _first_appearances(repeats: Sequence[int]) -> Iterable[int]:
    return repeats.translate(_IS_ZERO) if isinstance(repeats, bytes) else map(not_, repeats)


def _write_money(writer: Writer, money: Money) -> None:
    kind, amount_minor = money
    writer.uint(kind, 1).zigzag(amount_minor)


def _read_money(reader: Reader) -> Money:
    kind = Kind(reader.uint(1, min(Kind), max(Kind)))
    amount_minor = reader.zigzag(-MAX_AMOUNT_MINOR, MAX_AMOUNT_MINOR)
    if not amount_fits(kind, amount_minor):
        raise Malformed("an amount does not suit its kind")
    return kind, amount_minor


def _read_epoch(reader: Reader) -> int:
    return reader.varint(0, MAX_CLOCK_EPOCH)


def _read_error(reader: Reader) -> int:
    return reader.varint(0, MAX_CLOCK_ERROR_MS)
