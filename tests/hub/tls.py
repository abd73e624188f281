"""Throw-away TLS for the hub's tests: one fleet, clients made the way terminals make them."""

import datetime
import ssl
import tempfile
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hub.authority import Authority

NOW = datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class TlsKey:
    """A client's TLS key and its certificate request."""

    key_pem: bytes
    csr_pem: str


def new_tls_key(curve: ec.EllipticCurve | None = None) -> TlsKey:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a terminal")])
    request = x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return TlsKey(pem, request.public_bytes(serialization.Encoding.PEM).decode())


def client_context(root_pem: str, key_pem: bytes = b"", certificate_pem: str = "") -> ssl.SSLContext:
    """Trusts the fleet's root and checks host names; shows a client certificate if one is given."""
    context = ssl.create_default_context(cadata=root_pem)
    if certificate_pem:
        load_chain(context, key_pem, certificate_pem)
    return context


def load_chain(context: ssl.SSLContext, key_pem: bytes, certificate_pem: str) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate_pem.encode() + key_pem)
        file.flush()
        context.load_cert_chain(file.name)


def server_context(authority: Authority) -> ssl.SSLContext:
    return authority.server_context(authority.server_certificate(["localhost"], ["127.0.0.1", "::1"]))
