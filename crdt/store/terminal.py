"""A terminal's ledger: taps in, blocks out, settlements in, and the exact view of every card in between."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Final, TypedDict, TypeVar

from sqlalchemy import Connection, update

from crdt.block import NOMINAL_BLOCK_DELTAS, Block, parse, verify
from crdt.certificate import AuthorCertificate
from crdt.columns import MAX_BLOCK_DELTAS, encode
from crdt.documents import SignedDocument
from crdt.errors import ForeignFleet, MisuseError, NotPermitted, StoreFailed, UnknownAuthor
from crdt.facts import (
    MAX_AT_MS,
    NEW_CARD,
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
from crdt.ledger import MergeReport, RefusedInput
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.settlement import REFUSED, UNMET, Cursor, Page
from crdt.signing import SigningKey, fleet_id
from crdt.store import blocks, concession, papers, pruning, relay, view
from crdt.store.admission import Prepared, prepare
from crdt.store.authors import Authors
from crdt.store.beginning import begin, was_put_back
from crdt.store.blocks import SegmentRow
from crdt.store.concession import Canonical, Conceded
from crdt.store.database import store_secret
from crdt.store.installer import Installer
from crdt.store.local import LocalStore
from crdt.store.marks import Marks
from crdt.store.memory import Memory, Snapshot, fares_of, own_replicas, read_snapshot
from crdt.store.quarantine import Quarantined
from crdt.store.relay import Taken
from crdt.store.schema import OPEN_DELTA, TERMINAL, TERMINAL_METADATA, inserting
from crdt.store.sealing import Sealer
from crdt.store.settled import FIND, read_standing, settled_heads, settled_heads_of
from crdt.store.writer import Direct

T = TypeVar("T")

NO_SECRETS: Final[Mapping[str, bytes]] = MappingProxyType({})
_INSERT: Final = inserting(OPEN_DELTA)


class Status(TypedDict):
    """What a terminal says of its ledger."""

    held: int  # deltas beyond the settlement
    held_minor: int  # their sum
    open: int  # deltas not sealed yet
    head_seq: int  # number of the last delta written here
    position: int  # the settlement installed
    believed: int  # facts of peers that are not sealed yet
    foreign_blocks: int  # blocks of other terminals held
    quarantined: int  # blocks that do not count
    credit_left: int  # minor units of credit that this identity may still give
    suspended: bool  # nothing is sealed until a new identity takes over


class TerminalLedger:
    """The ledger of one terminal, on an open database. The last one made on it is the one that counts.

    One made before has retired, with its memory out of date: `transact`, `view`, `seal`, `install` and
    `put_document` raise MisuseError, and its housekeeping has ended. So a new identity takes over at once
    and for good, whatever the old one was in the middle of; what it was building is begun anew.

    The thread that taps calls `transact`; `seal`, `blocks_after` and `install` are for the thread that syncs.
    Any of them may run at the same time; a tap goes first. They wait for the disk, so none is for an event
    loop, except `held`, `own_head`, `settled`, `status` and `last_at_ms`, which answer from memory.
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
        self._database = database
        self._direct = database.direct
        self._fleet = certificate.fleet
        self._certificate = certificate
        database.create(TERMINAL_METADATA)
        restored = False
        if marks is not None:
            restored = database.read_and_wait(lambda connection: was_put_back(connection, marks))
            marks.save()
        nonce = None if marks is None else marks.nonce

        def load(connection: Connection) -> tuple[Memory, Authors]:
            begin(connection, certificate, nonce, restored)
            for name, value in secrets.items():
                store_secret(connection, name, value)
            memory = Memory.load(connection, key.replica)
            authors = Authors(fleet_public_key, blocks.authors_of(connection).values())
            database.own(memory)  # last: where anything above raises, the ledger before goes on
            return memory, authors

        self._memory, self._authors = database.write_and_wait(load)
        if marks is not None:
            with suppress(
                StoreFailed
            ):  # what `save` wrote will do; only a copy of just before goes unnoticed
                marks.started()
        self._installer = Installer(database, self._memory, certificate)
        self._sealer = Sealer(database, self._memory, key, certificate, marks)

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
        with self._direct as sql:
            self._database.check_owner(self._memory)
            sql.begin()
            drafts, result = choose(self._view(sql, card, at_ms))
            if drafts:
                self._append(sql, card, drafts, at_ms, context)
        if len(self._memory.segment) >= NOMINAL_BLOCK_DELTAS:
            self._sealer.seal_later()
        return result

    def view(self, card: CardId) -> CardView:
        """What this terminal believes of a card now."""
        check_card(card)
        with self._direct as sql:
            self._database.check_owner(self._memory)
            return self._view(sql, card, None)

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

    def suspend(self) -> None:
        """Seal nothing any more: somebody said that this identity was used by another copy of this ledger."""
        self._write(
            lambda connection: connection.execute(update(TERMINAL).values(suspended=1)),
            lambda _result: self._memory.suspend(),
        )

    def blocks_after(self, seq: int, max_bytes: int, replica: ReplicaId | None = None) -> list[bytes]:
        """Sealed blocks of a replica (None: this one) after `seq`: at most `max_bytes`, but at least one."""
        author = self.replica if replica is None else replica
        return self._read(lambda connection: blocks.blocks_after(connection, author, seq, max_bytes))

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

        return self._read(work)

    def settled_frontier(self) -> dict[ReplicaId, Head]:
        """The heads that the installed settlement includes."""
        return self._read(lambda connection: settled_heads(connection, read_standing(connection)))

    def merge(self, given: Iterable[bytes], certificates: Iterable[AuthorCertificate] = ()) -> MergeReport:
        """Take in blocks of others, in any order; never raises for bad input. The rules are a hub's.

        What the settlement includes counts as known and is not kept. A block of this very replica that is not
        held is refused (RESTORED), and the ledger is suspended from then on. In transactions that are short
        enough for a tap to wait.
        """
        raws, presented = list(given), list(certificates)
        prepared = self._read(
            lambda connection: prepare(connection, self._authors, raws, presented, relay.RECORD)
        )
        parts = [self._merge(part) for part in relay.parts_of(prepared)]
        return MergeReport(
            added=tuple(block for part in parts for block in part.blocks),
            known=sum(part.admitted.known for part in parts),
            refused=tuple(one for part in parts for one in part.admitted.refused),
            heads={replica: head for part in parts for replica, head in part.heads.items()},
        )

    def answer(self, want: Want, max_bytes: int) -> list[CertificateFrame | BlockFrame]:
        """What is held beyond what somebody asks from: certificates, and blocks of at most `max_bytes`.

        At least one block if there is any. What was deleted after it was settled cannot be sent: see
        `pruned_until`. Somebody without that settlement will refuse what follows (CHAIN_BROKEN).
        """
        return self._read(lambda connection: relay.answer(connection, want, max_bytes))

    def pruned_until(self) -> dict[ReplicaId, int]:
        """Of each chain that is not held from its beginning: the last number before what is held."""
        return self._read(relay.pruned_until)

    def short_blocks(self, raws: Sequence[bytes]) -> list[ShortBlockFrame | BlockFrame]:
        """These blocks with their cards as numbers, where the settlement gave any. For the hub it is of."""

        def work(connection: Connection) -> list[ShortBlockFrame | BlockFrame]:
            return relay.shortened(connection, [parse(raw) for raw in raws])

        return self._read(work)

    def open_segment(self) -> OpenSegment:
        """What is written here and not sealed, for a peer. From memory; never waits."""
        with self._memory.mutex:
            head, rows = self._memory.head, self._memory.segment[:MAX_BLOCK_DELTAS]
        deltas = [blocks.delta_of(self.replica, row[0], row[1:]) for row in rows]
        return OpenSegment(head, len(deltas), encode(deltas).data if deltas else b"")

    def believe(self, replica: ReplicaId, segment: OpenSegment) -> bool:
        """Count what a peer (known from TLS) wrote and did not seal yet, until its next segment or block.

        False, and nothing of it counts, when blocks between what is held and the segment are missing, or too
        many peers are believed. Raises InputRefused when it is damaged, not permitted, or contradicts what
        is held. Either way what the peer said before counts on: it may have been sealed by now.
        """
        author = self._authors.seen.get(replica)
        if author is None or replica == self.replica:
            raise UnknownAuthor("an open segment is from a peer whose certificate is known")
        facts = relay.open_facts(author, segment)

        def after(head: Head | None) -> None:
            with self._memory.mutex:
                here = [] if head is None else [fact for fact in facts if fact.seq > head.seq]
                believed.append(head is not None and self._memory.believed.put(replica, here))
                self._memory.believed.forget(self._replaced([replica]))

        believed: list[bool] = []
        self._write(lambda connection: relay.follows(connection, replica, segment), after)
        return believed[0]

    def forget(self, replica: ReplicaId) -> None:
        """Count nothing any more of what a peer did not seal. From memory; never waits."""
        with self._memory.mutex:
            self._memory.believed.forget([replica])

    def concede(
        self, replica: ReplicaId, canonical: Sequence[bytes], certificates: Iterable[AuthorCertificate] = ()
    ) -> Conceded:
        """Make the chain of a replica that of the hub: `canonical`, all of it up to the hub's head, in order.

        It may begin where the chains still agree. What contradicts it goes to quarantine; if this terminal
        wrote it, the facts that the hub's chain does not have are written again, with their own times: under
        a new identity if the chain is of the one that writes here, which is suspended. All of it happens or
        nothing; and doing it again changes nothing. Raises InputRefused.
        """
        hub = self._canonical(replica, canonical, certificates)

        def work(connection: Connection) -> tuple[Conceded, Snapshot]:
            refused: list[RefusedInput] = []
            self._authors.store(connection, [self._authors.seen[replica]], refused)
            own = own_replicas(connection)
            done = concession.concede(connection, hub, self.replica, own, self._noted_ms())
            return done, read_snapshot(connection, self.replica)

        fares = [fare for columns in hub.facts for fare in fares_of(columns)]
        done, _ = self._write(work, lambda result: self._memory.replaced(result[1], fares, [replica]))
        return done

    def contested(self, page: Page) -> dict[ReplicaId, Head]:
        """The identities of this terminal to concede before the settlement that ends with this page shows,
        each with the head it has there."""
        return self._installer.contested(page)

    def quarantined(self, limit: int) -> list[Quarantined]:
        """Blocks in quarantine that the hub was not sent yet: `evidence_delivered` says when it was."""
        return self._read(lambda connection: concession.undelivered(connection, limit))

    def evidence_delivered(self, hashes: Sequence[bytes]) -> None:
        """The hub has these blocks now."""
        self._write(lambda connection: concession.delivered(connection, hashes))

    def reissued(self) -> list[bytes]:
        """Hashes of the blocks of this terminal whose facts were written again after a concession."""
        return self._read(lambda connection: concession.reissued(connection, own_replicas(connection)))

    def revocations(self) -> Revocations:
        """Who is revoked, by the newest list put."""
        return self._read(papers.revocations)

    def credit_left(self) -> int:
        """What this identity may still give in credit; below 0 when it has to seal more than it may."""
        with self._memory.mutex:
            return self._certificate.limits.allowance_minor - self._memory.credit_minor

    def prune(self, now_ms: int, retention_ms: int, keep_deltas: int) -> int:
        """Delete blocks that have been settled for the retention time; returns how many. To be called daily.

        By `now_ms`, the terminal's time, from the first call after they were settled. In any case the last
        `keep_deltas` facts are kept, because that time may jump, and whatever passback remembers.
        """
        self._write(lambda connection: pruning.note_settled(connection, now_ms))
        kept = self._read(lambda connection: pruning.kept(connection, keep_deltas))
        total = 0
        while True:
            deleted, _ = self._write(
                lambda connection: pruning.prune_some(connection, now_ms - retention_ms, kept),
                lambda result: self._memory.pruned(result[1]),
            )
            if not deleted:
                break
            total += deleted
        return total

    def authors(self) -> dict[ReplicaId, AuthorCertificate]:
        """The certificates that verify the blocks held."""
        return self._read(blocks.authors_of)

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
        return self._read(lambda connection: papers.get_document(connection, name))

    def put_document(self, document: SignedDocument) -> bool:
        """Keep a verified settings document. False, and no change, unless it is newer than the one kept;
        `terminal`, which its caller merges, replaces any other.

        The list of revoked replicas holds at once: what they wrote after their cut-offs stops counting.
        Raises InputRefused when it cannot be read.
        """
        if document.fleet != self._fleet:
            raise ForeignFleet("the document belongs to another fleet")
        if document.name != REVOKED_DOCUMENT:
            return self._write(lambda connection: papers.put_document(connection, document))
        revoked = Revocations.decode(document.body)

        def work(connection: Connection) -> Snapshot | None:
            if not papers.put_document(connection, document):
                return None
            concession.revoke(connection, revoked, self.replica, self._noted_ms())
            return read_snapshot(connection, self.replica)

        def after(snapshot: Snapshot | None) -> None:
            if snapshot is not None:
                self._memory.replaced(snapshot, forget=revoked.cut_offs)

        return self._write(work, after) is not None

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
        memory = self._memory
        with memory.mutex:
            return Status(
                held=memory.held.count,
                held_minor=memory.held.sum_minor,
                open=len(memory.segment),
                head_seq=memory.last_seq,
                position=memory.standing.position,
                believed=memory.believed.count,
                foreign_blocks=memory.foreign_blocks,
                quarantined=memory.quarantined,
                credit_left=self._certificate.limits.allowance_minor - memory.credit_minor,
                suspended=memory.suspended,
            )

    def digest(self) -> bytes:
        """The state digest of all this ledger knows; the hub's, once all is settled. Reads every card."""
        return self._read(view.believed_digest)

    def books(self) -> Books:
        """The proof that this ledger's balances are its deltas. Reads every card."""
        return self._read(view.believed_books)

    def history(self, card: CardId, limit: int = 20) -> list[Delta]:
        """The last facts about a card that are held here, newest first."""
        return self._read(lambda connection: view.card_history(connection, self.replica, card, limit))

    def _view(self, sql: Direct, card: CardId, at_ms: int | None) -> CardView:
        memory = self._memory
        standing = memory.standing
        row = None
        if standing.overlay_generation:
            row = sql.row(FIND, (standing.overlay_generation, card))
        if row is None:
            row = sql.row(FIND, (standing.base_generation, card))
        held, believed = memory.held.cards.get(card), memory.believed.cards.get(card)
        known = held is not None or believed is not None
        sum_minor, opening_minor = held or NEW_CARD
        if believed is not None:
            sum_minor += believed[0]
            opening_minor = max(opening_minor, believed[1])
        hotlisted = False
        if row is not None:
            sum_minor += row[0]
            opening_minor = max(opening_minor, row[1])
            hotlisted = bool(row[2] & REFUSED)
            known = known or not row[2] & UNMET
        return CardView(card, known, sum_minor + opening_minor, hotlisted, memory.last_fare(card, at_ms))

    def _append(
        self, sql: Direct, card: CardId, drafts: Sequence[Draft], at_ms: int, context: Context
    ) -> None:
        if type(at_ms) is not int or not 0 <= at_ms <= MAX_AT_MS:
            raise MisuseError("a time is an integer from 0 to 2**48 - 1, in ms")
        place = (context.route, context.trip, context.stop, context.clock_epoch, context.clock_error_ms)
        rows: list[SegmentRow] = []
        credit_minor = 0
        for seq, draft in enumerate(drafts, self._memory.last_seq + 1):
            if not self._certificate.permits(draft.kind, draft.amount_minor):
                raise NotPermitted(f"this terminal may not write a {draft.kind.name} of {draft.amount_minor}")
            if draft.amount_minor > 0:
                credit_minor += draft.amount_minor
            rows.append((seq, card, int(draft.kind), draft.amount_minor, at_ms, *place))
        if credit_minor:
            self._certificate.check_allowance(self._memory.credit_minor + credit_minor)
        sql.commit(_INSERT, rows)
        self._memory.wrote(card, rows)

    def _merge(self, part: Prepared) -> Taken:
        def after(taken: Taken) -> None:
            self._authors.remember(taken.admitted.authors)
            fares = [fare for columns in taken.facts for fare in fares_of(columns)]
            self._memory.merged(taken.facts, fares, taken.heads, taken.foreign, taken.quarantined)
            for replica in self._replaced({block.header.replica for block in taken.blocks}):
                self.forget(replica)
            if taken.suspended:
                self._memory.suspend()

        return self._write(
            lambda connection: relay.take_in(connection, self._authors, part, self.replica, self._noted_ms()),
            after,
        )

    def _replaced(self, replicas: Collection[ReplicaId]) -> list[ReplicaId]:
        """Peers believed that are other identities of the terminals of these: they have been replaced.

        What they had not sealed is written again by the one that took over, and must not count twice.
        """
        seen = self._authors.seen
        terminals = {seen[replica].terminal for replica in replicas}
        before = [replica for replica in self._memory.believed.replicas if replica not in replicas]
        return [replica for replica in before if seen[replica].terminal in terminals]

    def _canonical(
        self, replica: ReplicaId, raws: Sequence[bytes], certificates: Iterable[AuthorCertificate]
    ) -> Canonical:
        for certificate in certificates:
            self._authors.check(certificate)
        author = self._authors.seen.get(replica)
        if author is None:
            raise UnknownAuthor("there is no certificate for the author of the hub's blocks")
        given = [parse(raw) for raw in raws]
        facts = [verify(block, author) for block in given]
        concession.check_chain(given, replica)
        return Canonical(replica, given, facts)

    def _noted_ms(self) -> int:
        """The ledger has no clock; the last tap's time says for people when something was noted."""
        return self._memory.last_at_ms or 0

    def _write(self, work: Callable[[Connection], T], after: Callable[[T], None] | None = None) -> T:
        def checked(connection: Connection) -> T:
            self._database.check_owner(self._memory)
            return work(connection)

        return self._database.write_and_wait(checked, after=after)

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._database.read_and_wait(work)
