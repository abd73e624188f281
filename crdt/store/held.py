"""What a terminal holds beyond its settlement: the deltas that its view has over the hub's balances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import Connection

from crdt.columns import Columns
from crdt.facts import NEW_CARD, CardId, CardState, Kind, ReplicaId
from crdt.frontier import Head
from crdt.store.blocks import NO_HEAD, SegmentRow, facts_of, heads_of, stored_blocks

RECENT_FARES: Final = 2048  # that are remembered for the passback rule: more than a bus sells in a day


class Held:
    """Held deltas, added up per card. Kept in memory, so that a tap reads one row and writes one."""

    def __init__(self) -> None:
        self.cards: dict[CardId, CardState] = {}
        self.count = 0  # deltas
        self.sum_minor = 0  # of all of them, openings included
        self.openings_minor = 0  # of the openings among them

    def add(self, card: CardId, kind: int, amount_minor: int) -> None:
        """Hold one more delta."""
        sum_minor, opening_minor = self.cards.get(card, NEW_CARD)
        if kind == Kind.OPENING:
            self.cards[card] = CardState(sum_minor, max(opening_minor, amount_minor))
            self.openings_minor += amount_minor
        else:
            self.cards[card] = CardState(sum_minor + amount_minor, opening_minor)
        self.count += 1
        self.sum_minor += amount_minor

    def add_columns(self, columns: Columns) -> None:
        """Hold everything a block contains."""
        for card, state in columns.totals().items():
            self.cards[card] = self.cards.get(card, NEW_CARD).combined(state)
        self.count += len(columns.index)
        self.sum_minor += columns.total_minor()
        self.openings_minor += columns.openings_minor()


def held_beyond(
    connection: Connection, settled: Mapping[ReplicaId, Head], segment: Iterable[SegmentRow]
) -> Held:
    """What this snapshot of the ledger holds that `settled` does not include."""
    held = Held()
    for replica, head in heads_of(connection).items():
        included = settled.get(replica, NO_HEAD).seq
        if included < head.seq:
            _add_chain(held, connection, replica, included)
    for _seq, card, kind, amount_minor, *_ in segment:
        held.add(CardId(card), kind, amount_minor)
    return held


def _add_chain(held: Held, connection: Connection, replica: ReplicaId, included: int) -> None:
    for block in stored_blocks(connection, replica, included):
        columns = facts_of(block)
        if block.header.first_seq > included:
            held.add_columns(columns)
        else:  # the settlement ends within this block: only another hub's settlement can
            for delta in columns.deltas(replica, block.header.first_seq):
                if delta.seq > included:
                    held.add(delta.card, delta.kind, delta.amount_minor)


class RecentFares:
    """When each card last paid, in the time of whoever took it; at least of the last RECENT_FARES fares."""

    def __init__(self) -> None:
        self._newer: dict[CardId, int] = {}
        self._older: dict[CardId, int] = {}

    def __getitem__(self, card: CardId) -> int | None:
        at_ms = self._newer.get(card)
        return self._older.get(card) if at_ms is None else at_ms

    def add(self, card: CardId, at_ms: int) -> None:
        """Remember a fare."""
        self._newer[card] = at_ms
        if len(self._newer) > RECENT_FARES:
            self._older, self._newer = self._newer, {}
