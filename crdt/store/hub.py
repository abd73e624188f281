"""A hub's ledger: blocks of all terminals in, settlements out, and the hub's own facts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate
from crdt.documents import FLEET_DOCUMENT, SignedDocument
from crdt.errors import InputRefused, MisuseError, RefusalCode
from crdt.facts import NO_CONTEXT, CardId, Context, Draft, ReplicaId, check_card
from crdt.frontier import Frontier
from crdt.ledger import MergeReport
from crdt.revocations import REVOKED_DOCUMENT
from crdt.signing import SigningKey, fleet_id
from crdt.store import balances, comparing, papers, quarantine
from crdt.store.amending import Amending, Amendment
from crdt.store.asking import Totals
from crdt.store.authors import Authors
from crdt.store.days import Day, DayReport
from crdt.store.editions import Editions, PagePull
from crdt.store.futures import first, second
from crdt.store.hearing import HearingLedger
from crdt.store.hub_parts import HubParts
from crdt.store.intake import MAX_MERGING_BYTES, Given
from crdt.store.jobs import Rank
from crdt.store.markkeeper import Keeper, MarkKeeper
from crdt.store.marks import Marks
from crdt.store.own_chain import OwnChain
from crdt.store.recording import MAX_REQUEST_CHARS, Booking, Change, Order
from crdt.store.resolutions import SAID
from crdt.store.standing import HubStanding
from crdt.store.starting import begin
from crdt.store.store import Shared, Store
from crdt.store.witness import Witness

__all__ = [
    "MAX_MERGING_BYTES",
    "MAX_REQUEST_CHARS",
    "Booking",
    "Change",
    "Given",
    "HubLedger",
    "PagePull",
    "Totals",
]

T = TypeVar("T")


def wall_clock_ms() -> int:
    """Unix time in milliseconds, by this machine's clock."""
    return time.time_ns() // 1_000_000


