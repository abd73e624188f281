"""What a terminal holds beyond its settlement: the deltas that its view has over the hub's balances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from sqlalchemy import Connection

from crdt.block import Block
from crdt.columns import Columns
from crdt.facts import CardId, CardState, Kind, ReplicaId
from crdt.frontier import Head
from crdt.store.blocks import NO_HEAD, SegmentRow, facts_of, heads_of, stored_blocks
from crdt.store.other_lives import Repeated

# As plain integers, as rows have them: to look a member of an enumeration up costs a tap a microsecond.
FARE: Final = int(Kind.FARE)
OPENING: Final = int(Kind.OPENING)

RECENT_FARES: Final = 2048  # that are remembered for the passback rule: more than a bus sells in a day


class Held:
    """Held deltas, added up per card. Kept in memory, so that a tap reads one row and writes one.

    Two plain sums and no `CardState`: to make one at each tap would cost more than all of the rest here.
    """

    def __init__(self) -> None:
        self.sums: dict[CardId, int] = {}  # of each card: its deltas that are not openings, in minor units
        self.openings: dict[CardId, int] = {}  # of cards of which an opening is held: the largest
        self.count = 0  # deltas
        self.sum_minor = 0  # of all of them, openings included
        self.openings_minor = 0  # of the openings among them
        self.left_out = 0  # deltas of other lives of who writes here, which it has written as well

    def state(self, card: CardId) -> CardState:
        """What is held of a card."""
        return CardState(self.sums.get(card, 0), self.openings.get(card, 0))

    def add(self, card: CardId, kind: int, amount_minor: int) -> None:
        """Hold one more delta."""
        if kind == OPENING:
            self._add_opening(card, amount_minor)
            self.openings_minor += amount_minor
        else:
            self.sums[card] = self.sums.get(card, 0) + amount_minor
        self.count += 1
        self.sum_minor += amount_minor

    def add_columns(self, columns: Columns) -> None:
        """Hold everything a block contains."""
        for card, (sum_minor, opening_minor) in columns.totals().items():
            self.sums[card] = self.sums.get(card, 0) + sum_minor
            if opening_minor:
                self._add_opening(card, opening_minor)
        self.count += len(columns.index)
        self.sum_minor += columns.total_minor()
        self.openings_minor += columns.openings_minor()

    def add_block(self, block: Block, columns: Columns, included: int, repeated: Repeated) -> None:
        """Hold what a block contains after `included`, but for what is repeated."""
        replica, first_seq = block.header.replica, block.header.first_seq
        is_life = replica in repeated.lives
        if first_seq > included and not is_life:
            self.add_columns(columns)
            return
        # The settlement ends within this block, as only another hub's can; or it is another life's.
        beyond = [fact for fact in columns.deltas(replica, first_seq) if fact.seq > included]
        new = repeated.left_of(beyond) if is_life else beyond
        self.left_out += len(beyond) - len(new)
        for fact in new:
            self.add(fact.card, fact.kind, fact.amount_minor)

    def _add_opening(self, card: CardId, amount_minor: int) -> None:
        self.sums.setdefault(card, 0)
        self.openings[card] = max(self.openings.get(card, 0), amount_minor)


def held_beyond(
    connection: Connection,
    settled: Mapping[ReplicaId, Head],
    segment: Iterable[SegmentRow],
    repeated: Repeated,
) -> Held:
    """What this snapshot of the ledger holds that `settled` does not include, but for what is repeated."""
    held = Held()
    for replica, head in heads_of(connection).items():
        included = settled.get(replica, NO_HEAD).seq
        if included < head.seq:
            for block in stored_blocks(connection, replica, included):
                held.add_block(block, facts_of(block), included, repeated)
    for _seq, card, kind, amount_minor, *_ in segment:
        held.add(CardId(card), kind, amount_minor)
    return held


class RecentFares:
    """When each card last paid, in the time of whoever took it; at least of the last RECENT_FARES fares."""

    def __init__(self) -> None:
        self.at_ms: dict[CardId, int] = {}  # in the order of the fares

    def add(self, card: CardId, at_ms: int) -> None:
        """Remember a fare."""
        times = self.at_ms
        times.pop(card, None)
        times[card] = at_ms
        if len(times) == 2 * RECENT_FARES:
            self.at_ms = dict(islice(times.items(), RECENT_FARES, None))
