"""A fleet for tests: its keys, its TLS root, a hub's server certificate and any number of terminals.

The real hub is another package; what the terminal must accept is written down here a second time on purpose.
"""

import datetime
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crdt.certificate import AuthorCertificate, Limits, Role, issue
from crdt.facts import CERTIFIED, MAX_AMOUNT_MINOR, FleetId, Kind, ReplicaId, TerminalId
from crdt.signing import SigningKey, fleet_id
from crdt.tlsnames import HUB_TLS_NAME, replica_tls_name, terminal_tls_name
from edge.identity import Identity, Keys, checked, new_keys

LONG_AGO = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
LONG_AHEAD = datetime.datetime(2099, 12, 31, tzinfo=datetime.UTC)
TERMINAL_LIMITS = Limits(frozenset({Kind.FARE, Kind.OPENING}), 2_000, 10_000)
HUB_LIMITS = Limits(CERTIFIED, MAX_AMOUNT_MINOR, MAX_AMOUNT_MINOR)


@dataclass
class Fleet:
    """One fleet with one hub. `number` makes its keys differ from another test fleet's."""

    number: int = 1
    root_key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    hub_tls_key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        self.key = SigningKey(bytes([self.number]) * 32)
        self.hub_key = SigningKey(bytes([self.number + 100]) * 32)
        self.hub_certificate = issue(
            self.key, TerminalId(b"H" * 16), "hub", Role.HUB, self.hub_key.public_key, HUB_LIMITS
        )

    @property
    def id(self) -> FleetId:
        return fleet_id(self.key.public_key)

    @property
    def root_pem(self) -> str:
        name = _name("fleet root")
        builder = x509.CertificateBuilder(name, name, self.root_key.public_key(), 1, LONG_AGO, LONG_AHEAD)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return _pem(builder.sign(self.root_key, hashes.SHA256()))

    def tls_certificate(
        self,
        key: ec.EllipticCurvePublicKey,
        names: Sequence[str],
        purposes: Sequence[x509.ObjectIdentifier],
        until: datetime.datetime = LONG_AHEAD,
    ) -> str:
        """A certificate of the fleet's root for `key`, PEM."""
        serial = x509.random_serial_number()
        builder = x509.CertificateBuilder(_name("fleet root"), _name("x"), key, serial, LONG_AGO, until)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        subjects = [x509.DNSName(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(subjects), critical=False)
        return _pem(builder.sign(self.root_key, hashes.SHA256()))

    def hub_tls_certificate(self, until: datetime.datetime = LONG_AHEAD) -> str:
        """The hub's TLS certificate, PEM."""
        key = self.hub_tls_key.public_key()
        return self.tls_certificate(key, [HUB_TLS_NAME], [ExtendedKeyUsageOID.SERVER_AUTH], until)

    def terminal_tls_certificate(
        self, key: ec.EllipticCurvePublicKey, terminal: TerminalId, replica: ReplicaId
    ) -> str:
        """A terminal's TLS certificate, PEM: for answering peers too."""
        names = [terminal_tls_name(terminal), replica_tls_name(replica)]
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        return self.tls_certificate(key, names, purposes)

    def given(
        self,
        keys: Keys,
        *,
        name: str = "Bus 12 front",
        role: Role = Role.TERMINAL,
        terminal: TerminalId | None = None,
        limits: Limits = TERMINAL_LIMITS,
    ) -> dict[str, object]:
        """What the hub's sealed response holds for these keys. `terminal`: of one that had an identity."""
        terminal = terminal or TerminalId(keys.signing.replica)
        public_key = keys.signing.public_key
        certificate = issue(self.key, terminal, name, role, public_key, limits)
        tls_key = serialization.load_pem_private_key(keys.tls_key_pem, None)
        assert isinstance(tls_key, ec.EllipticCurvePrivateKey)
        return {
            "fleet_public_key": self.key.public_key.hex(),
            "certificate": certificate.encode().hex(),
            "hub_certificate": self.hub_certificate.encode().hex(),
            "tls_certificate": self.terminal_tls_certificate(
                tls_key.public_key(), terminal, certificate.replica
            ),
            "tls_root": self.root_pem,
        }

    def enrol(
        self,
        keys: Keys | None = None,
        name: str = "Bus 12 front",
        terminal: TerminalId | None = None,
        limits: Limits = TERMINAL_LIMITS,
    ) -> Identity:
        """A terminal's identity, as pairing would make it."""
        keys = keys or new_keys(os.urandom)
        return checked(keys, self.given(keys, name=name, terminal=terminal, limits=limits))

    def server_context(self, tmp_path: Path, *, expired: bool = False) -> ssl.SSLContext:
        """The hub's TLS: its own certificate, and client certificates of the fleet's root asked for."""
        until = LONG_AGO + datetime.timedelta(days=1) if expired else LONG_AHEAD
        certificate = self.hub_tls_certificate(until)
        return server_context(tmp_path, certificate, key_pem(self.hub_tls_key), self.root_pem)

    def certificates(self) -> dict[bytes, AuthorCertificate]:
        return {self.hub_certificate.replica: self.hub_certificate}


def server_context(tmp_path: Path, certificate: str, key: bytes, root: str) -> ssl.SSLContext:
    """TLS for a server with this certificate and key."""
    chain = tmp_path / f"{os.urandom(4).hex()}.pem"
    chain.write_bytes(certificate.encode() + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.load_verify_locations(cadata=root)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    return context


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
