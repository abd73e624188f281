"""A terminal's ledger: taps in, blocks out, settlements in, and the exact view of every card in between."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

from sqlalchemy import update

from crdt.block import NOMINAL_BLOCK_DELTAS, Block
from crdt.certificate import AuthorCertificate
from crdt.documents import SignedDocument
from crdt.errors import ForeignFleet, MisuseError, NotPermitted
from crdt.facts import NO_CONTEXT, CardId, CardView, Context, Draft, ReplicaId, check_card
from crdt.frontier import Head
from crdt.ledger import MergeReport
from crdt.open_segment import OpenSegment
from crdt.revocations import REVOKED_DOCUMENT
from crdt.settlement import Page
from crdt.signing import SigningKey, fleet_id
from crdt.store import evidence, papers, pruning
from crdt.store.beginning import start
from crdt.store.conceding import Chain, Conceded, Conceding
from crdt.store.installer import Installer
from crdt.store.keepsake import Keepsake
from crdt.store.local import LocalStore
from crdt.store.marks import Marks
from crdt.store.owned import Owned
from crdt.store.relaying import Relaying
from crdt.store.sealing import Sealer
from crdt.store.tapping import Tapping
from crdt.store.terminal_asking import TerminalReader
from crdt.store.terminal_schema import TERMINAL

T = TypeVar("T")

NO_SECRETS: Final[Mapping[str, bytes]] = MappingProxyType({})


class TerminalLedger(TerminalReader):
    """The ledger of one terminal, on an open database. The last one made on it is the one that counts.

    One made before has retired, with its memory out of date: `transact`, `view`, `seal`, `install` and
    `put_document` raise MisuseError, and its housekeeping has ended. So a new identity takes over at once
    and for good, whatever the old one was in the middle of; what it was building is begun anew.

    The thread that taps calls `transact`; `seal`, `blocks_after` and `install` are for the thread that syncs.
    Any of them may run at the same time; a tap goes first. They wait for the disk, so none is for an event
    loop, except the questions that are answered from memory.
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
        super().__init__(Owned(database, memory), memory, authors, certificate)
        self._database = database
        self._direct = database.direct
        self._tapping = Tapping(memory, certificate)
        self._relaying = Relaying(self._store, memory, authors, key.replica)
        self._conceding = Conceding(self._store, memory, authors, key.replica)
        self._installer = Installer(database, memory, certificate)
        self._sealer = Sealer(database, memory, key, certificate, marks)
        self.keepsake = Keepsake(self._store.read, self._store.write, authors)

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

    def suspend(self) -> None:
        """Seal nothing any more: somebody said that this identity was used by another copy of this ledger."""
        self._store.write(
            lambda connection: connection.execute(update(TERMINAL).values(suspended=1)),
            lambda _result: self._memory.suspend(),
        )

    def merge(self, given: Iterable[bytes], certificates: Iterable[AuthorCertificate] = ()) -> MergeReport:
        """Take in blocks of others, in any order; never raises for bad input. The rules are a hub's.

        What the settlement includes counts as known and is not kept. A block of this very replica that is not
        held is refused (RESTORED), and the ledger is suspended from then on. In transactions that are short
        enough for a tap to wait.
        """
        return self._relaying.merge(given, certificates)

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
        listed: SignedDocument | None = None,
    ) -> Conceded:
        """Make the chain of a replica that of the hub: `canonical`, all of it up to the hub's head, in order.

        It may begin after `after_seq`, where the chains still agree. `ended`: the hub takes nothing of it
        beyond its cut-off. `kin`: for the chain of who writes here, or of a former identity while this one is
        suspended, whole chains of other identities of the terminal, and of others that had copies of its
        storage, also empty ones; what they say, by its content, is not written again, nor, where this one has
        ended, what is held here of such an identity and continues its chain at the hub. `listed`: a verified
        list of revocations, kept at the same moment unless there is one as new: so no view lacks what it cuts
        off and is written again. What contradicts it goes to quarantine; if this terminal wrote it, the facts
        that the hub's chain does not have are written again, with their own times: under a new identity if
        the chain is of the one that writes here, which is suspended. All of it happens or nothing; and doing
        it again changes nothing. Raises InputRefused.
        """
        if listed is not None:
            self._check_fleet(listed)
        return self._conceding.concede(
            replica, canonical, certificates, after_seq, ended=ended, kin=kin, listed=listed
        )

    def contested(self, page: Page) -> dict[ReplicaId, Head]:
        """The identities of this terminal to concede before the settlement that ends with this page shows,
        each with the head it has there."""
        return self._installer.contested(page)

    def evidence_delivered(self, hashes: Sequence[bytes]) -> None:
        """The hub has these blocks now."""
        self._store.write(lambda connection: evidence.delivered(connection, hashes))

    def evidence_forgotten(self) -> None:
        """The hub was put back from a backup: it is sent again whatever it had."""
        self._store.write(evidence.forgotten)

    def prune(self, now_ms: int, retention_ms: int, keep_deltas: int) -> int:
        """Delete blocks that have been settled for the retention time; returns how many. To be called daily.

        By `now_ms`, the terminal's time, from the first call after they were settled. In any case the last
        `keep_deltas` facts are kept, because that time may jump, and whatever passback remembers.
        """
        return pruning.prune(self._store, self._memory, now_ms, retention_ms, keep_deltas)

    def install(self, page: Page) -> bool:
        """Take a verified settlement page; True when it was final and its settlement shows now.

        Pages are staged as they come and survive a restart; what shows changes at once, with the last. Raises
        ForeignFleet, ChainBroken (it does not continue what `settled` says), ForkDetected (the hub settled
        blocks that this ledger did not write), or NotPermitted for a final one where this identity
        `was_replaced`; then nothing changes.
        """
        return self._installer.install(page)

    def put_document(self, document: SignedDocument) -> bool:
        """Keep a verified settings document. False, and no change, unless it is newer than the one kept;
        `terminal`, which its caller merges, replaces any other.

        The list of revoked replicas holds at once: what they wrote after their cut-offs stops counting.
        Raises InputRefused when it cannot be read.
        """
        self._check_fleet(document)
        if document.name == REVOKED_DOCUMENT:
            return self._conceding.revoke(document)
        return self._store.write(lambda connection: papers.put_document(connection, document))

    def _check_fleet(self, document: SignedDocument) -> None:
        if document.fleet != self._certificate.fleet:
            raise ForeignFleet("the document belongs to another fleet")
