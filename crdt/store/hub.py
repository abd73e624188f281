"""A hub's ledger: blocks of all terminals in, settlements out, and the hub's own facts."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection, select

from crdt.certificate import AuthorCertificate
from crdt.digest import state_digest
from crdt.documents import SignedDocument
from crdt.errors import ForeignFleet, MisuseError, Overloaded, RefusalCode
from crdt.facts import NO_CONTEXT, Books, CardId, Context, Delta, Draft, ReplicaId, check_card
from crdt.frontier import Head
from crdt.ledger import MergeReport
from crdt.numbering import restore
from crdt.settlement import MAX_PAGE_ROWS, SERIES_BYTES, CardRow, Cursor, Page, seal_page
from crdt.signing import SigningKey, fleet_id
from crdt.store import balances, blocks, flags, overdrawn, papers, projection, quarantine
from crdt.store.admission import Prepared, prepare
from crdt.store.authors import Authors, second_certificate
from crdt.store.balances import begin_standing
from crdt.store.chore import Chore
from crdt.store.flags import Flag
from crdt.store.futures import first, then
from crdt.store.merging import Merged, merge_prepared
from crdt.store.neighbours import Neighbours, Place, place_of
from crdt.store.numbers import CardNumbers
from crdt.store.quarantine import Quarantined
from crdt.store.recording import MAX_REQUEST_CHARS, Booking, Change, Order, book
from crdt.store.schema import HUB, METADATA
from crdt.store.store import Shared, Store

__all__ = ["MAX_MERGING_BYTES", "MAX_REQUEST_CHARS", "Booking", "Change", "HubLedger", "Totals"]

MAX_MERGING_BYTES: Final = (
    64 * 1024 * 1024
)  # blocks given and not yet merged or refused, all callers together
RUN_BYTES: Final = (
    5  # of the random distance between two runs of positions: a month's merges are 2**-20 of it
)
_log = logging.getLogger(__name__)


def wall_clock_ms() -> int:
    """Unix time in milliseconds, by this machine's clock."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Totals:
    """The whole ledger in numbers, of one instant."""

    cards: int
    deltas: int
    books: Books
    position: int


