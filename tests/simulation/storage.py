"""The SD card of a terminal: a copy of it, and what is gone with one that was taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt.block import parse
from crdt.facts import ReplicaId
from tests.simulation.identities import Card
from tests.simulation.oracle import Oracle, expect
from tests.simulation.retention import Retention

if TYPE_CHECKING:
    from tests.simulation.buses import Bus


class Storage:
    """Of one terminal."""

    def __init__(self, bus: Bus, oracle: Oracle) -> None:
        self.copy: Card | None = None
        self.was_put_back = False
        self.lost: list[bytes] = []  # blocks of an identity that ended, which nobody has brought to the hub
        self._out_of_reach: list[bytes] = []  # the same while it has not ended
        self._bus = bus
        self._oracle = oracle

    def make_copy(self) -> None:
        """Make an image of the SD card; of restored storage only while an identity is promised."""
        bus = self._bus
        if bus.branch is None or bus.promised is not None:
            facts = len(self._oracle.facts[bus.replica])
            image, who = bus.disk.image(), bus.author
            retention = Retention(bus.retention.since)
            self.copy = Card(image, bus.marks, bus.taps.fares_version, facts, who, bus.promised, retention)

    def put_back(self, held_elsewhere: int, *, with_marks: bool) -> None:
        """Put the image in and start; `held_elsewhere`: how far somebody else has this identity's chain.

        Facts that were in the storage taken out, and nowhere else, are gone with it. `with_marks`: the whole
        card was copied, so the terminal itself cannot know. Where it was made with a promise that has been
        taken up since, the terminal is the identity before once more, and that one's number 1 is given.
        """
        bus, copy, self.was_put_back = self._bus, self.copy, True
        assert copy is not None
        self._take_out(copy, held_elsewhere)
        if with_marks:
            bus.marks = copy.marks
        bus.retention = Retention(copy.retention.since)
        bus.taps.go_back(copy.fares_version)
        bus.author, bus.promised = copy.author, copy.promised
        bus.boot()
        behind = held_elsewhere > copy.facts
        expect(
            bus.ledger.suspended or with_marks or not behind,
            f"{bus.name} did not notice that its storage is old",
        )
        if bus.ledger.suspended or behind:
            bus.apart.go(bus.apart.facts() if copy.promised is not None else [])
        bus.find()

    def is_paired(self) -> None:
        """The terminal has an identity that no storage knows which was taken out."""
        self._out_of_reach = []

    def end(self, again: ReplicaId) -> None:
        """Its identities ended, but for this one, which other storage may have taken up."""
        out = self._out_of_reach
        self._out_of_reach = [raw for raw in out if parse(raw).header.replica == again]
        self.lost += [raw for raw in out if raw not in self._out_of_reach]

    def _take_out(self, copy: Card, held_elsewhere: int) -> None:
        """Put the image in its place; what was in it alone, nobody ever saw."""
        bus, facts = self._bus, self._oracle.facts[self._bus.replica]
        taken_up = bus.author is not copy.author
        sealed = bus.record.sealed(bus.replica, held_elsewhere)
        bus.disk.put_back(copy.image)
        kept = bus.record.sealed(bus.replica, held_elsewhere)
        lasts = taken_up and not held_elsewhere  # the hub never ends what it never heard of
        self._out_of_reach = [] if lasts else [raw for raw in sealed if raw not in kept]
        last_seq = held_elsewhere if taken_up else max(copy.facts, held_elsewhere)
        for seq in range(last_seq + 1, len(facts) + 1):
            del self._oracle.named[bus.replica, seq]
        del facts[last_seq:]
