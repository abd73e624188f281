"""The truth: every fact that was written, and what every ledger has to believe, worked out independently.

It knows nothing of blocks, pages or tables, only who wrote what, and which facts a hub's position includes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from crdt.facts import CardId, Context, Kind, ReplicaId


class Fact(NamedTuple):
    """One line that somebody wrote about a card."""

    card: CardId
    kind: Kind
    amount_minor: int
    at_ms: int
    context: Context


class Broken(BaseException):
    """A promise of the ledger was broken; the text says which. No Exception, so that nobody catches it."""


Spans = Mapping[ReplicaId, Iterable[tuple[int, int]]]  # of each replica: first and last number, several times
State = tuple[int, int]  # a card's sum without openings, and its largest opening
NOTHING: State = (0, 0)


def plus(state: State, fact: Fact) -> State:
    """The card's state after one more fact."""
    if fact.kind is Kind.OPENING:
        return state[0], max(state[1], fact.amount_minor)
    return state[0] + fact.amount_minor, state[1]


def expect(holds: bool, sentence: str) -> None:
    """Raise Broken unless the promise holds."""
    if not holds:
        raise Broken(sentence)


@dataclass(frozen=True)
class Snapshot:
    """What a hub's settlement includes at one position."""

    reach: Mapping[ReplicaId, int] = field(default_factory=dict)  # the last number of each replica
    cards: Mapping[CardId, State] = field(default_factory=dict)
    listed: frozenset[CardId] = frozenset()
    overdrawn: frozenset[CardId] = frozenset()


class Oracle:
    """What is true in one world."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms  # the true time, which only the hub's clock shows
        self.written_ms: dict[Fact, int] = {}  # when each was acknowledged first
        self.facts: dict[ReplicaId, list[Fact]] = {}
        self.pending: dict[ReplicaId, list[Fact]] = {}  # handed to a ledger, not acknowledged so far
        self.history: dict[tuple[bytes, int], Snapshot] = {}  # by series and position
        self.hub = Snapshot()
        self.named: dict[tuple[ReplicaId, int], Fact] = {}  # also what is lost with a disk
        self.acknowledged = 0

    def begin(self, replica: ReplicaId, facts: Iterable[Fact]) -> None:
        """These are being written."""
        self.pending[replica] = list(facts)

    def acknowledge(self, replica: ReplicaId) -> int:
        """What was begun is durable: from now on it may not be lost. How many facts."""
        facts = self.pending.pop(replica, [])
        written = self.facts.setdefault(replica, [])
        for seq, fact in enumerate(facts, len(written) + 1):
            self.written_ms.setdefault(fact, self.now_ms)
            named = self.named.setdefault((replica, seq), fact)
            expect(named == fact, f"number {seq} names two facts: {named} and {fact}")
        written += facts
        self.acknowledged += len(facts)
        return len(facts)

    def found(self, replica: ReplicaId, last_seq: int) -> None:
        """A ledger was opened again, and ends here: all that was acknowledged, and what was begun or not."""
        written = self.facts.setdefault(replica, [])
        begun = len(self.pending.get(replica, ()))
        expect(last_seq >= len(written), f"acknowledged facts are lost: {last_seq} of {len(written)} left")
        expect(last_seq in (len(written), len(written) + begun), f"{last_seq} facts, {len(written)} written")
        if last_seq > len(written):
            self.acknowledge(replica)
        self.pending.pop(replica, None)

    def settled(
        self, series: bytes, position: int, reach: Mapping[ReplicaId, int], overdrawn: frozenset[CardId]
    ) -> Snapshot:
        """The hub has committed a change: `reach` is what it includes, less where somebody was revoked."""
        less = any(reach.get(replica, 0) < last_seq for replica, last_seq in self.hub.reach.items())
        before = Snapshot() if less else self.hub
        spans = {replica: [(1, last_seq)] for replica, last_seq in reach.items()}
        cards = self.believed(before, spans)
        return self.record(series, position, Snapshot(dict(reach), cards, self.hub.listed, overdrawn))

    def record(self, series: bytes, position: int, snapshot: Snapshot) -> Snapshot:
        """Remember what a position means, for good."""
        before = self.history.setdefault((series, position), snapshot)
        expect(before == snapshot, f"position {position} means two things")
        self.hub = snapshot
        return snapshot

    def believed(self, settled: Snapshot, spans: Spans) -> dict[CardId, State]:
        """The cards' states of a settlement and of all facts beyond it that are held: those in `spans`."""
        cards = dict(settled.cards)
        for fact in self.held(settled, spans):
            cards[fact.card] = plus(cards.get(fact.card, NOTHING), fact)
        return cards

    def held(self, settled: Snapshot, spans: Spans) -> list[Fact]:
        """The facts in `spans` that the settlement does not include, each once."""
        held: list[Fact] = []
        for replica, parts in spans.items():
            first = settled.reach.get(replica, 0) + 1
            numbers = sorted({seq for part in parts for seq in range(max(first, part[0]), part[1] + 1)})
            if numbers:
                facts = self._up_to(replica, numbers[-1])
                held += [facts[seq - 1] for seq in numbers]
        return held

    def _up_to(self, replica: ReplicaId, last_seq: int) -> list[Fact]:
        facts = self.facts.get(replica, [])
        if last_seq > len(facts):
            facts = facts + self.pending.get(replica, [])
        expect(last_seq <= len(facts), f"a ledger holds fact {last_seq} of {len(facts)} that were written")
        return facts
