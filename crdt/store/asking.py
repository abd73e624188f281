"""What a hub's ledger can be asked: each answer from one snapshot of everything committed before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate
from crdt.cursor import Cursor
from crdt.digest import state_digest
from crdt.documents import SignedDocument
from crdt.facts import Books, CardId, Delta, FleetId, ReplicaId
from crdt.frontier import Frontier, Head
from crdt.protocol import MAX_PAGE_ROWS
from crdt.settlement import CardRow, Page, seal_page
from crdt.signing import SigningKey
from crdt.store import balances, blocks, cutting, days, flags, overdrawn, paging, papers, projection
from crdt.store.authors import Authors
from crdt.store.completeness import AuthorsDay, day_of
from crdt.store.days import Day, DayReport
from crdt.store.editions import Editions, Installed, PagePull
from crdt.store.flags import Flag
from crdt.store.futures import done
from crdt.store.silent import Silent, silent
from crdt.store.store import Store
from crdt.store.waiting import Waiting, waiting


@dataclass(frozen=True, slots=True)
class Totals:
    """The whole ledger in numbers, of one instant."""

    cards: int
    deltas: int
    books: Books
    position: int


class LedgerReader:
    """The questions. Every answer is a future, which fails with Overloaded or StoreFailed."""

    def __init__(
        self, database: Store, fleet: FleetId, key: SigningKey, authors: Authors, now_ms: Callable[[], int]
    ) -> None:
        """`key`: the hub's, which signs settlements. `now_ms`: the hub's clock."""
        self.fleet = fleet
        self._database = database
        self._key = key
        self._authors = authors
        self._now_ms = now_ms
        self._editions: Editions | None = None  # of a hub that serves a fleet
        self._documents: dict[str, SignedDocument | None] = {}  # where no other process puts any
        self._digest: tuple[int, bytes] | None = None  # the last one computed, and its position

    @property
    def replica(self) -> ReplicaId:
        """Who writes the hub's own facts."""
        return self._key.replica

    # ---- Settlements and blocks out ----

    def page(self, series: bytes, base: int, after: Cursor, limit: int = MAX_PAGE_ROWS) -> Future[Page]:
        """The signed settlement page that answers a terminal's pull: up to `limit` cards and heads each.

        A terminal of another series, or with a position that this hub has not made (it was restored from a
        backup since), is answered with the first page of a full load. In a large fleet a page may be some
        seconds old, see `editions.py`.
        """
        pull = PagePull(series, base, after, limit)
        known = None if self._editions is None else self._editions.known(_bounded(pull))
        return self._database.read(self._paging(pull)) if known is None else done(known)

    def installed(self, position: int) -> Installed | None:
        """What a terminal knows that has installed the settlement of this position; None where it is too old
        to tell."""
        return None if self._editions is None else self._editions.installed(position)

    def blocks_after(self, replica: ReplicaId, seq: int, max_bytes: int) -> Future[list[bytes]]:
        """A replica's sealed blocks after `seq` that count, at most `max_bytes` together but at least one."""
        return self._database.read(
            lambda connection: cutting.counted_after(connection, replica, seq, max_bytes)
        )

    def are_being_cut(self, replicas: Collection[ReplicaId]) -> Future[bool]:
        """Whether a revocation still has to take facts out of one of these chains."""
        return self._database.read(lambda connection: bool(cutting.among(connection, replicas)))

    def heads(self, replicas: Sequence[ReplicaId] | None = None) -> Future[dict[ReplicaId, Head]]:
        """The heads of these replicas' chains (of all, for None); replicas without blocks are left out.

        `authors` has all of them from then on, whichever process enrolled them.
        """

        def work(connection: Connection) -> dict[ReplicaId, Head]:
            heads = blocks.heads_of(connection, replicas)
            self._authors.learn(connection, heads)
            return heads

        return self._database.read(work)

    def denied(self, named: Frontier) -> Future[list[ReplicaId]]:
        """Those of these heads, all behind the ledger's, at which no block of its chain ends: of a branch."""

        def work(connection: Connection) -> list[ReplicaId]:
            return [replica for replica, head in named.items() if not _ends_at(connection, replica, head)]

        return self._database.read(work)

    def authors(self) -> Mapping[ReplicaId, AuthorCertificate]:
        """The certificates of all enrolled authors, as of now; from memory, at no cost."""
        return self._authors.stored()

    def document(self, name: str) -> Future[SignedDocument | None]:
        """The newest settings document of this name."""
        if name in self._documents:
            return done(self._documents[name])
        return self._database.read(lambda connection: papers.get_document(connection, name))

    def document_version(self, name: str) -> Future[int]:
        """Its version; 0 for none. Dear is only the document itself, where other processes put some too."""
        if name in self._documents:
            document = self._documents[name]
            return done(0 if document is None else document.version)
        return self._database.read(lambda connection: papers.document_version(connection, name))

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

    def overdrawn(self) -> Future[int]:
        """How many cards are refused because they owe more than the rules let them. Reads every card."""
        return self._database.read(overdrawn.count)

    def history(self, card: CardId, limit: int = 100) -> Future[list[Delta]]:
        """A card's facts in the order the hub learnt them, newest first; may lag behind the merges."""
        return self._database.read(lambda connection: projection.facts_about(connection, card, limit))

    def latest(self, limit: int = 50) -> Future[list[Delta]]:
        """All cards' facts in the order the hub learnt them, newest first; may lag behind the merges."""
        return self._database.read(lambda connection: projection.latest_facts(connection, limit))

    def lag(self) -> Future[int]:
        """How many blocks the history is behind."""
        return self._database.read(projection.lag)

    def totals(self) -> Future[Totals]:
        """Numbers of the whole ledger. Reads every card."""
        return self._database.read(_totals)

    def books(self) -> Future[Books]:
        """The proof that no money was made or lost. Reads every card."""
        return self._database.read(balances.read_books)

    def digest(self) -> Future[bytes]:
        """The state digest. Reads every card, unless nothing has changed since the last time."""
        return self._database.read(self._state_digest)

    # ---- Evidence, and what is missing ----

    def waiting(self) -> Future[list[Waiting]]:
        """Facts that are known to exist and are not here, by author."""
        return self._database.read(lambda connection: waiting(connection, papers.revocations(connection)))

    def silent(self) -> Future[list[Silent]]:
        """Former identities of which nobody can tell what they wrote last."""
        return self._database.read(
            lambda connection: silent(connection, self.authors(), papers.revocations(connection))
        )

    def flags(self) -> Future[list[Flag]]:
        """What authors did that an operator should know, the newest first."""
        return self._database.read(flags.read)

    # ---- Days ----

    def day_of(self, replicas: Sequence[ReplicaId], day: Day) -> Future[AuthorsDay]:
        """What is here of a day, and whether it is all, of a bus with these identities, in their order."""

        def work(connection: Connection) -> AuthorsDay:
            return day_of(connection, replicas, day, papers.revocations(connection), self._now_ms())

        return self._database.read(work)

    def report(self, day: Day) -> Future[DayReport]:
        """A day's figures by author: as it was closed and what was learnt since; or, while open, so far."""
        return self._database.read(lambda connection: days.report(connection, day))

    # ---- Within ----

    def _paging(self, pull: PagePull) -> Callable[[Connection], Page]:
        """What answers a pull."""
        bounded, editions = _bounded(pull), self._editions
        if editions is None:
            return lambda connection: self._seal(paging.answer_pull(connection, *bounded))
        known = editions.known(bounded)
        if known is not None:
            return lambda _connection: known
        return lambda connection: editions.page(connection, bounded)

    def _seal(self, answer: paging.Answer) -> Page:
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
            final=answer.final,
        )

    def _state_digest(self, connection: Connection) -> bytes:
        position = balances.read_standing(connection).position
        cached = self._digest
        if cached is None or cached[0] != position:
            heads = sorted(blocks.heads_of(connection).items())
            cached = position, state_digest(heads, balances.states_by_id(connection))
            self._digest = cached
        return cached[1]


def _bounded(pull: PagePull) -> PagePull:
    """Of no more rows than a page may have."""
    return pull._replace(limit=min(pull.limit, MAX_PAGE_ROWS))


def _totals(connection: Connection) -> Totals:
    standing = balances.read_standing(connection)
    books = balances.read_books(connection)
    return Totals(balances.count_cards(connection), standing.deltas, books, standing.position)


def _ends_at(connection: Connection, replica: ReplicaId, head: Head) -> bool:
    """Whether a stored block is the end of this head."""
    spans = blocks.overlapping(connection, replica, head.seq, head.seq)
    return any((span.last_seq, span.hash) == head for span in spans)
