"""A terminal's ledger and others' facts: blocks taken in from anybody, open taps from peers and for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

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
from crdt.store.fares import fares_of
from crdt.store.memory import Memory, Snapshot, read_snapshot
from crdt.store.other_lives import NOTHING_REPEATED, Repeated, is_repeated, repeated
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
            known = self._repeated_by(author) if self._memory.was_replaced else NOTHING_REPEATED
            self._believe(author, segment, facts, known, believed)
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
        known: Repeated,
        believed: list[bool],
    ) -> None:
        """`known`: what of it may be written here as well. If that was out of date, nothing is done."""
        replica = author.replica
        new = known.left_of(facts) if known.lives else facts

        def work(connection: Connection) -> tuple[bool, Head | None]:
            head = relay.follows(connection, author, segment, facts)
            return is_repeated(connection, [author]) == bool(known.lives), head

        def after(done: tuple[bool, Head | None]) -> None:
            right, head = done
            with self._memory.mutex:
                here = [] if head is None else [fact for fact in new if fact.seq > head.seq]
                if right:
                    believed.append(head is not None and self._memory.believed.hear(replica, here))
                    self._memory.believed.forget(self._replaced([replica]))

        self._store.write(work, after)

    def _merge(self, part: Prepared) -> Taken:
        def work(connection: Connection) -> tuple[Taken, Snapshot | None]:
            noted_ms = self._memory.noted_ms
            taken = relay.take_in(connection, self._authors, part, self._replica, noted_ms)
            some = {block.header.replica for block in taken.blocks}
            anew = is_repeated(connection, [self._authors.seen[replica] for replica in some])
            return taken, read_snapshot(connection, self._replica) if anew else None

        def after(done: tuple[Taken, Snapshot | None]) -> None:
            taken, snapshot = done
            self._authors.remember(taken.admitted.authors)
            fares = [fare for columns in taken.facts for fare in fares_of(columns)]
            if snapshot is None:
                self._memory.merged(taken.facts, fares, taken.heads, taken.foreign, taken.quarantined)
            else:
                self._memory.counted_anew(snapshot, fares, taken.heads)
            self.forget(self._replaced({block.header.replica for block in taken.blocks}))
            if taken.suspended:
                self._memory.suspend()

        return self._store.write(work, after)[0]

    def _repeated_by(self, author: AuthorCertificate) -> Repeated:
        def look(connection: Connection) -> Repeated:
            return repeated(connection, settled_heads(connection, read_standing(connection)), [author])

        return self._store.read(look)

    def _replaced(self, replicas: Collection[ReplicaId]) -> list[ReplicaId]:
        """Peers believed that are other identities of the terminals of these: they have been replaced.

        What they had not sealed is written again by the one that took over, and must not count twice.
        """
        seen = self._authors.seen
        terminals = {seen[replica].terminal for replica in replicas}
        before = [replica for replica in self._memory.believed.replicas if replica not in replicas]
        return [replica for replica in before if seen[replica].terminal in terminals]
