"""Who this terminal is: its keys and what pairing gave it. One record, in the encrypted ledger database."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from crdt.certificate import AuthorCertificate, Role
from crdt.errors import LedgerError
from crdt.facts import FleetId, ReplicaId
from crdt.signing import SEED_BYTES, SigningKey, fleet_id
from edge.errors import IdentityError

SECRET = "identity"  # noqa: S105  (the name of the record, not what is in it)


class SecretStore(Protocol):
    """Where the record is kept: crdt.store's Database, whose call waits for the disk."""

    def get_secret(self, name: str) -> bytes | None:
        """The record, or None."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The private keys: an Ed25519 seed for the ledger, a P-256 key (PKCS #8 PEM) for TLS."""

    seed: bytes = field(repr=False)
    tls_key_pem: bytes = field(repr=False)

    @property
    def signing(self) -> SigningKey:
        """The key that seals this terminal's blocks."""
        return SigningKey(self.seed)

    def certificate_request(self, name: str) -> str:
        """A PKCS #10 request for the TLS key, PEM."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateSigningRequestBuilder(subject)
        request = builder.sign(_tls_key(self.tls_key_pem), hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def new_keys(entropy: Callable[[int], bytes]) -> Keys:
    """Fresh keys; the TLS key's randomness is OpenSSL's own."""
    tls_key = ec.generate_private_key(ec.SECP256R1())
    pem = tls_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Keys(entropy(SEED_BYTES), pem)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a paired terminal is. Made only by `checked`, so that it is always consistent."""

    keys: Keys
    fleet_public_key: bytes
    certificate: AuthorCertificate
    hub_certificate: AuthorCertificate
    tls_certificate_pem: str
    tls_root_pem: str

    @property
    def fleet(self) -> FleetId:
        """The fleet it belongs to."""
        return fleet_id(self.fleet_public_key)

    @property
    def replica(self) -> ReplicaId:
        """The replica it writes as."""
        return self.certificate.replica

    def encode(self) -> bytes:
        """The record for the secret store."""
        record = {
            "seed": self.keys.seed.hex(),
            "tls_key": self.keys.tls_key_pem.decode("ascii"),
            "fleet_public_key": self.fleet_public_key.hex(),
            "certificate": self.certificate.encode().hex(),
            "hub_certificate": self.hub_certificate.encode().hex(),
            "tls_certificate": self.tls_certificate_pem,
            "tls_root": self.tls_root_pem,
        }
        return json.dumps(record).encode()


def checked(keys: Keys, given: dict[str, object]) -> Identity:
    """The identity made of our keys and what a hub gave at pairing (crdt.pairing, "sealed response").

    Raises IdentityError unless every part is there, belongs together and is signed by the fleet's key.
    """
    try:
        text = {name: _text(given, name) for name in _GIVEN}
        fleet_public_key = bytes.fromhex(text["fleet_public_key"])
        identity = Identity(
            keys,
            fleet_public_key,
            AuthorCertificate.decode(bytes.fromhex(text["certificate"])).verify(fleet_public_key),
            AuthorCertificate.decode(bytes.fromhex(text["hub_certificate"])).verify(fleet_public_key),
            text["tls_certificate"],
            text["tls_root"],
        )
        _check_roles(identity)
        _check_tls(identity)
    except (LedgerError, ValueError, TypeError) as error:
        raise IdentityError(f"The identity is not usable: {error}.") from error
    return identity


def load_identity(store: SecretStore) -> Identity | None:
    """The stored identity; None when there was no pairing yet. Raises IdentityError when it is damaged."""
    raw = store.get_secret(SECRET)
    return None if raw is None else decoded(raw)


def decoded(raw: str | bytes) -> Identity:
    """The identity in a record. Raises IdentityError when it is damaged."""
    try:
        record = json.loads(raw)
        keys = Keys(bytes.fromhex(record["seed"]), record["tls_key"].encode("ascii"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IdentityError("The stored identity cannot be read; pair the terminal again.") from error
    return checked(keys, record)


_GIVEN = ("fleet_public_key", "certificate", "hub_certificate", "tls_certificate", "tls_root")


def _text(given: dict[str, object], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise TypeError(f"{name} is missing")
    return value


def _check_roles(identity: Identity) -> None:
    if identity.certificate.role is not Role.TERMINAL or identity.hub_certificate.role is not Role.HUB:
        raise ValueError("the certificates are not a terminal's and a hub's")
    if identity.certificate.public_key != identity.keys.signing.public_key:
        raise ValueError("the certificate is for another key")


def _check_tls(identity: Identity) -> None:
    x509.load_pem_x509_certificate(identity.tls_root_pem.encode("ascii"))
    certificate = x509.load_pem_x509_certificate(identity.tls_certificate_pem.encode("ascii"))
    if certificate.public_key() != _tls_key(identity.keys.tls_key_pem).public_key():
        raise ValueError("the TLS certificate is for another key")


def _tls_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the TLS key is not an EC key")
    return key
