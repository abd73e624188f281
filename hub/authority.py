"""The fleet's authority: who may speak in the fleet's name, in ledgers and on the wire.

Two trees, both rooted here and both kept in the encrypted database:

- the fleet key (Ed25519) signs author certificates, which travel with blocks;
- the TLS root (X.509, ECDSA P-256, because browsers refuse Ed25519) signs the hub's server certificate and
  the terminals' certificates. Those are good for servers too, as terminals answer each other; so who is who
  lies in the names (crdt.tlsnames), and everybody insists on the one it expects.

A Pi may believe it is 1970, so all certificates are valid from then on and for long, a terminal's too: there
is no renewal that a bus could miss. What ends a certificate is the registry, which is asked on every request.
"""

import datetime
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crdt.certificate import AuthorCertificate, Limits, Role, issue
from crdt.facts import CERTIFIED, MAX_AMOUNT_MINOR, FleetId, ReplicaId, TerminalId
from crdt.signing import SEED_BYTES, SigningKey, fleet_id
from crdt.tlsnames import HUB_TLS_NAME, replica_tls_name, terminal_tls_name
from hub.errors import RequestRefused

HUB_NAME = "hub"
# Of every certificate. Revocation ends one, and no date: a date would silence a whole depot on one day.
LONG_FROM = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
LONG_UNTIL = datetime.datetime(2099, 12, 31, tzinfo=datetime.UTC)
MAX_CSR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Secrets:
    """The hub's private keys as stored: seeds and keys in bytes (EC keys as PKCS #8 PEM, the root as PEM)."""

    fleet_key: bytes
    ledger_key: bytes
    tls_root_key: bytes
    tls_root_certificate: bytes
    tls_hub_key: bytes
    cookie_key: bytes


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A terminal's TLS certificate; `serial` (hex) is what the registry knows it by."""

    pem: str
    serial: str


def new_secrets() -> Secrets:
    """The keys of a new fleet, from the system's randomness."""
    fleet_seed = os.urandom(SEED_BYTES)
    root_key = ec.generate_private_key(ec.SECP256R1())
    fleet = fleet_id(SigningKey(fleet_seed).public_key)
    return Secrets(
        fleet_key=fleet_seed,
        ledger_key=os.urandom(SEED_BYTES),
        tls_root_key=_key_pem(root_key),
        tls_root_certificate=_pem(_root(root_key, fleet)),
        tls_hub_key=_key_pem(ec.generate_private_key(ec.SECP256R1())),
        cookie_key=os.urandom(32),
    )


