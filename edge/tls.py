"""TLS as the terminal uses it: both ways with its own fleet's hub, and with a stranger in order to pair."""

import hashlib
import os
import ssl
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.identity import Identity

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME (OpenSSL, x509_vfy.h). A Pi that believes it is 1970 still has to reach its hub.
Chain and purpose are checked as ever; what ends a certificate early is the hub's registry, not a date."""


def hub_context(identity: Identity) -> ssl.SSLContext:
    """A context that accepts only a server certificate of this fleet's root, and shows the terminal's own.

    Host names are not compared: addresses come from hints, and the root signs server certificates only for
    hubs (a terminal's certificate is for clients, and OpenSSL refuses it here).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=identity.tls_root_pem)
    context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    _load_own(context, identity)
    return context


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


def _load_own(context: ssl.SSLContext, identity: Identity) -> None:
    """OpenSSL takes a key through Python from files only; a memory file never touches a disk."""
    descriptor = os.memfd_create("farebox-tls", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:  # noqa: PTH123  (there is no path)
            file.write(identity.tls_certificate_pem.encode("ascii") + identity.keys.tls_key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
