"""What peers say they wrote and have not sealed yet: believed for the view, in memory only, never recorded.

Two doors of one bus see each other's taps within a second this way, long before a block is full. A segment
goes when the peer sends the next one, and each fact of it when the block that seals it is held or settled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from crdt.facts import CardId, Delta, Kind, ReplicaId
from crdt.frontier import Frontier
from crdt.store.held import Held

MAX_SEGMENTS: Final = 64  # of as many peers: more doors than a depot's yard has within reach


class PeersOpen:
    """The open segments believed, added up per card. Whoever changes it holds the memory's mutex."""

    def __init__(self) -> None:
        self.held = Held()
        self.fares: dict[CardId, int] = {}  # when each card last paid, by the other terminal's clock
        self._segments: dict[ReplicaId, tuple[Delta, ...]] = {}

    @property
    def replicas(self) -> list[ReplicaId]:
        """Whose segments are believed."""
        return list(self._segments)

    @property
    def count(self) -> int:
        """How many facts are believed."""
        return sum(map(len, self._segments.values()))

    def hear(self, replica: ReplicaId, facts: Iterable[Delta]) -> bool:
        """Believe these facts of a peer, and no others; False when there are too many peers already.

        Less of what is believed is an earlier word that came late: open facts are sealed from the first on,
        and none of them is ever taken back.
        """
        segment = tuple(facts)
        if segment == self._segments.get(replica, ())[: len(segment)]:
            return True
        return self._put(replica, segment)

    def forget(self, replicas: Iterable[ReplicaId]) -> None:
        """Believe nothing of these any more."""
        for replica in replicas:
            self._put(replica, ())

    def sealed(self, heads: Frontier) -> None:
        """What these heads include is held or settled now."""
        for replica in heads.keys() & self._segments.keys():
            left = [fact for fact in self._segments[replica] if fact.seq > heads[replica].seq]
            self._put(replica, tuple(left))

    def _put(self, replica: ReplicaId, segment: tuple[Delta, ...]) -> bool:
        if segment and replica not in self._segments and len(self._segments) >= MAX_SEGMENTS:
            return False
        if segment != self._segments.get(replica, ()):
            self._segments[replica] = segment
            self._add_up()
        return True

    def _add_up(self) -> None:
        self._segments = {replica: facts for replica, facts in self._segments.items() if facts}
        held = Held()
        fares: dict[CardId, int] = {}
        for facts in self._segments.values():
            for fact in facts:
                held.add(fact.card, fact.kind, fact.amount_minor)
                if fact.kind is Kind.FARE:
                    fares[fact.card] = max(fact.at_ms, fares.get(fact.card, 0))
        self.held, self.fares = held, fares
