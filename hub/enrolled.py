"""What a terminal gets when it is paired, or takes a new identity: the same papers either way."""

from collections.abc import Sequence
from dataclasses import dataclass

from crdt.certificate import AuthorCertificate
from crdt.errors import InputRefused
from crdt.facts import ReplicaId, TerminalId
from crdt.signing import PUBLIC_KEY_BYTES
from hub.authority import Authority, ClientCertificate
from hub.errors import RequestRefused


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A terminal's certificates, for the ledger and for TLS."""

    terminal: TerminalId
    author: AuthorCertificate
    client: ClientCertificate
    former: Sequence[ReplicaId] = ()
    """Who may have had its storage, where it was restored: with each it is to compare what it holds."""

    def answer(self, authority: Authority) -> dict[str, str]:
        """All that the terminal is sent: hex, and PEM for TLS."""
        return {
            "fleet_public_key": authority.fleet_key.public_key.hex(),
            "certificate": self.author.encode().hex(),
            "hub_certificate": authority.hub_certificate.encode().hex(),
            "tls_certificate": self.client.pem,
            "tls_root": authority.root_pem,
            "former": " ".join(each.hex() for each in self.former),
        }


def forgotten_in(text: object, field: str = "forgotten") -> AuthorCertificate | None:
    """The certificate, in hex, of an identity that this hub may have forgotten; None for none.

    RequestRefused where what this field of the request says is no certificate.
    """
    if not text:
        return None
    try:
        return AuthorCertificate.decode(bytes.fromhex(str(text)))
    except (ValueError, InputRefused) as error:
        raise not_forgotten(field) from error


def not_forgotten(field: str = "forgotten") -> RequestRefused:
    """The refusal of what is no certificate of an identity that the terminal had, or was promised."""
    return RequestRefused(
        field, f"`{field}` is a certificate of the same terminal, or of one paired with its storage, in hex."
    )


def public_key_of(text: object) -> bytes:
    """The author's key that a request brings; RequestRefused unless it is one in hex."""
    try:
        key = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        key = b""
    if len(key) != PUBLIC_KEY_BYTES:
        raise RequestRefused("public_key", "The request needs a public key of 64 hex digits.")
    return key
