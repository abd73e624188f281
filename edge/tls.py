"""TLS as the terminal uses it: both ways within its own fleet, and with a stranger in order to pair."""

import hashlib
import os
import ssl
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from crdt.tlsnames import TlsIdentity, tls_identity
from edge.identity import Identity

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME (OpenSSL, x509_vfy.h). A Pi that believes it is 1970 still has to reach its hub.
Chain and purpose are checked as ever; what ends a certificate early is the hub's registry, not a date."""


def client_context(identity: Identity) -> ssl.SSLContext:
    """A context for asking this fleet's hub and peers, which shows the terminal's own certificate.

    It accepts a server certificate of the fleet's root for the name that is asked for (crdt.tlsnames), so
    give one as `server_hostname`: addresses come from hints, and every terminal has a server's certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _both_ways(context, identity)


def peer_server_context(identity: Identity) -> ssl.SSLContext:
    """A context for answering this fleet's terminals: no handshake ends without a certificate of the root.

    No session resumption: a resumed session would bring a certificate nobody has looked at again.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols(["http/1.1"])
    return _both_ways(context, identity)


def caller(tls: ssl.SSLObject) -> TlsIdentity:
    """Who is at the other end, by the names in its certificate. Raises UnknownAuthor for no terminal's."""
    names = (tls.getpeercert() or {}).get("subjectAltName", ())
    return tls_identity(str(name[1]) for name in names if name[0] == "DNS")


def stranger_context(witness: Callable[[bytes], None]) -> ssl.SSLContext:
    """A context that accepts any server and hands each one's key hash (see `spki_sha256`) to `witness`, which
    may raise ssl.SSLError to end the connection. Pairing proves afterwards that the key is the right one."""

    class Witnessed(ssl.SSLObject):
        """An SSL object that tells about the peer as soon as the handshake is done."""

        def do_handshake(self) -> None:
            super().do_handshake()
            witness(spki_sha256(self.getpeercert(binary_form=True) or b""))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.sslobject_class = Witnessed
    return context


def spki_sha256(certificate_der: bytes) -> bytes:
    """SHA-256 of a certificate's SubjectPublicKeyInfo (DER), which names a TLS key.

    Raises ssl.SSLError on garbage.
    """
    try:
        key = x509.load_der_x509_certificate(certificate_der).public_key()
        info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError as error:
        raise ssl.SSLError("the server's certificate cannot be read") from error
    return hashlib.sha256(info).digest()


def _both_ways(context: ssl.SSLContext, identity: Identity) -> ssl.SSLContext:
    """Insist on certificates of the fleet's root, whatever the clock says, and show the terminal's own."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=identity.tls_root_pem)
    context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    _load_own(context, identity)
    return context


def _load_own(context: ssl.SSLContext, identity: Identity) -> None:
    """OpenSSL takes a key through Python from files only; a memory file never touches a disk."""
    descriptor = os.memfd_create("farebox-tls", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:  # noqa: PTH123  (there is no path)
            file.write(identity.tls_certificate_pem.encode("ascii") + identity.keys.tls_key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
