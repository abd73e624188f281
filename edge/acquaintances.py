"""What is believed of peers beyond the record: their open taps, as each tells of itself. In memory only.

A peer's open taps count in what this terminal believes of cards, so that two doors of one bus agree at once.
They are told again with every tap, and end as blocks. A terminal that has become another replica has written
its open taps again as that one: what it told before is forgotten as soon as it is met under the new name.
"""

import threading
from collections.abc import Sequence

from crdt.certificate import AuthorCertificate, Role
from crdt.errors import NotPermitted, Revoked, UnknownAuthor
from crdt.facts import ReplicaId, TerminalId
from crdt.open_segment import OpenSegment
from crdt.store.terminal import TerminalLedger

MAX_MET = 64
"""Terminals whose open taps are kept at a time: more than one bus has doors."""


class Acquaintances:
    """The peers of one ledger, each met over TLS that has proven its replica. For any thread; may wait."""

    def __init__(self, ledger: TerminalLedger) -> None:
        self._ledger = ledger
        self._mutex = threading.Lock()
        self._replicas: dict[TerminalId, ReplicaId] = {}
        self._authors: dict[ReplicaId, AuthorCertificate] = {}

    def meet(self, replica: ReplicaId, presented: Sequence[AuthorCertificate] = ()) -> AuthorCertificate:
        """A peer's verified author certificate; `presented`: certificates that came with it.

        Raises UnknownAuthor, NotPermitted for a hub's, and Revoked.
        """
        with self._mutex:
            author = self._authors.get(replica) or self._author(replica, presented)
            if replica in self._ledger.revocations().cut_offs:
                self._ledger.forget(replica)
                raise Revoked("the terminal was revoked")
            if self._replicas.get(author.terminal) != replica:
                self._make_room(author.terminal)
                self._replicas[author.terminal] = replica
                self._authors[replica] = author
            return author

    def believe(self, replica: ReplicaId, segment: OpenSegment) -> bool:
        """Count the open taps of a peer that was met; False when blocks before them are missing here.

        Raises InputRefused for what cannot be; then nothing has changed.
        """
        with self._mutex:
            if replica not in self._authors:
                raise NotPermitted("the terminal has another identity by now")
            return self._ledger.believe(replica, segment)

    def _author(self, replica: ReplicaId, presented: Sequence[AuthorCertificate]) -> AuthorCertificate:
        own = [certificate for certificate in presented if certificate.replica == replica]
        if own:
            self._ledger.merge((), own)
        author = self._ledger.authors().get(replica)
        if author is None:
            raise UnknownAuthor("the terminal has not shown its author's certificate")
        if author.role is not Role.TERMINAL:
            raise NotPermitted("only a terminal is a peer")
        return author

    def _make_room(self, terminal: TerminalId) -> None:
        """Forget what this terminal told under another name; or whoever was met first, when all are taken."""
        if terminal not in self._replicas and len(self._replicas) < MAX_MET:
            return
        leaving = terminal if terminal in self._replicas else next(iter(self._replicas))
        replica = self._replicas.pop(leaving)
        del self._authors[replica]
        self._ledger.forget(replica)
