"""Where the hub's word changes what a terminal's ledger counts: a chain that contradicts it, a revocation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet

from sqlalchemy import Connection

from crdt.block import Block, parse, verify
from crdt.certificate import AuthorCertificate
from crdt.columns import Columns
from crdt.documents import SignedDocument
from crdt.errors import NotPermitted, UnknownAuthor
from crdt.facts import CardId, ReplicaId
from crdt.ledger import RefusedInput
from crdt.revocations import Revocations
from crdt.store import concession, papers, reissue
from crdt.store.authors import Authors
from crdt.store.concession import Canonical, Conceded
from crdt.store.content import Content
from crdt.store.memory import Memory, Snapshot, fares_of, own_replicas, read_snapshot
from crdt.store.owned import Owned

Chain = tuple[ReplicaId, Sequence[bytes], Iterable[AuthorCertificate]]  # whose, blocks, who may have signed


class Conceding:
    """Does what the hub says to the ledger of the replica that writes here, all of it or nothing."""

    def __init__(self, store: Owned, memory: Memory, authors: Authors, replica: ReplicaId) -> None:
        self._store = store
        self._memory = memory
        self._authors = authors
        self._replica = replica

    def concede(
        self,
        replica: ReplicaId,
        canonical: Sequence[bytes],
        certificates: Iterable[AuthorCertificate],
        after_seq: int,
        *,
        ended: bool,
        kin: Collection[Chain],
    ) -> Conceded:
        """See TerminalLedger.concede."""
        given = list(map(parse, canonical))
        facts = list(self._verified(replica, given, certificates))
        concession.check_chain(given, replica)
        cards = self._store.read(lambda connection: reissue.cards_at_stake(connection, replica, after_seq))
        elsewhere = self._elsewhere(replica, cards, kin)
        hub = Canonical(replica, given, facts, after_seq, ended, elsewhere)

        def work(connection: Connection) -> tuple[Conceded, Snapshot, list[AuthorCertificate]]:
            refused: list[RefusedInput] = []
            stored, _ = self._authors.store(connection, [self._authors.seen[replica]], refused)
            own = own_replicas(connection)
            done = concession.concede(connection, hub, self._replica, own, self._memory.noted_ms)
            return done, read_snapshot(connection, self._replica), stored

        def after(result: tuple[Conceded, Snapshot, list[AuthorCertificate]]) -> None:
            _, snapshot, stored = result
            self._authors.remember(stored)
            self._memory.replaced(snapshot, fares, [replica])

        fares = [fare for columns in hub.facts for fare in fares_of(columns)]
        return self._store.write(work, after)[0]

    def revoke(self, document: SignedDocument) -> bool:
        """Keep the list of revoked replicas and count by it at once; see TerminalLedger.put_document."""
        revoked = Revocations.decode(document.body)

        def work(connection: Connection) -> Snapshot | None:
            if not papers.put_document(connection, document):
                return None
            own = own_replicas(connection)
            concession.revoke(connection, revoked, self._replica, own, self._memory.noted_ms)
            return read_snapshot(connection, self._replica)

        def after(snapshot: Snapshot | None) -> None:
            if snapshot is not None:
                self._memory.replaced(snapshot, forget=revoked.cut_offs)

        return self._store.write(work, after) is not None

    def _elsewhere(
        self, replica: ReplicaId, cards: AbstractSet[CardId], kin: Iterable[Chain]
    ) -> set[Content]:
        """What chains of other identities of the author's terminal say of these cards.

        They may be years long, so one block at a time is unpacked.
        """
        found: set[Content] = set()
        for other, raws, certificates in kin:
            blocks = list(map(parse, raws))
            for block, columns in zip(blocks, self._verified(other, blocks, certificates), strict=True):
                if self._authors.seen[other].terminal != self._authors.seen[replica].terminal:
                    raise NotPermitted("the chains are not all of one terminal")
                deltas = columns.deltas(other, block.header.first_seq)
                found.update(Content.of(delta) for delta in deltas if delta.card in cards)
            concession.check_chain(blocks, other)
        return found

    def _verified(
        self, replica: ReplicaId, given: Sequence[Block], certificates: Iterable[AuthorCertificate]
    ) -> Iterator[Columns]:
        for certificate in certificates:
            self._authors.check(certificate)
        author = self._authors.seen.get(replica)
        if author is None:
            raise UnknownAuthor("there is no certificate for the author of the hub's blocks")
        return (verify(block, author) for block in given)