class HubLedger:
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
    ) -> None:
        """Load the ledger, or begin it. `certificate`: a verified one for `key`.

        `entropy`: a new ledger's series, and how far from the last position a loaded one goes on. `now_ms`:
        the hub's clock, for people: when it learnt something.

        Raises ForeignFleet when the database belongs to another fleet, StoreFailed.
        """
        self.fleet = fleet_id(fleet_public_key)
        if certificate.fleet != self.fleet or certificate.replica != key.replica:
            raise MisuseError("a hub's certificate is for its own key and fleet")
        self._database = database
        self._key = key
        self._certificate = certificate
        self._now_ms = now_ms
        self._listeners: list[Callable[[Change], None]] = []
        self._merging_bytes = 0
        self._mutex = threading.Lock()
        self._digest: tuple[int, bytes] | None = None  # the last one computed, and its position
        database.create(METADATA)
        stored, place = database.write_and_wait(lambda connection: self._begin(connection, entropy))
        self._authors = Authors(fleet_public_key, stored)
        self._projection = projection.Projection(database, self._projected)
        self._numbers = CardNumbers()
        self._judging = Chore(
            database,
            overdrawn.judge_some,
            lambda judged: self._publish(judged.change),
            "Cards are not judged by the new rule for balances; those that ride or pay are.",
        )
        self._judging.begin()
        self._neighbours: Neighbours | None = None
        if isinstance(database, Shared):
            self._neighbours = Neighbours(database, place, self._authors, self._tell, self._projection.follow)
            database.on_others(self._neighbours.look)

    @property
    def replica(self) -> ReplicaId:
        """Who writes the hub's own facts."""
        return self._key.replica

    # ---- Facts in ----

    def merge(
        self, raw_blocks: Iterable[bytes], certificates: Iterable[AuthorCertificate] = ()
    ) -> Future[MergeReport]:
        """Take in what is new, each block on its own; durable when done. Bad input is reported, not raised.

        Verified on a reader's thread, then record, balances and heads change in one transaction with one
        position, which several merges that wait may share a commit for. Fails with Overloaded while
        MAX_MERGING_BYTES are under way.
        """
        given = tuple(raw_blocks)
        presented = tuple(certificates)
        size = sum(map(len, given))
        outcome: Future[MergeReport] = Future()
        outcome.set_running_or_notify_cancel()
        if not self._reserve(size):
            outcome.set_exception(Overloaded("The hub is merging all it can; send the blocks again later."))
            return outcome
        outcome.add_done_callback(lambda _done: self._reserve(-size))
        preparing = self._database.read(lambda found: prepare(found, self._authors, given, presented))
        preparing.add_done_callback(then(outcome, partial(self._commit, outcome)))
        return outcome

    def unshorten(self, short: bytes) -> Future[bytes]:
        """The block of a short block, as bytes for `merge`; nothing of it is verified yet.

        Fails with UnknownCardNumber (ask for the block in full), Malformed or TooLarge.
        """

        def work(connection: Connection) -> bytes:
            return restore(short, lambda numbers: self._numbers.cards(connection, numbers))

        return self._database.read(work)

    def append(
        self,
        card: CardId,
        drafts: Sequence[Draft],
        at_ms: int,
        context: Context = NO_CONTEXT,
        request: str = "",
    ) -> Future[Booking]:
        """Book facts of the hub's own on a card, sealed at once.

        `request`: at most MAX_REQUEST_CHARS made by the caller; one that has booked before books nothing. The
        future fails with NotPermitted (the hub's certificate does not allow a draft) or MisuseError.
        """
        order = Order(card, tuple(drafts), at_ms, context, request)

        def work(connection: Connection) -> tuple[Booking, Change | None]:
            order.check(self._certificate)
            return book(connection, self._key, self._certificate, order)

        return first(self._database.write(work, urgent=True, after=lambda result: self._publish(result[1])))

    def set_hotlisted(self, card: CardId, hotlisted: bool) -> Future[bool]:
        """Put a card on the hotlist, or take it off; False when it was so. Settlements carry it."""

        def work(connection: Connection) -> tuple[bool, Change | None]:
            check_card(card)
            changed = balances.set_hotlisted(connection, card, hotlisted)
            position = balances.read_standing(connection).position
            return changed, Change(position, (card,)) if changed else None

        return first(self._database.write(work, urgent=True, after=lambda result: self._publish(result[1])))

    def set_floor(self, floor_minor: int) -> Future[bool]:
        """Refuse cards with a balance below this (at most 0) until they are paid; False when it was so.

        It is kept with the ledger; cards whose balance does not change are judged in the background. Until it
        is called for the first time no card is overdrawn. Fails with MisuseError.
        """

        def after(changed: bool) -> None:
            if changed:
                self._judging.begin()

        return self._database.write(
            lambda connection: overdrawn.set_floor(connection, floor_minor), after=after
        )

    def enrol(self, certificate: AuthorCertificate) -> Future[bool]:
        """Register an author; False when it was. Fails with ForeignFleet, BadSignature or NotPermitted."""

        def work(connection: Connection) -> bool:
            self._authors.check(certificate)
            new = not blocks.authors_of(connection, [certificate.replica])
            if blocks.enrol(connection, [certificate])[1]:
                raise second_certificate()
            return new

        return self._database.write(work, after=lambda _new: self._authors.remember([certificate]))

    def put_document(self, document: SignedDocument) -> Future[bool]:
        """Keep a verified settings document; False unless it is newer than the one kept."""
        return self._database.write(lambda connection: papers.put_document(connection, document))

    # ---- Evidence ----

    def forks(self) -> Future[list[Quarantined]]:
        """Every block in quarantine, by author and number, with what became of its facts."""
        return self._database.read(quarantine.entries)

    def flags(self) -> Future[list[Flag]]:
        """What authors did that an operator should know, the newest first."""
        return self._database.read(flags.read)

    def dismiss_flag(self, replica: ReplicaId, code: RefusalCode) -> Future[bool]:
        """Take a flag off, because somebody has seen to it; whether there was one."""

        def after(dismissed: bool) -> None:
            self._publish(Change(0, (), suspects=(replica,)) if dismissed else None)

        return self._database.write(lambda connection: flags.dismiss(connection, replica, code), after=after)

    # ---- Settlements and blocks out ----

    def page(self, series: bytes, base: int, after: Cursor, limit: int = MAX_PAGE_ROWS) -> Future[Page]:
        """The signed settlement page that answers a terminal's pull: at most `limit` cards after the cursor.

        A terminal of another series, or with a position that this hub has not made (it was restored from a
        backup since), is answered with the first page of a full load.
        """
        most = min(limit, MAX_PAGE_ROWS)
        return self._database.read(lambda connection: self._page(connection, series, base, after, most))

    def blocks_after(self, replica: ReplicaId, seq: int, max_bytes: int) -> Future[list[bytes]]:
        """A replica's sealed blocks after `seq`, at most `max_bytes` together but at least one."""
        return self._database.read(
            lambda connection: blocks.blocks_after(connection, replica, seq, max_bytes)
        )

    def heads(self, replicas: Sequence[ReplicaId] | None = None) -> Future[dict[ReplicaId, Head]]:
        """The heads of these replicas' chains (of all, for None); replicas without blocks are left out."""
        return self._database.read(lambda connection: blocks.heads_of(connection, replicas))

    def authors(self) -> dict[ReplicaId, AuthorCertificate]:
        """The certificates of all enrolled authors; from memory."""
        return self._authors.stored()

    def document(self, name: str) -> Future[SignedDocument | None]:
        """The newest settings document of this name."""
        return self._database.read(lambda connection: papers.get_document(connection, name))

    # ---- For people ----

    def card(self, card: CardId) -> Future[CardRow | None]:
        """A card's sums and flag; None for one that nobody has met or listed."""
        return self._database.read(lambda connection: balances.read_card(connection, card))

    def balance(self, card: CardId) -> Future[int]:
        """A card's balance in minor units; 0 for one that nobody has met."""
        return self._database.read(
            lambda connection: balances.state_of(balances.read_card(connection, card)).balance_minor
        )

    def cards(self, after: bytes = b"", limit: int = 100) -> Future[list[CardRow]]:
        """Cards by ascending id, after `after`."""
        return self._database.read(lambda connection: balances.cards_after(connection, after, limit))

    def history(self, card: CardId, limit: int = 100) -> Future[list[Delta]]:
        """A card's facts in the order the hub learnt them, newest first; may lag behind the merges."""
        return self._database.read(lambda connection: projection.facts_about(connection, card, limit))

    def latest(self, limit: int = 50) -> Future[list[Delta]]:
        """All cards' facts in the order the hub learnt them, newest first; may lag behind the merges."""
        return self._database.read(lambda connection: projection.latest_facts(connection, limit))

    def lag(self) -> Future[int]:
        """How many blocks the history is behind."""
        return self._database.read(projection.lag)

    def rebuild(self) -> Future[None]:
        """Make the history again from the record: done when it is forgotten; it comes in the background."""
        return self._projection.rebuild()

    def totals(self) -> Future[Totals]:
        """Numbers of the whole ledger. Reads every card."""
        return self._database.read(_totals)

    def books(self) -> Future[Books]:
        """The proof that no money was made or lost. Reads every card."""
        return self._database.read(balances.read_books)

    def digest(self) -> Future[bytes]:
        """The state digest. Reads every card, unless nothing has changed since the last time."""
        return self._database.read(self._state_digest)

    def on_commit(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` after every change, on a thread of the store's, so quickly; returns how to stop.

        Changes by other processes that share the store are heard too, several of them as one.
        """
        with self._mutex:
            self._listeners = [*self._listeners, listener]

        def stop() -> None:
            with self._mutex:
                self._listeners = [other for other in self._listeners if other is not listener]

        return stop

    # ---- Within ----

    def _begin(
        self, connection: Connection, entropy: Callable[[int], bytes]
    ) -> tuple[list[AuthorCertificate], Place]:
        fleet = connection.execute(select(HUB.c.fleet)).scalar_one_or_none()
        if fleet is None:
            begin_standing(connection, self.fleet, entropy(SERIES_BYTES))
            balances.begin_run(connection, 0)
        elif fleet != self.fleet:
            raise ForeignFleet("this ledger belongs to another fleet")
        else:
            balances.begin_run(connection, int.from_bytes(entropy(RUN_BYTES), "big"))
        if blocks.enrol(connection, [self._certificate])[1]:
            raise second_certificate()
        return list(blocks.authors_of(connection).values()), place_of(connection)

    def _commit(self, outcome: Future[MergeReport], prepared: Prepared) -> None:
        at_ms = self._now_ms()

        def work(connection: Connection) -> Merged:
            return merge_prepared(connection, self._authors, prepared, at_ms)

        def after(merged: Merged) -> None:
            self._authors.remember(merged.admitted.authors)
            self._publish(merged.change)

        merging = self._database.write(work, after=after)
        merging.add_done_callback(then(outcome, lambda merged: outcome.set_result(merged.report)))

    def _page(self, connection: Connection, series: bytes, base: int, after: Cursor, limit: int) -> Page:
        answer = balances.answer_pull(connection, series, base, after, limit)
        return seal_page(
            self._key,
            self.fleet,
            answer.series,
            answer.base,
            answer.after,
            answer.until,
            answer.rows,
            answer.position,
            answer.heads,
        )

    def _state_digest(self, connection: Connection) -> bytes:
        position = balances.read_standing(connection).position
        cached = self._digest
        if cached is None or cached[0] != position:
            heads = sorted(blocks.heads_of(connection).items())
            cached = position, state_digest(heads, balances.states_by_id(connection))
            self._digest = cached
        return cached[1]

    def _reserve(self, size: int) -> bool:
        with self._mutex:
            if size > 0 and self._merging_bytes + size > MAX_MERGING_BYTES:
                return False
            self._merging_bytes += size
            return True

    def _publish(self, change: Change | None) -> None:
        if change is not None:
            if self._neighbours is not None and change.position:
                self._neighbours.own(change.position)
            self._numbers.learn(change.met)
            self._tell(change)
            if change.replicas:
                self._projection.follow()

    def _projected(self, cards: frozenset[CardId]) -> None:
        self._tell(Change(0, cards, history=True))

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:
                _log.exception("a listener of the ledger failed")


def _totals(connection: Connection) -> Totals:
    standing = balances.read_standing(connection)
    books = balances.read_books(connection)
    return Totals(balances.count_cards(connection), standing.deltas, books, standing.position)
