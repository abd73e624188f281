"""What a terminal is among its peers: one identity with its ledger, its TLS both ways, whom it has met."""

import ssl
from dataclasses import dataclass

from crdt.facts import ReplicaId
from crdt.frontier import MAX_FRONTIER
from crdt.store.terminal import TerminalLedger
from edge.acquaintances import Acquaintances
from edge.identity import Identity
from edge.terminal import Enrolment, Terminal
from edge.tls import client_context, peer_server_context


@dataclass(frozen=True, slots=True)
class Presence:
    """Made anew for every identity; what was believed under the one before is told again."""

    identity: Identity
    ledger: TerminalLedger
    acquaintances: Acquaintances
    asking: ssl.SSLContext
    answering: ssl.SSLContext
    former: frozenset[ReplicaId]
    """Identities of this storage before this one; not those of another terminal, which may be alive."""

    @classmethod
    def of(cls, enrolment: Enrolment) -> "Presence":
        """The presence of an enrolment; reads keys and the ledger, so not for the event loop.

        Raises EdgeError, LedgerError.
        """
        identity, authors = enrolment.identity, enrolment.ledger.authors()
        own = {one for one, author in authors.items() if author.terminal == identity.certificate.terminal}
        return cls(
            identity,
            enrolment.ledger,
            Acquaintances(enrolment.ledger),
            client_context(identity),
            peer_server_context(identity),
            frozenset(own.intersection(enrolment.ledger.former(MAX_FRONTIER))),
        )


class Presences:
    """The presence of the moment. `refresh` waits for the disk."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._presence: Presence | None = None

    @property
    def now(self) -> Presence | None:
        """None while the terminal is not paired, or for the moment in which it becomes another."""
        presence, enrolment = self._presence, self._terminal.enrolment
        if presence is None or enrolment is None or presence.identity is not enrolment.identity:
            return None
        return presence

    def refresh(self) -> None:
        """Follow the terminal's identity. Raises EdgeError, LedgerError."""
        enrolment = self._terminal.enrolment
        if enrolment is not None and self.now is None:
            self._presence = Presence.of(enrolment)
