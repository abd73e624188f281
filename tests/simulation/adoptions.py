"""What a hub writes of its own accord: facts of others that it adopts, and what takes back one of two.

Nobody can say before what that will be, so it is read from the hub's disk, and has to be what an operator let
it adopt, the contrary of something adopted, or of a ride that a terminal wrote. `each_once` says whether all
of it together was right.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from crdt.block import contents, parse
from crdt.facts import CardId, Context, Kind, ReplicaId
from tests.simulation.oracle import Fact, Oracle, expect

if TYPE_CHECKING:
    from tests.simulation.world import World


class Said(NamedTuple):
    """What makes a fact the same whoever writes it: one reader takes no two of a card in a millisecond."""

    card: CardId
    kind: Kind
    amount_minor: int
    at_ms: int
    context: Context

    @classmethod
    def by(cls, fact: Fact) -> Said:
        """What a fact says."""
        return cls(fact.card, fact.kind, fact.amount_minor, fact.at_ms, fact.context)

    @property
    def back(self) -> Said:
        """What takes it back."""
        kind = Kind.REVERSAL if self.kind is Kind.FARE else Kind.RETRACTION
        return self._replace(kind=kind, amount_minor=-self.amount_minor)


class Written(NamedTuple):
    """A fact of a hub's."""

    fact: Fact
    adopted: bool
    taken_back: bool


Branch: TypeAlias = "list[Written]"


class Adoptions:
    """Of all the hub's identities in one world."""

    def __init__(self, oracle: Oracle) -> None:
        self.offered: set[Said] = set()  # what an operator let a hub adopt
        self.adopted: dict[tuple[ReplicaId, int], Fact] = {}
        self.taken_back: dict[tuple[ReplicaId, int], Fact] = {}
        self.forked: dict[ReplicaId, set[Fact]] = {}  # that a hub lost, which may give their numbers again
        self.returned: set[ReplicaId] = set()  # chains to which some of that came back
        self._oracle = oracle

    def branch(self, hub: ReplicaId, last_seq: int) -> Branch:
        """Its chain up to there, for a copy of its disk."""
        return [
            Written(fact, (hub, seq) in self.adopted, (hub, seq) in self.taken_back)
            for seq, fact in enumerate(self._oracle.facts[hub][:last_seq], 1)
        ]

    def go_back(self, hub: ReplicaId, branch: Branch) -> None:
        """A hub was put back to this branch of its chain and may not know it: others may come after it."""
        facts = self._oracle.facts[hub]
        agreed = len(list(takewhile(lambda both: both[0] == both[1].fact, zip(facts, branch, strict=False))))
        self.returned.discard(hub)
        self.forked.setdefault(hub, set()).update(facts[agreed:])
        for seq in range(agreed + 1, len(facts) + 1):
            del self._oracle.named[hub, seq]
            self.adopted.pop((hub, seq), None)
            self.taken_back.pop((hub, seq), None)
        facts[agreed:] = [one.fact for one in branch[agreed:]]
        for seq, one in enumerate(branch[agreed:], agreed + 1):
            self._oracle.named[hub, seq] = one.fact
            if one.adopted:
                self.adopted[hub, seq] = one.fact
            if one.taken_back:
                self.taken_back[hub, seq] = one.fact

    def learn(self, hub: ReplicaId, blocks: Iterable[bytes]) -> None:
        """The ledger has these blocks of a hub, and nobody told that to write them: or it had before."""
        facts = self._oracle.facts[hub]
        for fact in (fact for raw in blocks for fact in facts_in(raw)):
            facts.append(fact)
            self._oracle.named[hub, len(facts)] = fact
            if Said.by(fact) in self.offered:
                self.adopted[hub, len(facts)] = fact
            elif self._takes_back(fact):  # as it may have done before it was put back, so it looks the same
                self.taken_back[hub, len(facts)] = fact
            else:
                expect(fact in self.forked.get(hub, ()), f"the hub wrote {fact}, and nobody knows why")
                self.returned.add(hub)

    def _takes_back(self, fact: Fact) -> bool:
        if fact.kind in (Kind.DUPLICATE, Kind.REINSTATED):
            ride = Said.by(fact)._replace(kind=Kind.FARE, amount_minor=-abs(fact.amount_minor))
            return any(Said.by(other) == ride for facts in self._oracle.facts.values() for other in facts)
        return Said.by(fact) in (Said.by(copy).back for copy in self.adopted.values())

    def is_again(self, replica: ReplicaId, seq: int) -> bool:
        """Whether this fact of a hub is about others."""
        return (replica, seq) in self.adopted or (replica, seq) in self.taken_back


def facts_in(raw: bytes) -> Iterator[Fact]:
    """What a block says."""
    block = parse(raw)
    for delta in contents(block).deltas(block.header.replica, block.header.first_seq):
        yield Fact(delta.card, delta.kind, delta.amount_minor, delta.at_ms, delta.context)


def each_once(world: World) -> None:
    """Whatever was adopted, or can be, counts once at the hub: as its terminal's, or else as the hub's own.

    Holds once an operator has adopted everything, and the hub has looked at what came since. Of openings the
    largest counts anyhow.
    """
    hub, oracle = world.hub, world.oracle
    adoptions, lost = hub.adoptions, hub.evidence.adoptable(hub.revocations.replaced)
    first: Counter[Said] = Counter()  # by those whose fact it is
    found: defaultdict[CardId, int] = defaultdict(int)  # what the hub counts for others, by card
    counted = {Said.by(fact) for raw in lost.values() for fact in _moving(facts_in(raw))}
    for replica, last_seq in oracle.hub.reach.items():
        for seq, fact in enumerate(oracle.facts[replica][:last_seq], 1):
            if fact.kind is Kind.OPENING or not fact.amount_minor:
                continue
            if not adoptions.is_again(replica, seq):
                first[Said.by(fact)] += 1
                continue
            found[fact.card] += fact.amount_minor
            if (replica, seq) in adoptions.adopted:
                counted.add(Said.by(fact))
    twice = [said for said, times in first.items() if times > 1]
    expect(not twice, f"these count twice: {twice}")
    for card in world.cards:
        due = sum(said.amount_minor for said in counted - first.keys() if said.card == card)
        expect(found[card] == due, f"the hub counts {found[card]} of {card.hex()} for others, not {due}")


def _moving(facts: Iterable[Fact]) -> Iterator[Fact]:
    """Those whose sum counts, but for what took others back: that is due where these are there twice."""
    for fact in facts:
        if fact.kind is not Kind.OPENING and fact.amount_minor and not takes_back(fact):
            yield fact


def takes_back(fact: Fact) -> bool:
    """Whether it takes another fact back, or undoes that."""
    return fact.kind in (Kind.REVERSAL, Kind.RETRACTION, Kind.DUPLICATE, Kind.REINSTATED)
