"""What a hub decides on who may write and what everybody is told: authors and documents, in one transaction.

Such a decision follows from what is held: where a chain ends, what an identity has given, the list so far. So
it is read and written in one write transaction, which nobody else's comes between, in this process or
another that shares the database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate
from crdt.documents import SignedDocument
from crdt.facts import ReplicaId
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store import blocks, overdrawn, papers
from crdt.store.authors import Authors, second_certificate
from crdt.store.futures import first
from crdt.store.recording import Change
from crdt.store.revoking import apply_revocations
from crdt.store.store import Store

T = TypeVar("T")


class Amendment:
    """One such transaction, while it lasts. `connection`: to read in it, and for the caller's own tables.

    `enrolled`, `documents`, `changes`, `judges_anew` and `cuts` say afterwards what has to be told.
    """

    def __init__(self, connection: Connection, authors: Authors, at_ms: int) -> None:
        """`at_ms`: the hub's clock."""
        self.connection = connection
        self.enrolled: list[AuthorCertificate] = []
        self.documents: list[SignedDocument] = []
        self.changes: list[Change] = []
        self.judges_anew = False
        self.cuts = False  # whether more has to leave the record
        self._authors = authors
        self._at_ms = at_ms

    def authors(self) -> Mapping[ReplicaId, AuthorCertificate]:
        """Who may write, with those that this transaction has enrolled."""
        return self._authors.every(self.connection)

    def enrol(self, certificate: AuthorCertificate) -> bool:
        """Register an author; False when it was. Raises ForeignFleet, BadSignature or NotPermitted."""
        self._authors.check(certificate)
        new = not blocks.authors_of(self.connection, [certificate.replica])
        if blocks.enrol(self.connection, [certificate])[1]:
            raise second_certificate()
        self.enrolled.append(certificate)
        return new

    def document(self, name: str) -> SignedDocument | None:
        """The settings document kept under this name."""
        return papers.get_document(self.connection, name)

    def put_document(self, document: SignedDocument) -> bool:
        """Keep a verified settings document; False unless it is newer than the one kept.

        The list of revoked authors applies at once: nothing they wrote beyond their cut-offs comes in any
        more, and what an older list had put into quarantine comes back. What is here of it leaves record and
        balances for the quarantine, where it is much in the background (see `cutting`). Raises Malformed or
        TooLarge when that list does not read.
        """
        is_list = document.name == REVOKED_DOCUMENT
        revocations = Revocations.decode(document.body) if is_list else None
        new = papers.put_document(self.connection, document)
        if new:
            self.documents.append(document)
        if new and revocations is not None:
            applied = apply_revocations(self.connection, self._authors, revocations, self._at_ms)
            self.changes += applied.changes
            self.cuts |= applied.more
        return new

    def set_floor(self, floor_minor: int) -> bool:
        """See `HubLedger.set_floor`. Raises MisuseError."""
        changed = overdrawn.set_floor(self.connection, floor_minor)
        self.judges_anew |= changed
        return changed


class Amending:
    """Runs them, one after the other."""

    def __init__(
        self,
        database: Store,
        authors: Authors,
        now_ms: Callable[[], int],
        amended: Callable[[Amendment], None],
    ) -> None:
        """`amended` hears what each was, on the writer's thread, once it is durable."""
        self._database = database
        self._authors = authors
        self._now_ms = now_ms
        self._amended = amended

    def amend(self, work: Callable[[Amendment], T], after: Callable[[], None] | None) -> Future[T]:
        """See HubLedger.amend."""
        at_ms = self._now_ms()

        def amending(connection: Connection) -> tuple[T, Amendment]:
            amendment = Amendment(connection, self._authors, at_ms)
            return work(amendment), amendment

        def durable(result: tuple[T, Amendment]) -> None:
            if after is not None:
                after()
            self._authors.remember(result[1].enrolled)
            self._amended(result[1])

        return first(self._database.write(amending, after=durable))
