"""What a hub's disk says, compared with the truth at every position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from crdt.facts import CardId, ReplicaId
from crdt.store.balances import NO_FLOOR
from tests.simulation.adoptions import Adoptions
from tests.simulation.disks import Disk
from tests.simulation.oracle import Oracle, Snapshot, expect

_BEYOND: Final = "SELECT raw FROM block WHERE replica = ? AND last_seq > ? ORDER BY first_seq"


class Audit:
    """Of one hub. `floor_minor`: the rule for balances that holds; `listing`: a change of the hotlist that is
    under way, so the next position may bring it."""

    def __init__(self, disk: Disk, oracle: Oracle) -> None:
        self.adoptions = Adoptions(oracle)
        self.floor_minor = NO_FLOOR
        self.listing: tuple[CardId, bool] | None = None
        self._disk = disk
        self._oracle = oracle

    def look(self, own: ReplicaId) -> None:
        """Compare what is on the disk now with the truth, and remember what this position means.

        `own`: who the hub writes as. What it has written and nobody told it has to be adopted, or taken back.
        """
        series, position = self._disk.rows("SELECT series, position FROM hub")[0]
        known = self._oracle.history.get((series, position))
        if position == 0 or known is not None:
            snapshot = self._oracle.record(series, position, known or Snapshot())
        else:
            reach = dict(self._disk.rows("SELECT replica, seq FROM head"))
            for hub in {own: None, **self.adoptions.forked}:
                self._learn(hub, reach.get(hub, 0))
            self._list()
            snapshot = self._judged(series, position, reach)
        self._check(snapshot)

    def _learn(self, hub: ReplicaId, last_seq: int) -> None:
        told = len(self._oracle.facts[hub]) + len(self._oracle.pending.get(hub, ()))
        if last_seq > told:
            self.adoptions.learn(hub, (raw for (raw,) in self._disk.rows(_BEYOND, hub, told)))

    def _judged(self, series: bytes, position: int, reach: Mapping[ReplicaId, int]) -> Snapshot:
        """What the new position means; cards that it changes are judged by the rule that holds now."""
        before = self._oracle.hub.cards
        rows = self._disk.rows("SELECT card FROM card WHERE flags & 4")
        snapshot = self._oracle.settled(series, position, reach, frozenset(card for (card,) in rows))
        for card, state in snapshot.cards.items():
            owes = sum(state) < self.floor_minor
            expect(
                before.get(card) == state or owes == (card in snapshot.overdrawn),
                f"{card.hex()} with {sum(state)} is overdrawn wrongly",
            )
        return snapshot

    def _list(self) -> None:
        if self.listing is not None:
            card, listed = self.listing
            before = self._oracle.hub
            change = before.listed | {card} if listed else before.listed - {card}
            expect(change != before.listed, "the hotlist changed to what it was")
            self._oracle.hub = replace(before, listed=change)
            self.listing = None

    def _check(self, snapshot: Snapshot) -> None:
        rows = self._disk.rows("SELECT card, sum_minor, opening_minor, flags & 1 FROM card")
        cards = {row[0]: (row[1], row[2]) for row in rows if row[0] in snapshot.cards or row[1] or row[2]}
        expect(cards == snapshot.cards, f"the hub's balances are {cards}, not {snapshot.cards}")
        listed = {row[0] for row in rows if row[3]}
        expect(listed == snapshot.listed, "the hub's hotlist is another")
