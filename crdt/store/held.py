"""What a terminal holds beyond its settlement: the deltas that its view has over the hub's balances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import Connection

from crdt.columns import Columns
from crdt.facts import NEW_CARD, CardId, CardState, Delta, Kind, ReplicaId
from crdt.frontier import Head
from crdt.store.blocks import NO_HEAD, facts_of, heads_of, stored_blocks

RECENT_FARES: Final = 4096  # cards whose last fare is remembered for the passback rule


class Held:
    """Held deltas, added up per card. Kept in memory, so that a tap reads one row and writes one."""

    def __init__(self) -> None:
        self.cards: dict[CardId, CardState] = {}
        self.count = 0  # deltas
        self.sum_minor = 0  # of all of them, openings included
        self.openings_minor = 0  # of the openings among them

    def add(self, delta: Delta) -> None:
        """Hold one more delta."""
        card, amount = delta.card, delta.amount_minor
        self.cards[card] = self.cards.get(card, NEW_CARD).plus(delta.kind, amount)
        self.count += 1
        self.sum_minor += amount
        if delta.kind is Kind.OPENING:
            self.openings_minor += amount

    def add_columns(self, columns: Columns) -> None:
        """Hold everything a block contains."""
        for card, state in columns.totals().items():
            self.cards[card] = self.cards.get(card, NEW_CARD).combined(state)
        self.count += len(columns.index)
        self.sum_minor += columns.total_minor()
        self.openings_minor += columns.openings_minor()


def held_beyond(
    connection: Connection, settled: Mapping[ReplicaId, Head], open_segment: Iterable[Delta]
) -> Held:
    """What this snapshot of the ledger holds that `settled` does not include."""
    held = Held()
    for replica, head in heads_of(connection).items():
        included = settled.get(replica, NO_HEAD).seq
        if included < head.seq:
            _add_chain(held, connection, replica, included)
    for delta in open_segment:
        held.add(delta)
    return held


def _add_chain(held: Held, connection: Connection, replica: ReplicaId, included: int) -> None:
    for block in stored_blocks(connection, replica, included):
        columns = facts_of(block)
        if block.header.first_seq > included:
            held.add_columns(columns)
        else:  # the settlement ends within this block: only another hub's settlement can
            for delta in columns.deltas(replica, block.header.first_seq):
                if delta.seq > included:
                    held.add(delta)


class RecentFares:
    """When each card last paid here, in terminal time; the RECENT_FARES cards that paid last."""

    def __init__(self) -> None:
        self._at_ms: dict[CardId, int] = {}

    def __getitem__(self, card: CardId) -> int | None:
        return self._at_ms.get(card)

    def add(self, delta: Delta) -> None:
        """Remember a delta if it is a fare."""
        if delta.kind is not Kind.FARE:
            return
        self._at_ms.pop(delta.card, None)
        self._at_ms[delta.card] = delta.at_ms
        if len(self._at_ms) > RECENT_FARES:
            del self._at_ms[next(iter(self._at_ms))]
