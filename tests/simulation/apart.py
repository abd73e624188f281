"""What a terminal writes on storage that was put back, beside what everybody has of its identity."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from crdt.facts import ReplicaId
from tests.simulation.identities import Branch
from tests.simulation.oracle import Fact, Oracle, expect

if TYPE_CHECKING:
    from tests.simulation.buses import Bus


class Apart:
    """That of one terminal."""

    def __init__(self, bus: Bus, oracle: Oracle) -> None:
        self.branch: Branch | None = None
        self._branches = 0
        self._bus = bus
        self._oracle = oracle

    def go(self, facts: list[Fact]) -> None:
        """What it writes is another branch from now on, which begins with these."""
        self._branches += 1
        name = ReplicaId(b"branch %d %d" % (self._bus.number, self._branches))
        self.branch = Branch(name, frozenset(self._local()[0]))
        self._oracle.facts[self.branch.name] = list(facts)

    def facts(self) -> list[Fact]:
        """What is on the disk beside what everybody has of its identity."""
        return self._local()[1]

    def check_nothing_is_missing(self, branch: Branch) -> None:
        """What was on the disk and what it wrote since counts here: as its own, or by another identity."""
        (common, apart), written = self._local(), self._oracle.facts
        missing = Counter(written[branch.name]) - Counter(apart)
        missing.update(written[self._bus.replica][seq - 1] for seq in branch.common - common)
        missing -= Counter(self._counting_here_by_others())
        expect(not missing, f"{self._bus.name} has lost {list(missing)}")

    def find(self, branch: Branch) -> None:
        """Compare what is there after a start with the truth.

        The power may have failed between giving way to the hub's chain and taking up the next identity.
        """
        here, elsewhere = self.facts(), self._written_elsewhere()
        facts = self._oracle.facts[branch.name]
        self._oracle.facts[branch.name] = [fact for fact in facts if fact in here or fact not in elsewhere]
        self._oracle.found(branch.name, len(here))

    def taken_over(self, before: ReplicaId, sealed: int) -> None:
        """What the new identity has is what the one before could not seal: some of it known, some apart.

        Where other storage has written as it already, as the hub knows, all that is another branch again.
        """
        bus, written = self._bus, self._oracle.facts
        apart = [] if self.branch is None else written[self.branch.name]
        moved = [*written[before][sealed:], *apart]
        facts = bus.record.open_facts()
        known, others = written[bus.replica], self._written_elsewhere(before)
        expect(
            Counter(facts) == Counter(moved) - Counter([*known, *others]),
            f"{bus.name} took over {facts}, not {moved}",
        )
        del written[before][sealed:]
        self.branch = None
        if known:
            self.go(facts)
        else:
            self._oracle.begin(bus.replica, facts)
            self._oracle.acknowledge(bus.replica)

    def _local(self) -> tuple[set[int], list[Fact]]:
        return self._bus.record.local(self._bus.replica, stopped=self._bus.is_stopped)

    def _counting_here_by_others(self) -> list[Fact]:
        """What is held or settled here of its other identities."""
        bus, facts = self._bus, self._oracle.facts
        settled, spans = bus.beliefs.installed().reach, bus.record.sealed_spans()
        found = []
        for one in {*bus.replicas} - {bus.replica}:
            numbers = set(range(1, settled.get(one, 0) + 1))
            numbers.update(seq for first, last in spans.get(one, ()) for seq in range(first, last + 1))
            found += [facts[one][seq - 1] for seq in sorted(numbers)]
        return found

    def _written_elsewhere(self, *but: ReplicaId) -> list[Fact]:
        """What the hub has by its other identities: by one that a copy was promised, and other storage has
        taken up."""
        reach, facts = self._oracle.hub.reach, self._oracle.facts
        kin = {*self._bus.replicas} - {self._bus.replica, *but}
        return [fact for one in sorted(kin) for fact in facts[one][: reach.get(one, 0)]]
