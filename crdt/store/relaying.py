"""A terminal's ledger and others' facts: blocks taken in from anybody, open taps from peers and for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate
from crdt.columns import MAX_BLOCK_DELTAS, encode
from crdt.errors import UnknownAuthor
from crdt.facts import Delta, ReplicaId
from crdt.frontier import Head
from crdt.ledger import MergeReport
from crdt.open_segment import OpenSegment
from crdt.store import relay, segment
from crdt.store.admission import Prepared, prepare
from crdt.store.authors import Authors
from crdt.store.content import Content
from crdt.store.fares import fares_of
from crdt.store.memory import Memory
from crdt.store.other_lives import Repeated, lives_of_replaced, written
from crdt.store.owned import Owned
from crdt.store.relay import Taken
from crdt.store.settled import read_standing, settled_heads


class Relaying:
    """Takes in what others wrote, sealed or not, for the replica that writes here."""

    def __init__(self, store: Owned, memory: Memory, authors: Authors, replica: ReplicaId) -> None:
        self._store = store
        self._memory = memory
        self._authors = authors
        self._replica = replica
        self._mine = _Reading(store, memory)

    def merge(self, given: Iterable[bytes], certificates: Iterable[AuthorCertificate]) -> MergeReport:
        """See TerminalLedger.merge."""
        raws, presented = list(given), list(certificates)
        prepared = self._store.read(
            lambda connection: prepare(connection, self._authors, raws, presented, relay.RECORD)
        )
        parts = [self._merge(part) for part in relay.parts_of(prepared)]
        return MergeReport(
            added=tuple(block for part in parts for block in part.blocks),
            known=sum(part.admitted.known for part in parts),
            refused=tuple(one for part in parts for one in part.admitted.refused),
            heads={replica: head for part in parts for replica, head in part.heads.items()},
        )

    def open_segment(self) -> OpenSegment:
        """See TerminalLedger.open_segment."""
        with self._memory.mutex:
            head, rows = self._memory.head, self._memory.segment[:MAX_BLOCK_DELTAS]
        deltas = segment.numbered(self._replica, head.seq, rows)
        return OpenSegment(head, len(deltas), encode(deltas).data if deltas else b"")

    def believe(self, replica: ReplicaId, segment: OpenSegment) -> bool:
        """See TerminalLedger.believe."""
        author = self._authors.seen.get(replica)
        if author is None or replica == self._replica:
            raise UnknownAuthor("an open segment is from a peer whose certificate is known")
        facts, believed = relay.open_facts(author, segment), list[bool]()
        while not believed:
            self._believe(author, segment, facts, self._mine.read(), believed)
        return believed[0]

    def forget(self, replicas: Iterable[ReplicaId]) -> None:
        """See TerminalLedger.forget."""
        with self._memory.mutex:
            self._memory.believed.forget(replicas)

    def _believe(
        self,
        author: AuthorCertificate,
        segment: OpenSegment,
        facts: Sequence[Delta],
        mine: Mine,
        believed: list[bool],
    ) -> None:
        """Nothing is done where `mine` was out of date by then."""
        replica = author.replica

        def work(connection: Connection) -> tuple[Head | None, Repeated] | None:
            if self._memory.revision != mine.revision:
                return None
            head = relay.follows(connection, author, segment, facts)
            return head, Repeated(lives_of_replaced(connection, [author]), mine.facts)

        def after(done: tuple[Head | None, Repeated] | None) -> None:
            if done is None:
                return
            head, known = done
            new = known.left_of(facts) if known.lives else facts
            with self._memory.mutex:
                here = [] if head is None else [fact for fact in new if fact.seq > head.seq]
                believed.append(head is not None and self._memory.believed.hear(replica, here))
                self._memory.believed.forget(self._replaced([replica]))

        self._store.write(work, after)

    def _merge(self, part: Prepared) -> Taken:
        while True:
            taken = self._merge_unless_late(part, self._mine.read())
            if taken is not None:
                return taken

    def _merge_unless_late(self, part: Prepared, mine: Mine) -> Taken | None:
        """None, and no change, where `mine` was out of date by then."""

        def work(connection: Connection) -> tuple[Taken, Repeated] | None:
            if self._memory.revision != mine.revision:
                return None
            noted_ms = self._memory.noted_ms
            taken = relay.take_in(connection, self._authors, part, self._replica, noted_ms)
            some = {block.header.replica for block in taken.blocks}
            authors = [self._authors.seen[replica] for replica in some]
            lives = lives_of_replaced(connection, authors) if authors else frozenset[ReplicaId]()
            return taken, Repeated(lives, mine.facts)

        def after(done: tuple[Taken, Repeated] | None) -> None:
            if done is None:
                return
            taken, known = done
            self._authors.remember(taken.admitted.authors)
            fares = [fare for columns in taken.facts for fare in fares_of(columns)]
            given = zip(taken.blocks, taken.facts, strict=True)
            self._memory.merged(given, known, fares, taken.heads, taken.foreign, taken.quarantined)
            self.forget(self._replaced({block.header.replica for block in taken.blocks}))
            if taken.suspended:
                self._memory.suspend()

        done = self._store.write(work, after)
        return None if done is None else done[0]

    def _replaced(self, replicas: Collection[ReplicaId]) -> list[ReplicaId]:
        """Peers believed that are other identities of the terminals of these: they have been replaced.

        What they had not sealed is written again by the one that took over, and must not count twice.
        """
        seen = self._authors.seen
        terminals = {seen[replica].terminal for replica in replicas}
        before = [replica for replica in self._memory.believed.replicas if replica not in replicas]
        return [replica for replica in before if seen[replica].terminal in terminals]


class Mine(NamedTuple):
    """What a writer that was replaced has written beyond the settlement; nothing where it was not."""

    revision: int  # of the memory, for which it holds
    facts: AbstractSet[Content] = frozenset()


class _Reading:
    """Reads that beside the taps, and once: of a month of them it is a second of work."""

    def __init__(self, store: Owned, memory: Memory) -> None:
        self._store = store
        self._memory = memory
        self._mine = Mine(-1)

    def read(self) -> Mine:
        """As of now; taps that come later are nobody else's."""
        revision, mine = self._memory.revision, self._mine
        if mine.revision != revision:
            facts = self._store.read(self._look) if self._memory.was_replaced else frozenset[Content]()
            self._mine = mine = Mine(revision, facts)
        return mine

    def _look(self, connection: Connection) -> AbstractSet[Content]:
        return written(connection, settled_heads(connection, read_standing(connection)))
