"""The list of revoked and replaced identities as it goes from hand to hand: a hub has signed it.

Who has what a replaced terminal has written again needs the list as well, or it counts twice: so it goes
before blocks and open taps, between peers too.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from crdt.certificate import AuthorCertificate, Role
from crdt.documents import SignedDocument
from crdt.errors import NotPermitted, UnknownAuthor
from crdt.facts import ReplicaId
from crdt.frames import CertificateFrame, DocumentFrame, Message
from crdt.pull import Pull
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.store.terminal import TerminalLedger
from edge.identity import Identity

MOST_NAMED: Final = 8
"""Authors in a sentence; the hub's operator has all of them."""

log = logging.getLogger(__name__)

Paper = CertificateFrame | DocumentFrame
"""The list, or the certificate of who signed it."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A hub has lost some of the list held here."""

    held: SignedDocument
    given: SignedDocument | None
    """The hub's own, not verified; None where it gave none."""
    whom: str
    """Of whom it says less: their names."""


def version_of(ledger: TerminalLedger) -> int:
    """The version held; 0 for none."""
    document = ledger.document(REVOKED_DOCUMENT)
    return 0 if document is None else document.version


def asking(ledger: TerminalLedger) -> Pull:
    """What a peer is told of the list held here, so that it gives a newer one."""
    return Pull(documents={REVOKED_DOCUMENT: version_of(ledger)})


def named(messages: Iterable[Message]) -> int:
    """The version that whoever says this has; 0 for none."""
    pulls = (message for message in messages if isinstance(message, Pull))
    return next((pull.documents.get(REVOKED_DOCUMENT, 0) for pull in pulls), 0)


def newer_than(ledger: TerminalLedger, version: int) -> Sequence[Paper]:
    """The list held, to hand over to who has that version; nothing where it is no newer."""
    document = ledger.document(REVOKED_DOCUMENT)
    if document is None or document.version <= version:
        return []
    return papers(document, ledger.authors())


def papers(document: SignedDocument | None, known: Mapping[ReplicaId, AuthorCertificate]) -> Sequence[Paper]:
    """A list to hand over, with its signer's certificate, for who may not know whose key it was."""
    if document is None:
        return []
    signer = known.get(document.signer)
    certificates = [] if signer is None else [CertificateFrame(signer.encode())]
    return [*certificates, DocumentFrame(document.encode())]


def among(messages: Iterable[Message]) -> SignedDocument | None:
    """The first list that somebody said, not verified. Raises InputRefused when a document does not read."""
    documents = (SignedDocument.decode(one.raw) for one in messages if isinstance(one, DocumentFrame))
    return next((document for document in documents if document.name == REVOKED_DOCUMENT), None)


def lost(ledger: TerminalLedger, hub: ReplicaId, given: SignedDocument | None) -> Lost | None:
    """What a hub has lost of the list held here, by the one `given` to a question that named its version.

    One that goes by another key was put back: where it gives no list it has none, or another of this number.
    One that gives an older list was too, and does not know it. Raises InputRefused when a list does not read.
    """
    held = ledger.document(REVOKED_DOCUMENT)
    if held is None or given == held or (given is None and held.signer == hub):
        return None
    if given is not None and given.version > held.version and not forgets(ledger, given):
        return None
    return Lost(held, given, _whom(ledger, held, given))


def forgets(ledger: TerminalLedger, document: SignedDocument) -> bool:
    """Whether a list of another hub key leaves out something of the one held here: a hub that was put back
    signed it, and has lost that. Raises InputRefused when it does not read."""
    held = ledger.document(REVOKED_DOCUMENT)
    if held is None or held.signer == document.signer:
        return False
    return bool(Revocations.decode(document.body).lacking(Revocations.decode(held.body)))


def keep(ledger: TerminalLedger, document: SignedDocument, signer: AuthorCertificate) -> bool:
    """Keep a verified list and its signer, and count by it at once, whatever it leaves out; False when there
    is one as new."""
    held = ledger.document(REVOKED_DOCUMENT)
    ledger.merge([], [signer])
    newer = ledger.put_document(document)
    if newer:
        tell_kept(ledger, document, held)
    return newer


def tell_kept(ledger: TerminalLedger, document: SignedDocument, before: SignedDocument | None) -> None:
    """Say in the log that a list holds now, and of whom more counts by it than by the one before."""
    log.info("the list of revoked terminals has version %d", document.version)
    whom = "" if before is None else _whom(ledger, before, document)
    if whom:
        log.warning("by the new list of revoked terminals more counts again of %s", whom)


def meet(identity: Identity, ledger: TerminalLedger, messages: Sequence[Message]) -> SignedDocument | None:
    """The list among the papers of a hub, verified and not kept yet; its signer is. None where there is none,
    or it is not to replace the one held. Raises InputRefused."""
    document = among(messages)
    if document is None or document.version <= version_of(ledger):
        return None
    presented = [AuthorCertificate.decode(one.raw) for one in messages if isinstance(one, CertificateFrame)]
    signer = _signer(identity, ledger, document, presented)
    if signer is None:
        return None
    ledger.merge([], [signer])
    return document


def learn(identity: Identity, ledger: TerminalLedger, messages: Sequence[Message]) -> None:
    """Keep the list that is among the papers of a hub, where there is one. Raises InputRefused."""
    certificates = [message.raw for message in messages if isinstance(message, CertificateFrame)]
    documents = [message.raw for message in messages if isinstance(message, DocumentFrame)]
    for raw in documents:
        if SignedDocument.decode(raw).name == REVOKED_DOCUMENT:
            take(identity, ledger, raw, map(AuthorCertificate.decode, certificates))


def take(
    identity: Identity, ledger: TerminalLedger, raw: bytes, presented: Iterable[AuthorCertificate]
) -> bool:
    """Verify a list that somebody brought, and keep it; whether it is newer. Raises InputRefused.

    A hub that was put back has forgotten whom it had ended since, and hears of it by the list held here: so
    the list of another hub key replaces it only where it says all of that; or says that this terminal itself
    was revoked, for to such a one the hub does not listen.
    """
    document = SignedDocument.decode(raw)
    if document.name != REVOKED_DOCUMENT:
        raise NotPermitted(f"a document {document.name!r} was not asked for")
    signer = _signer(identity, ledger, document, presented)
    return signer is not None and keep(ledger, document, signer)


def _signer(
    identity: Identity,
    ledger: TerminalLedger,
    document: SignedDocument,
    presented: Iterable[AuthorCertificate],
) -> AuthorCertificate | None:
    """Verify a list; the hub that signed it, None where it is not to replace the one held: see `take`."""
    hubs = [identity.hub_certificate, *ledger.authors().values(), *presented]
    signer = next((one for one in hubs if one.replica == document.signer and one.role is Role.HUB), None)
    if signer is None:
        raise UnknownAuthor("it is not signed by a hub that this terminal knows")
    document.verify(signer.verify(identity.fleet_public_key))
    if identity.replica not in Revocations.decode(document.body).revoked and forgets(ledger, document):
        return None
    return signer


def _whom(ledger: TerminalLedger, held: SignedDocument, other: SignedDocument | None) -> str:
    """The names of those of whom another list says less than the one held; "" for nobody."""
    ends = NONE_REVOKED if other is None else Revocations.decode(other.body)
    authors = ledger.authors()
    lacking = ends.lacking(Revocations.decode(held.body))
    names = sorted({authors[one].name if one in authors else one.hex() for one in lacking})
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return ", ".join([*names[:MOST_NAMED], *more])
