"""A terminal's ledger: taps in, blocks out, settlements in, and the exact view of every card in between."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

from sqlalchemy import Connection, update

from crdt.block import NOMINAL_BLOCK_DELTAS, Block, parse
from crdt.certificate import AuthorCertificate
from crdt.documents import SignedDocument
from crdt.errors import ForeignFleet, MisuseError, NotPermitted
from crdt.facts import (
    NO_CONTEXT,
    Books,
    CardId,
    CardView,
    Context,
    Delta,
    Draft,
    ReplicaId,
    check_card,
)
from crdt.frames import BlockFrame, CertificateFrame, OpenSegment, ShortBlockFrame, Want
from crdt.frontier import MAX_FRONTIER, Head, leading
from crdt.ledger import MergeReport
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.settlement import Cursor, Page
from crdt.signing import SigningKey, fleet_id
from crdt.store import blocks, evidence, papers, passing_on, pruning, view
from crdt.store.beginning import start
from crdt.store.conceding import Chain, Conceding
from crdt.store.concession import Conceded
from crdt.store.installer import Installer
from crdt.store.keepsake import Keepsake
from crdt.store.local import LocalStore
from crdt.store.marks import Marks
from crdt.store.memory import own_replicas
from crdt.store.owned import Owned
from crdt.store.quarantine import Quarantined
from crdt.store.relaying import Relaying
from crdt.store.sealing import Sealer
from crdt.store.settled import read_standing, settled_heads, settled_heads_of
from crdt.store.status import Status, status_of
from crdt.store.tapping import Tapping
from crdt.store.terminal_schema import TERMINAL

T = TypeVar("T")

NO_SECRETS: Final[Mapping[str, bytes]] = MappingProxyType({})


class TerminalLedger:
    """The ledger of one terminal, on an open database. The last one made on it is the one that counts.

    One made before has retired, with its memory out of date: `transact`, `view`, `seal`, `install` and
    `put_document` raise MisuseError, and its housekeeping has ended. So a new identity takes over at once
    and for good, whatever the old one was in the middle of; what it was building is begun anew.

    The thread that taps calls `transact`; `seal`, `blocks_after` and `install` are for the thread that syncs.
    Any of them may run at the same time; a tap goes first. They wait for the disk, so none is for an event
    loop, except `held`, `own_head`, `settled`, `status`, `revoked` and `last_at_ms`: they answer from memory.
    """

    def __init__(
        self,
        database: LocalStore,
        fleet_public_key: bytes,
        key: SigningKey,
        certificate: AuthorCertificate,
        marks: Marks | None = None,
        secrets: Mapping[str, bytes] = NO_SECRETS,
    ) -> None:
        """Load the ledger, or begin it. `certificate`: a verified one for `key`. `marks`: those beside it.

        `secrets` are put in the database in the same transaction: a new identity that takes over does so with
        its keys, or not at all.

        Taps that a suspended identity left unsealed are numbered anew: they are this one's now. Raises
        ForeignFleet when the database belongs to another fleet, MisuseError when another replica that is not
        suspended left unsealed taps in it (seal them with its key first), NotPermitted when this one may not
        write what a suspended one left, StoreFailed when it does not read back.
        """
        if certificate.fleet != fleet_id(fleet_public_key) or certificate.replica != key.replica:
            raise MisuseError("a terminal's certificate is for its own key and fleet")
        memory, authors = start(database, fleet_public_key, certificate, marks, secrets)
        self._database = database
        self._direct = database.direct
        self._memory = memory
        self._certificate = certificate
        self._store = Owned(database, memory)
        self._tapping = Tapping(memory, certificate)
        self._relaying = Relaying(self._store, memory, authors, key.replica)
        self._conceding = Conceding(self._store, memory, authors, key.replica)
        self._installer = Installer(database, memory, certificate)
        self._sealer = Sealer(database, memory, key, certificate, marks)
        self.keepsake = Keepsake(self._store.read, self._store.write, authors)

    @property
    def replica(self) -> ReplicaId:
        """Who writes here."""
        return self._certificate.replica

    def transact(
        self,
        card: CardId,
        choose: Callable[[CardView], tuple[Sequence[Draft], T]],
        at_ms: int,
        context: Context = NO_CONTEXT,
    ) -> T:
        """Decide on a card and write what was decided; durable on return. A tap, on the thread that calls.

        `choose` gets the card's view and returns the drafts to write and the result; it runs while nobody
        else may write, so it is quick and does not use the ledger. Without drafts nothing is written; when it
        raises, neither. Raises NotPermitted when the certificate does not allow a draft, StoreFailed.
        """
        check_card(card)
        sql = self._direct
        sql.begin()  # `with` would cost a tap two microseconds more
        try:
            self._database.check_owner(self._memory)
            key = bytearray(card)
            drafts, result = choose(self._tapping.view(sql, card, key, at_ms))
            if drafts:
                self._tapping.append(sql, card, key, drafts, at_ms, context)
        finally:
            sql.end()
        if len(self._memory.segment) >= NOMINAL_BLOCK_DELTAS:
            self._sealer.seal_later()
        return result

    def view(self, card: CardId) -> CardView:
        """What this terminal believes of a card now."""
        check_card(card)
        with self._direct as sql:
            self._database.check_owner(self._memory)
            return self._tapping.view(sql, card, bytearray(card), None)

    def seal(self) -> Block | None:
        """Seal every tap made before this call; returns the last block made, None when nothing was sealed.

        Nothing is sealed while the ledger is suspended. Raises NotPermitted when the certificate does not
        allow what an earlier identity wrote and this one has to seal, in kind or in all; the taps stay, and
        a new identity whose certificate allows them can seal them.
        """
        return self._sealer.seal()

    def retire(self) -> None:
        """Make way for another identity: seal what may be sealed, and leave the rest for it to take over."""
        try:
            self.seal()
        except NotPermitted:
            self.suspend()

    @property
    def suspended(self) -> bool:
        """Whether nothing is sealed until a new identity takes over; taps go on into the open segment."""
        return self._memory.suspended

    @property
    def revoked(self) -> bool:
        """Whether the list of revocations held here says that an operator has ended this identity; what it
        writes then counts nowhere unless somebody accepts it. Not so where it was only replaced."""
        return self._memory.revoked

    def suspend(self) -> None:
        """Seal nothing any more: somebody said that this identity was used by another copy of this ledger."""
        self._store.write(
            lambda connection: connection.execute(update(TERMINAL).values(suspended=1)),
            lambda _result: self._memory.suspend(),
        )

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
        """Sealed blocks of a replica (None: this one) after `seq`: at most `max_bytes`, but at least one."""
        author = self.replica if replica is None else replica
        return self._store.read(lambda connection: blocks.blocks_after(connection, author, seq, max_bytes))

    def own_head(self) -> Head:
        """The end of this replica's sealed chain; Head(0, GENESIS) when nothing was sealed."""
        with self._memory.mutex:
            return self._memory.head

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

    def settled_frontier(self, of: Collection[ReplicaId] | None = None) -> dict[ReplicaId, Head]:
        """The heads that the installed settlement includes; there are many, so `of` may name those wanted."""
        if of is not None:
            return self._store.read(lambda connection: settled_heads_of(connection, list(of)))
        return self._store.read(lambda connection: settled_heads(connection, read_standing(connection)))

    def merge(self, given: Iterable[bytes], certificates: Iterable[AuthorCertificate] = ()) -> MergeReport:
        """Take in blocks of others, in any order; never raises for bad input. The rules are a hub's.

        What the settlement includes counts as known and is not kept. A block of this very replica that is not
        held is refused (RESTORED), and the ledger is suspended from then on. In transactions that are short
        enough for a tap to wait.
        """
        return self._relaying.merge(given, certificates)

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

    def short_blocks(self, raws: Sequence[bytes]) -> list[ShortBlockFrame | BlockFrame]:
        """These blocks with their cards as numbers, where the settlement gave any. For the hub it is of."""
        return self._store.read(lambda connection: passing_on.shortened(connection, list(map(parse, raws))))

    def open_segment(self) -> OpenSegment:
        """What is written here and not sealed, for a peer. From memory; never waits."""
        return self._relaying.open_segment()

    def believe(self, replica: ReplicaId, segment: OpenSegment) -> bool:
        """Count what a peer (known from TLS) wrote and did not seal yet, until its next segment or block.

        False, and nothing of it counts, when blocks between what is held and the segment are missing, or too
        many peers are believed. Raises InputRefused when it is damaged, not permitted, or contradicts what
        is held. Either way what the peer said before counts on: it may have been sealed by now.
        """
        return self._relaying.believe(replica, segment)

    def forget(self, replica: ReplicaId) -> None:
        """Count nothing any more of what a peer did not seal. From memory; never waits."""
        self._relaying.forget([replica])

    def concede(
        self,
        replica: ReplicaId,
        canonical: Sequence[bytes],
        certificates: Iterable[AuthorCertificate] = (),
        *,
        after_seq: int = 0,
        ended: bool = False,
        kin: Collection[Chain] = (),
    ) -> Conceded:
        """Make the chain of a replica that of the hub: `canonical`, all of it up to the hub's head, in order.

        It may begin after `after_seq`, where the chains still agree. `ended`: the hub takes nothing of it
        beyond its cut-off. `kin`: whole chains of other identities of the terminal; what they say, by its
        content, is not written again.
        What contradicts it goes to quarantine; if this terminal wrote it, the facts that the hub's chain does
        not have are written again, with their own times: under a new identity if the chain is of the one that
        writes here, which is suspended. All of it happens or nothing; and doing it again changes nothing.
        Raises InputRefused.
        """
        return self._conceding.concede(replica, canonical, certificates, after_seq, ended=ended, kin=kin)

    def contested(self, page: Page) -> dict[ReplicaId, Head]:
        """The identities of this terminal to concede before the settlement that ends with this page shows,
        each with the head it has there."""
        return self._installer.contested(page)

    def quarantined(self, limit: int, but: Collection[ReplicaId] = ()) -> list[Quarantined]:
        """Blocks in quarantine that the hub was not sent yet, of others than `but`: `evidence_delivered` says
        when it was."""
        return self._store.read(lambda connection: evidence.undelivered(connection, limit, but))

    def evidence_delivered(self, hashes: Sequence[bytes]) -> None:
        """The hub has these blocks now."""
        self._store.write(lambda connection: evidence.delivered(connection, hashes))

    def evidence_forgotten(self) -> None:
        """The hub was put back from a backup: it is sent again whatever it had."""
        self._store.write(evidence.forgotten)

    def reissued(self) -> list[bytes]:
        """Hashes of the blocks of this terminal whose facts were written again after a concession."""
        return self._store.read(lambda connection: evidence.reissued(connection, own_replicas(connection)))

    def revocations(self) -> Revocations:
        """Who is revoked, by the newest list put."""
        return self._store.read(papers.revocations)

    def credit_left(self) -> int:
        """What this identity may still give in credit; below 0 when it has to seal more than it may."""
        with self._memory.mutex:
            return self._certificate.limits.allowance_minor - self._memory.credit_minor

    def prune(self, now_ms: int, retention_ms: int, keep_deltas: int) -> int:
        """Delete blocks that have been settled for the retention time; returns how many. To be called daily.

        By `now_ms`, the terminal's time, from the first call after they were settled. In any case the last
        `keep_deltas` facts are kept, because that time may jump, and whatever passback remembers.
        """
        return pruning.prune(self._store, self._memory, now_ms, retention_ms, keep_deltas)

    def authors(self) -> dict[ReplicaId, AuthorCertificate]:
        """The certificates that verify the blocks held."""
        return self._store.read(blocks.authors_of)

    def settled(self) -> tuple[bytes, int, Cursor]:
        """What to ask the hub for next: series, the position installed, and the cursor to go on after."""
        with self._memory.mutex:
            return self._memory.standing.next_page

    def install(self, page: Page) -> bool:
        """Take a verified settlement page; True when it was final and its settlement shows now.

        Pages are staged as they come and survive a restart; what shows changes at once, with the last. Raises
        ForeignFleet, ChainBroken (it does not continue what `settled` says) or ForkDetected (the hub settled
        blocks that this ledger did not write); then nothing changes.
        """
        return self._installer.install(page)

    def document(self, name: str) -> SignedDocument | None:
        """The newest settings document of this name; None when none was put."""
        return self._store.read(lambda connection: papers.get_document(connection, name))

    def put_document(self, document: SignedDocument) -> bool:
        """Keep a verified settings document. False, and no change, unless it is newer than the one kept;
        `terminal`, which its caller merges, replaces any other.

        The list of revoked replicas holds at once: what they wrote after their cut-offs stops counting.
        Raises InputRefused when it cannot be read.
        """
        if document.fleet != self._certificate.fleet:
            raise ForeignFleet("the document belongs to another fleet")
        if document.name == REVOKED_DOCUMENT:
            return self._conceding.revoke(document)
        return self._store.write(lambda connection: papers.put_document(connection, document))

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

    def digest(self) -> bytes:
        """The state digest of all this ledger knows; the hub's, once all is settled. Reads every card."""
        return self._store.read(view.believed_digest)

    def books(self) -> Books:
        """The proof that this ledger's balances are its deltas. Reads every card."""
        return self._store.read(view.believed_books)

    def history(self, card: CardId, limit: int = 20) -> list[Delta]:
        """The last facts about a card that are held here, newest first."""
        return self._store.read(lambda connection: view.card_history(connection, self.replica, card, limit))