class HubLedger(HearingLedger):
    """The ledger of a hub, on an open database (open it with two readers: one verifies while one reads).

    Whatever touches the disk returns a future and never waits, so it may be called from an event loop
    (`asyncio.wrap_future`); only the constructor waits. Futures fail with Overloaded or StoreFailed, and with
    what the method names.
    """

    def __init__(
        self,
        database: Store,
        fleet_public_key: bytes,
        key: SigningKey,
        certificate: AuthorCertificate,
        entropy: Callable[[int], bytes] = os.urandom,
        now_ms: Callable[[], int] = wall_clock_ms,
        marks: Marks | None = None,
        keeping: Callable[[Marks], Keeper] = MarkKeeper,
        *,
        sharing: bool = False,
    ) -> None:
        """Load the ledger, or begin it. `certificate`: a verified one for `key`.

        `entropy`: a new ledger's series, and how far from the last position a loaded one goes on. `now_ms`:
        the hub's clock, for people: when it learnt something. `marks`: those beside the database; then
        the ledger has to be closed. `keeping`: who writes them. `sharing`: whether terminals may be given the
        same settlement pages, some seconds old, when many ask (`editions.py`).

        `restored` tells that the database was put back from an old copy, with this key in it: what it booked
        since is not there, so it must not number facts of its own any more, and bookings fail with Restored
        until the ledger is made anew with another key. Everything else goes on. It may turn out at any time,
        where the marks were put back too: by a block that somebody brings.

        Raises ForeignFleet when the database belongs to another fleet, StoreFailed.
        """
        fleet = fleet_id(fleet_public_key)
        if certificate.fleet != fleet or certificate.replica != key.replica:
            raise MisuseError("a hub's certificate is for its own key and fleet")
        begun = begin(database, certificate, marks, entropy, now_ms())
        super().__init__(database, fleet, key, Authors(fleet_public_key, begun.authors), now_ms)
        self._chain = OwnChain(key.replica, entropy, retired=begun.restored)
        self._marks = marks
        keeper = None if marks is None else keeping(marks)
        if sharing:
            self._editions = Editions(self._seal, shared=isinstance(database, Shared))
        self._parts = HubParts(
            database, key, certificate, self._authors, self._chain, keeper, self._editions, now_ms
        )
        self._amending = Amending(database, self._authors, now_ms, self._amended)
        if not isinstance(database, Shared):
            self._documents = database.read_and_wait(_documents)
            return
        self._parts.join(database, begun.place)
        if marks is not None:
            self._parts.guard(database, Witness(database, marks.nonce, begun.series, key.replica, entropy))

    @property
    def restored(self) -> bool:
        """Whether this identity must not write any more; see above."""
        return self._chain.retired

    def close(self) -> None:
        """Write down the last marks, and leave work in the background to who goes on with the database. Close
        it before that, once nothing is under way; waits."""
        self._parts.close()

    # ---- Facts in ----

    def merge(
        self,
        raw_blocks: Iterable[bytes],
        certificates: Iterable[AuthorCertificate] = (),
        shorts: Iterable[bytes] = (),
    ) -> Future[MergeReport]:
        """Take in what is new, each block on its own; durable when done. Bad input is reported, not raised.

        Verified on a reader's thread, then record, balances and heads change in one transaction with one
        position, which several merges that wait may share a commit for. Of `shorts`, short blocks, those with
        a number that no card has are refused with UnknownCardNumber: ask for the block in full. Fails with
        Overloaded while MAX_MERGING_BYTES are under way.
        """
        given = Given(tuple(raw_blocks), tuple(shorts), tuple(certificates))
        return second(self._parts.intake.take_in(given, lambda _connection: None))

    def take_in(
        self, replica: ReplicaId, frontier: Frontier, given: Given
    ) -> Future[tuple[tuple[HubStanding, Frontier], MergeReport]]:
        """`arrival` of an author before the `merge` of what it brings; quicker than one after the other."""
        return self._parts.intake.take_in(given, self._arriving(replica, frontier))

    def append(
        self,
        card: CardId,
        drafts: Sequence[Draft],
        at_ms: int,
        context: Context = NO_CONTEXT,
        request: str = "",
    ) -> Future[Booking]:
        """Book facts of the hub's own on a card, sealed at once: at `at_ms`, and a millisecond apart.

        Where the hub has written anything else of the card at one of these times, they are of the next that
        are free: by their content no two of its facts are the same.

        `request`: at most MAX_REQUEST_CHARS made by the caller; one that has booked before books nothing. The
        future fails with NotPermitted (the hub's certificate does not allow a draft), Restored or
        MisuseError.
        """
        return self._parts.own.append(Order(card, tuple(drafts), at_ms, context, request))

    def set_hotlisted(self, card: CardId, hotlisted: bool) -> Future[bool]:
        """Put a card on the hotlist, or take it off; False when it was so. Settlements carry it."""

        def work(connection: Connection) -> tuple[bool, Change | None]:
            check_card(card)
            changed = balances.set_hotlisted(connection, card, hotlisted)
            position = balances.read_standing(connection).position
            return changed, Change(position, (card,)) if changed else None

        return first(
            self._database.write(work, rank=Rank.URGENT, after=lambda result: self._parts.publish(result[1]))
        )

    # ---- Authors and documents ----

    def amend(self, work: Callable[[Amendment], T], after: Callable[[], None] | None = None) -> Future[T]:
        """Change authors and documents as `work` decides from what it reads in the same write transaction.

        It runs on the writer's thread, so it is quick. What it raises undoes all of it, and fails the future.
        `after` is called once it is durable, before anybody hears of it: where memory keeps more of it.
        """
        return self._amending.amend(work, after)

    def enrol(self, certificate: AuthorCertificate) -> Future[bool]:
        """Register an author; see `Amendment.enrol` for what the future fails with."""
        return self.amend(lambda amendment: amendment.enrol(certificate))

    def put_document(self, document: SignedDocument) -> Future[bool]:
        """Keep a verified settings document if it is newer; see `Amendment.put_document`."""
        return self.amend(lambda amendment: amendment.put_document(document))

    def set_floor(self, floor_minor: int) -> Future[bool]:
        """Refuse cards with a balance below this (at most 0) until they are paid; False when it was so.

        It is kept with the ledger; cards whose balance does not change are judged in the background. Until it
        is called for the first time no card is overdrawn. Fails with MisuseError.
        """
        return self.amend(lambda amendment: amendment.set_floor(floor_minor))

    # ---- Days ----

    def close_day(self, day: Day, at_ms: int) -> Future[DayReport]:
        """Fix a day's figures; what is learnt of it later becomes adjustments. Again changes nothing.

        What is closed is what other closed days leave of it, see Day.among. Done once the history has caught
        up, which is long where a month of taps came at once.
        """
        return self._parts.closing.close(day, at_ms)

    # ---- Evidence ----

    def note_said(self, hashes: Collection[bytes]) -> Future[int]:
        """Note that a terminal says it has written the facts of these quarantined blocks again; how many.

        In the background it is found out whether they are here. Until then they may be adopted.
        """

        def work(connection: Connection) -> tuple[int, int]:
            count = quarantine.resolve(connection, hashes, SAID)
            return count, comparing.ask(connection) if count else 0

        def after(noted: tuple[int, int]) -> None:
            if noted[0]:
                self._parts.own.compare((), hashes, noted[1])

        return first(self._database.write(work, after=after))

    def adopt(self, hashes: Collection[bytes]) -> Future[int]:
        """Book the facts of these quarantined blocks that the ledger lacks as the hub's own; how many.

        An operator decides so for a terminal that is dead. Facts keep kind, amount, time and context. Again
        it books nothing. Some blocks a transaction: what was booked stays where it fails with NotPermitted
        (the hub's certificate does not allow a fact), Restored, or MisuseError for a block of a revoked
        author.
        """
        return self._parts.own.adopt(hashes)

    def flag(self, replica: ReplicaId, error: InputRefused, seq: int) -> Future[bool]:
        """Tell the operator something of an author, from its fact `seq` on; False when it was told before."""
        return self._parts.flagging.flag(replica, error, seq)

    def dismiss_flag(self, replica: ReplicaId, code: RefusalCode) -> Future[bool]:
        """Take a flag off, because somebody has seen to it; whether there was one."""
        return self._parts.flagging.dismiss(replica, code)

    def on_commit(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` after every change, on a thread of the store's, so quickly; returns how to stop.

        Changes by other processes that share the store are heard too, several of them as one.
        """
        return self._parts.listeners.add(listener)

    # ---- Within ----

    def _amended(self, amendment: Amendment) -> None:
        self._documents |= {one.name: one for one in amendment.documents if one.name in self._documents}
        for change in amendment.changes:
            self._parts.publish(change)
        if amendment.judges_anew:
            self._parts.judging.begin()
        if amendment.cuts:
            self._parts.cutting.begin()


def _documents(connection: Connection) -> dict[str, SignedDocument | None]:
    """Those of the whole fleet."""
    return {name: papers.get_document(connection, name) for name in (FLEET_DOCUMENT, REVOKED_DOCUMENT)}
