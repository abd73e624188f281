"""What a terminal's ledger can be asked: from memory, or from one snapshot of what is on the disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection

from crdt.block import Block, parse
from crdt.certificate import AuthorCertificate
from crdt.cursor import Cursor
from crdt.documents import SignedDocument
from crdt.facts import Books, CardId, Delta, ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, ShortBlockFrame, Want
from crdt.frontier import MAX_FRONTIER, Head, leading
from crdt.revocations import Revocations
from crdt.store import blocks, evidence, papers, passing_on, quarantine, view
from crdt.store.authors import Authors
from crdt.store.identities import own_replicas, replaced_here
from crdt.store.memory import Memory
from crdt.store.owned import Owned
from crdt.store.quarantine import Quarantined
from crdt.store.settled import read_standing, settled_heads, settled_heads_of
from crdt.store.status import Status, status_of


class TerminalReader:
    """The questions. `authors`, `held`, `own_head`, `settled`, `status`, `suspended`, `revoked`,
    `was_replaced`, `credit_left` and `last_at_ms` answer from memory; the others wait for the disk."""

    def __init__(
        self, store: Owned, memory: Memory, authors: Authors, certificate: AuthorCertificate
    ) -> None:
        """`certificate`: of the identity that writes."""
        self._store = store
        self._memory = memory
        self._authors = authors
        self._certificate = certificate

    @property
    def replica(self) -> ReplicaId:
        """Who writes here."""
        return self._certificate.replica

    @property
    def suspended(self) -> bool:
        """Whether nothing is sealed until a new identity takes over; taps go on into the open segment."""
        return self._memory.suspended

    @property
    def revoked(self) -> bool:
        """Whether the list of revocations held here says that an operator has ended this identity; what it
        writes then counts nowhere unless somebody accepts it. Not so where it was only replaced."""
        return self._memory.revoked

    @property
    def was_replaced(self) -> bool:
        """Whether that list says that the terminal goes on as another identity, as its storage was put back:
        instead of this one, or of one before it that had not sent all it wrote when the terminal was paired
        anew. Nothing is installed until then; and unless it was `revoked` as well, all that it wrote counts
        until the next one writes again what the hub lacks."""
        return self._memory.was_replaced

    def settled(self) -> tuple[bytes, int, Cursor]:
        """What to ask the hub for next: series, the position installed, and the cursor to go on after."""
        with self._memory.mutex:
            return self._memory.standing.next_page

    def own_head(self) -> Head:
        """The end of this replica's sealed chain; Head(0, GENESIS) when nothing was sealed."""
        with self._memory.mutex:
            return self._memory.head

    def held(self) -> tuple[int, int]:
        """How many deltas are held beyond the settlement, and their sum in minor units."""
        with self._memory.mutex:
            return self._memory.held.count, self._memory.held.sum_minor

    def last_at_ms(self) -> int | None:
        """The time of the last delta written here, by any identity it had; None when there is none."""
        with self._memory.mutex:
            return self._memory.last_at_ms

    def status(self) -> Status:
        """Numbers for people, all of one instant."""
        return status_of(self._memory, self._certificate.limits.allowance_minor)

    def credit_left(self) -> int:
        """What this identity may still give in credit; below 0 when it has to seal more than it may."""
        with self._memory.mutex:
            return self._certificate.limits.allowance_minor - self._memory.credit_minor

    def frontier(self) -> dict[ReplicaId, Head]:
        """The heads of all chains held: this replica's, those of earlier identities, and those of others.

        A chain of another terminal may go on at a settled head without the blocks before it. As many as one
        message has room for, see `frontier.leading`: what is settled is left out before what is not.
        """

        def work(connection: Connection) -> dict[ReplicaId, Head]:
            held = blocks.heads_of(connection)
            settled = settled_heads_of(connection, list(held)) if len(held) > MAX_FRONTIER else {}
            return leading(held, own_replicas(connection), settled)

        return self._store.read(work)

    def heads(self) -> dict[ReplicaId, Head]:
        """The heads of all chains held, however many there are."""
        return self._store.read(blocks.heads_of)

    def settled_frontier(self, of: Collection[ReplicaId] | None = None) -> dict[ReplicaId, Head]:
        """The heads that the installed settlement includes; there are many, so `of` may name those wanted."""
        if of is not None:
            return self._store.read(lambda connection: settled_heads_of(connection, list(of)))
        return self._store.read(lambda connection: settled_heads(connection, read_standing(connection)))

    def former(self, most: int) -> list[ReplicaId]:
        """The identities that wrote to this ledger before this one, by id. Where there are more than `most`,
        those that the hub has ended itself are left out first."""

        def work(connection: Connection) -> list[ReplicaId]:
            found = own_replicas(connection) - {self.replica}
            if len(found) > most:
                found -= papers.revocations(connection).cut_offs.keys()
            return sorted(found)[:most]

        return self._store.read(work)

    def blocks_after(self, seq: int, max_bytes: int, replica: ReplicaId | None = None) -> list[bytes]:
        """Sealed blocks of a replica (None: this one) after `seq`: at most `max_bytes`, but at least one.

        Of one that was replaced none beyond its cut-off: nobody takes them.
        """
        author = self.replica if replica is None else replica
        return self._store.read(lambda connection: passing_on.blocks_of(connection, author, seq, max_bytes))

    def kept_back(self) -> int:
        """How many sealed facts that were written here and count here are handed on to nobody: those in
        blocks that end beyond the cut-off of who wrote them. The next identity writes them again."""

        def count(connection: Connection) -> int:
            return sum(
                block.header.count
                for replica, until in replaced_here(connection).items()
                for block in blocks.stored_blocks(connection, replica, until)
            )

        return self._store.read(count)

    def holds(self, block: Block) -> bool:
        """Whether the record has this very block."""
        replica, first_seq = block.header.replica, block.header.first_seq
        return self._store.read(
            lambda connection: any(
                span.hash == block.hash
                for span in blocks.overlapping(connection, replica, first_seq, block.last_seq)
            )
        )

    def authors(self) -> Mapping[ReplicaId, AuthorCertificate]:
        """The certificates of all authors met, which verify the blocks held; from memory, at no cost.

        As of now: what changes later is another mapping. What another thread is just storing is there a
        moment after its blocks are.
        """
        return self._authors.stored()

    def short_blocks(self, raws: Sequence[bytes]) -> list[ShortBlockFrame | BlockFrame]:
        """These blocks with their cards as numbers, where the settlement gave any. For the hub it is of."""
        return self._store.read(lambda connection: passing_on.shortened(connection, list(map(parse, raws))))

    def answer(self, want: Want, max_bytes: int) -> list[CertificateFrame | BlockFrame]:
        """What is held beyond what somebody asks from: certificates, and blocks of at most `max_bytes`.

        At least one block if there is any. What was deleted after it was settled cannot be sent: see
        `pruned_until`. Somebody without that settlement will refuse what follows (CHAIN_BROKEN).
        """
        return self._store.read(lambda connection: passing_on.answer(connection, want, max_bytes))

    def lacking(self) -> dict[ReplicaId, int]:
        """Of each chain that has a gap beyond the settlement: the last number before it."""
        return self._store.read(passing_on.lacking)

    def pruned_until(self) -> dict[ReplicaId, int]:
        """Of each chain that is not held from its beginning: the last number before what is held."""
        return self._store.read(passing_on.pruned_until)

    def quarantined(self, limit: int, but: Collection[ReplicaId] = ()) -> list[Quarantined]:
        """Blocks in quarantine that the hub was not sent yet, of others than `but`: `evidence_delivered` says
        when it was."""
        return self._store.read(lambda connection: evidence.undelivered(connection, limit, but))

    def kept_as_evidence(self, hashes: Collection[bytes]) -> set[bytes]:
        """Those of these blocks that are in quarantine."""
        return self._store.read(lambda connection: quarantine.hashes_in(connection, hashes))

    def reissued(self) -> list[bytes]:
        """Hashes of the blocks of this terminal whose facts were written again after a concession."""
        return self._store.read(lambda connection: evidence.reissued(connection, own_replicas(connection)))

    def revocations(self) -> Revocations:
        """Who is revoked, by the newest list put."""
        return self._store.read(papers.revocations)

    def document(self, name: str) -> SignedDocument | None:
        """The newest settings document of this name; None when none was put."""
        return self._store.read(lambda connection: papers.get_document(connection, name))

    def digest(self) -> bytes:
        """The state digest of all this ledger knows; the hub's, once all is settled. Reads every card."""
        return self._store.read(view.believed_digest)

    def books(self) -> Books:
        """The proof that this ledger's balances are its deltas. Reads every card."""
        return self._store.read(view.believed_books)

    def history(self, card: CardId, limit: int = 20) -> list[Delta]:
        """The last facts about a card that are held here, newest first; what two lives say, once."""
        return self._store.read(lambda connection: view.card_history(connection, self.replica, card, limit))
