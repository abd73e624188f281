"""Signatures that cost nothing: what a simulated author signs is a hash of its public key and the message.

Nobody in a simulation computes such a hash for a key that is not its own, so a signature is as good as a real
one: it holds for this key and this message alone. Whatever is not one (damaged, forged, another's) goes to
the real Ed25519.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha512
from typing import Final
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from crdt import signing
from crdt.signing import SigningKey

_TAG: Final = b"simulated signature\n"


class SimulatedKey(SigningKey):
    """The key of somebody in a simulation; `simulated_signatures` lets its signatures hold."""

    def sign(self, message: bytes) -> bytes:
        """64 bytes, the same every time."""
        return _signature(self.public_key, message)


class SimulatedPublicKey:
    """As much of Ed25519PublicKey as `crdt.signing.verify` asks for."""

    def __init__(self, public_key: bytes) -> None:
        self._public_key = public_key

    @classmethod
    def from_public_bytes(cls, public_key: bytes) -> SimulatedPublicKey:
        """See Ed25519PublicKey."""
        return cls(public_key)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raise InvalidSignature or ValueError unless the signature is this key's, simulated or real."""
        if signature != _signature(self._public_key, message):
            Ed25519PublicKey.from_public_bytes(self._public_key).verify(signature, message)


@contextmanager
def simulated_signatures() -> Iterator[None]:
    """Meanwhile what a SimulatedKey signed is good."""
    with mock.patch.object(signing, "Ed25519PublicKey", SimulatedPublicKey):
        yield


def _signature(public_key: bytes, message: bytes) -> bytes:
    return sha512(_TAG + public_key + message).digest()