class Authority:
    """Signs certificates with the fleet's keys."""

    def __init__(self, secrets: Secrets) -> None:
        self.fleet_key = SigningKey(secrets.fleet_key)
        self.ledger_key = SigningKey(secrets.ledger_key)
        self.fleet: FleetId = fleet_id(self.fleet_key.public_key)
        self.root_pem = secrets.tls_root_certificate.decode("ascii")
        self._root = x509.load_pem_x509_certificate(secrets.tls_root_certificate)
        self._root_key = _load_ec(secrets.tls_root_key)
        self._hub_key = _load_ec(secrets.tls_hub_key)

    @property
    def hub_spki_sha256(self) -> bytes:
        """SHA-256 of the TLS key's SubjectPublicKeyInfo (DER), to which pairing binds the code."""
        info = self._hub_key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(info).digest()

    @property
    def hub_certificate(self) -> AuthorCertificate:
        """The hub's own author certificate: it may book anything. The same each time it is made."""
        limits = Limits(CERTIFIED, MAX_AMOUNT_MINOR, MAX_AMOUNT_MINOR)
        terminal = TerminalId(self.ledger_key.replica)
        return issue(self.fleet_key, terminal, HUB_NAME, Role.HUB, self.ledger_key.public_key, limits)

    def terminal_certificate(
        self, terminal: TerminalId, name: str, public_key: bytes, limits: Limits
    ) -> AuthorCertificate:
        """A terminal's author certificate. The caller has checked name and key."""
        return issue(self.fleet_key, terminal, name, Role.TERMINAL, public_key, limits)

    def client_certificate(self, csr_pem: str, terminal: TerminalId, replica: ReplicaId) -> ClientCertificate:
        """A terminal's TLS certificate under this identity; RequestRefused unless the request is sound."""
        public_key = _requested_key(csr_pem)
        builder = _certificate(public_key, terminal.hex(), self._root.subject)
        names = [x509.DNSName(terminal_tls_name(terminal)), x509.DNSName(replica_tls_name(replica))]
        certificate = self._signed(
            builder, names, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
        )
        return ClientCertificate(_pem(certificate).decode("ascii"), _serial_text(certificate.serial_number))

    def server_certificate(self, names: Iterable[str], addresses: Iterable[str]) -> bytes:
        """The hub's TLS certificate for these host names and IP addresses, PEM."""
        subjects: list[x509.GeneralName] = [x509.DNSName(name) for name in (HUB_TLS_NAME, *names)]
        subjects += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        builder = _certificate(self._hub_key.public_key(), "Farebox hub", self._root.subject)
        return _pem(self._signed(builder, subjects, ExtendedKeyUsageOID.SERVER_AUTH))

    def server_context(self, certificate_pem: bytes) -> ssl.SSLContext:
        """TLS for the HTTPS server: client certificates asked for, and checked against the fleet's root.

        No session resumption: a resumed session would bring a certificate nobody has looked at again.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.root_pem)
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        context.set_alpn_protocols(["http/1.1"])
        self.load_server_certificate(context, certificate_pem)
        return context

    def load_server_certificate(self, context: ssl.SSLContext, certificate_pem: bytes) -> None:
        """Put the hub's certificate and key into a TLS context, for the connections from now on."""
        # OpenSSL reads a key through Python from files only; a memory file never touches a disk.
        descriptor = os.memfd_create("farebox-tls", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, certificate_pem + _key_pem(self._hub_key))
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def _signed(
        self,
        builder: x509.CertificateBuilder,
        names: Iterable[x509.GeneralName],
        *purposes: x509.ObjectIdentifier,
    ) -> x509.Certificate:
        """The certificate of the fleet's TLS root for these names and uses."""
        builder = builder.not_valid_before(LONG_FROM).not_valid_after(LONG_UNTIL)
        builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        # RFC 5280 wants it, and Python 3.13 and later clients insist.
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._root_key.public_key())
        return builder.add_extension(issuer, critical=False).sign(self._root_key, hashes.SHA256())


def serial_of(certificate_der: bytes) -> str:
    """The serial number of a certificate that TLS has already checked."""
    return _serial_text(x509.load_der_x509_certificate(certificate_der).serial_number)


def _serial_text(serial: int) -> str:
    """A certificate's serial number as the registry keeps it."""
    return f"{serial:040x}"


def _requested_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    refusal = RequestRefused(
        "csr", "The certificate request must be a signed PKCS #10 request for a P-256 key."
    )
    if len(csr_pem) > MAX_CSR_BYTES:
        raise refusal
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key()
        sound = request.is_signature_valid
    except (ValueError, TypeError, InvalidSignature):
        raise refusal from None
    if not sound or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise refusal
    return key


def _certificate(
    public_key: ec.EllipticCurvePublicKey, common_name: str, issuer: x509.Name
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]),
        public_key=public_key,
        serial_number=x509.random_serial_number(),
    )


def _root(key: ec.EllipticCurvePrivateKey, fleet: FleetId) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Farebox fleet {fleet.hex()}")])
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=LONG_FROM,
        not_valid_after=LONG_UNTIL,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(identifier, critical=False).sign(key, hashes.SHA256())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _load_ec(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("a TLS key of the fleet is not an EC key")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
