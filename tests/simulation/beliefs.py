"""What a terminal believes of cards, compared with what it has to: settled, held, and heard of its peers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from crdt.facts import CardId, ReplicaId
from tests.simulation.oracle import NOTHING, Oracle, Snapshot, Spans, expect

if TYPE_CHECKING:
    from tests.simulation.buses import Bus

_STANDS: Final = "SELECT series, position FROM terminal"


class Beliefs:
    """Of one terminal."""

    def __init__(self, bus: Bus, oracle: Oracle) -> None:
        self._bus = bus
        self._oracle = oracle
        self._open: dict[ReplicaId, tuple[int, int]] = {}  # what peers have not sealed, from where to where
        self._revoked: set[ReplicaId] = set()  # as far as the last look knew

    def start(self) -> None:
        """The program started: what peers have not sealed is forgotten."""
        self._open = {}

    def installed(self) -> Snapshot:
        """The settlement that shows."""
        series, position = self._bus.disk.rows(_STANDS)[0]
        if position == 0:
            return Snapshot()
        snapshot = self._oracle.history.get((series, position))
        expect(snapshot is not None, f"{self._bus.name} has position {position}, which no hub ever had")
        assert snapshot is not None
        return snapshot

    def believe(self, peer: Bus) -> None:
        """Count what a peer has written and not sealed, until either of the two starts again."""
        segment = peer.ledger.open_segment()
        if self._bus.ledger.believe(peer.replica, segment):
            self._open[peer.replica] = segment.after.seq + 1, segment.after.seq + segment.count

    def forget(self, peer: ReplicaId) -> None:
        """The peer is not what it was."""
        self._bus.ledger.forget(peer)
        self._open.pop(peer, None)

    def check(self, cards: Iterable[CardId]) -> None:
        """The view of these cards, and the sums of what is held, are exactly what they have to be."""
        self._hear_of_revoked()
        bus = self._bus
        bus.check_nothing_is_missing()
        settled = self.installed()
        spans = self._once(settled, bus.spans())
        seen = dict(spans)
        for replica, part in self._open.items():
            seen[replica] = [*seen.get(replica, ()), part]
        states = self._oracle.believed(settled, seen)
        for card in cards:
            view, state = bus.ledger.view(card), states.get(card, NOTHING)
            expect(
                view.balance_minor == sum(state),
                f"{bus.name} believes {view.balance_minor} of {card.hex()}, not {sum(state)}",
            )
            refused = card in settled.listed or card in settled.overdrawn
            expect(view.hotlisted == refused, f"{bus.name} has {card.hex()} listed wrongly")
        held = self._oracle.held(settled, spans)
        told = bus.ledger.held()
        expect(told == (len(held), sum(fact.amount_minor for fact in held)), f"{bus.name} holds {told}")

    def _once(self, settled: Snapshot, spans: Spans) -> Spans:
        """Without what another life of the terminal says as well, where it was replaced: that counts once."""
        bus = self._bus
        own = {bus.replica} if bus.branch is None else {bus.replica, bus.branch.name}
        if not bus.ledger.was_replaced:
            return spans
        mine = {*self._oracle.held(settled, {one: spans[one] for one in own & spans.keys()})}
        left = {one: [*parts] for one, parts in spans.items()}
        for life in ({*bus.replicas} - own) & spans.keys():
            facts = self._oracle.facts[life]
            numbers = (seq for first, last in left[life] for seq in range(first, last + 1))
            left[life] = [(seq, seq) for seq in numbers if facts[seq - 1] not in mine]
        return left

    def committing(self) -> None:
        """What a settlement includes is not believed any more, also where an older one replaces it again."""
        settled = self._oracle.history.get(self._bus.disk.rows(_STANDS)[0]) if self._open else None
        if settled is not None:  # else a hub that has just started has not told that position yet
            reach = settled.reach
            self._open = {
                replica: (max(first, reach.get(replica, 0) + 1), last)
                for replica, (first, last) in self._open.items()
                if last > reach.get(replica, 0)
            }

    def _hear_of_revoked(self) -> None:
        """Nothing counts here of a revoked author beyond its cut-off, once this terminal has the list.

        But for what it is to write again itself: that counts until then.
        """
        cut_offs = self._bus.ledger.revocations().cut_offs
        for replica in cut_offs.keys() - self._revoked:
            self._open.pop(replica, None)
        self._revoked = set(cut_offs)
        for replica, cut_off in cut_offs.items():
            if replica == self._bus.replica and self._bus.ledger.was_replaced:
                continue
            last = self._bus.record.last(replica)
            expect(
                last <= cut_off,
                f"{self._bus.name} counts {last} facts of somebody revoked after {cut_off}",
            )
