"""What a terminal takes from its hub's answer: nothing that a hub of its fleet has not signed.

Every step verifies and stores, so it waits for the disk. Raises InputRefused for what is not taken; then
nothing has changed.
"""

import logging
from collections.abc import Sequence

from crdt.certificate import AuthorCertificate, Role
from crdt.documents import FLEET_DOCUMENT, TERMINAL_DOCUMENT, SignedDocument
from crdt.errors import Malformed, NotPermitted, UnknownAuthor
from crdt.facts import ReplicaId
from crdt.frames import CertificateFrame, DocumentFrame, Message
from crdt.revocations import REVOKED_DOCUMENT
from crdt.settlement import Page, parse_page, verify_page
from edge import revoked_list
from edge.exchange import Answer
from edge.revoked_list import Lost
from edge.terminal import Enrolment, Terminal, signed_by

log = logging.getLogger(__name__)


class Learning:
    """For one run under one identity; `enrolment` is what the run began with."""

    def __init__(self, terminal: Terminal, enrolment: Enrolment) -> None:
        self._terminal = terminal
        self._enrolment = enrolment
        hub = enrolment.identity.hub_certificate
        self._hubs = {hub.replica: hub}
        self.hub_lacks = False
        """Whether the terminal's document says something that the hub's, which came, does not."""

    def meet_hubs(self) -> None:
        """Remember who the hub is, for what is kept for it."""
        self._enrolment.ledger.keepsake.meet(self._hubs.values())

    def documents(self) -> dict[str, int]:
        """The version held of each document that a terminal is to have; 0 for none."""
        revoked = self._enrolment.ledger.document(REVOKED_DOCUMENT)
        now = self._now()
        return {
            FLEET_DOCUMENT: now.fares_version,
            REVOKED_DOCUMENT: 0 if revoked is None else revoked.version,
            TERMINAL_DOCUMENT: now.document.version,
        }

    def lost_by(self, answer: Answer) -> Lost | None:
        """What the hub shows to have lost of the list of revocations held here."""
        given = revoked_list.among(answer.messages)
        return revoked_list.lost(self._enrolment.ledger, answer.hello.replica, given)

    def papers_of(self, listed: SignedDocument) -> Sequence[Message]:
        """A list of revocations with its signer's certificate, as a hub may not know whose key it was."""
        return revoked_list.papers(listed, {**self._enrolment.ledger.authors(), **self._hubs})

    def hold(self, answer: Answer) -> bool:
        """Let the list of revocations in the answer hold, whatever it leaves out; whether it is newer."""
        for message in answer.messages:
            if isinstance(message, CertificateFrame):
                self._learn_hub(message.raw)
        listed = revoked_list.among(answer.messages)
        if listed is None:
            return False
        signer = self._hub(listed.signer)
        return revoked_list.keep(self._enrolment.ledger, listed.verify(signer), signer)

    def own_document(self) -> SignedDocument:
        """The terminal's document for the hub."""
        return signed_by(self._enrolment.identity, self._now().document)

    def learn(self, message: Message) -> None:
        """A hub's certificate, or a document."""
        match message:
            case CertificateFrame(raw):
                self._learn_hub(raw)
            case DocumentFrame(raw):
                self._adopt(raw)
            case _:
                raise Malformed(f"a {type(message).__name__} was not asked for")

    def page(self, raw: bytes) -> Page:
        """A settlement page, verified and not yet installed."""
        page = parse_page(raw)
        return verify_page(page, self._hub(page.signer))

    def _learn_hub(self, raw: bytes) -> None:
        identity = self._enrolment.identity
        certificate = AuthorCertificate.decode(raw).verify(identity.fleet_public_key)
        if certificate.role is not Role.HUB:
            raise NotPermitted("only a hub's certificate was asked for")
        self._enrolment.ledger.keepsake.meet([certificate])
        self._hubs[certificate.replica] = certificate

    def _adopt(self, raw: bytes) -> None:
        document = SignedDocument.decode(raw)
        document.verify(self._hub(document.signer))
        if document.name == FLEET_DOCUMENT:
            if self._terminal.adopt(document):
                log.info("fares and rules of version %d are in use", document.version)
        elif document.name == REVOKED_DOCUMENT:
            # With its signer, for a hub that was put back and does not know whose key it had then.
            if not revoked_list.forgets(self._enrolment.ledger, document):
                revoked_list.keep(self._enrolment.ledger, document, self._hub(document.signer))
        elif document.name == TERMINAL_DOCUMENT:
            self.hub_lacks = self._terminal.merge(document)
        else:
            raise NotPermitted(f"a document {document.name!r} was not asked for")

    def _now(self) -> Enrolment:
        return self._terminal.enrolment or self._enrolment

    def _hub(self, signer: ReplicaId) -> AuthorCertificate:
        certificate = self._hubs.get(signer)
        if certificate is None:
            raise UnknownAuthor("it is not signed by a hub that this terminal knows")
        return certificate
