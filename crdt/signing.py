"""Ed25519 keys (RFC 8032) and the ids derived from them."""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from crdt.errors import MisuseError
from crdt.facts import ID_BYTES, FleetId, ReplicaId

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
HASH_BYTES: Final = 32  # SHA-256

# Every signed message starts with one of these: a signature for one purpose is worth nothing for another.
BLOCK_TAG: Final = b"farebox block v1\n"
CERTIFICATE_TAG: Final = b"farebox certificate v1\n"
PAGE_TAG: Final = b"farebox page v1\n"
DOCUMENT_TAG: Final = b"farebox document v1\n"


class SigningKey:
    """A private key. `seed` is 32 secret bytes; the caller brings the randomness."""

    __slots__ = ("_key", "public_key", "replica")

    public_key: bytes  # 32 bytes
    replica: ReplicaId  # the replica this key writes as

    def __init__(self, seed: bytes) -> None:
        """Raise MisuseError unless `seed` has 32 bytes."""
        if len(seed) != SEED_BYTES:
            raise MisuseError("a signing key is made from a seed of 32 bytes")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()
        self.replica = replica_id(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, 64 bytes; the same every time."""
        return self._key.sign(message)


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is this key's signature of `message`. Never raises on bad bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def replica_id(public_key: bytes) -> ReplicaId:
    """The replica that writes with this key: SHA-256(public_key)[:16]."""
    return ReplicaId(hashlib.sha256(public_key).digest()[:ID_BYTES])


def fleet_id(fleet_public_key: bytes) -> FleetId:
    """The fleet whose root this key is: SHA-256(fleet_public_key)[:16]."""
    return FleetId(hashlib.sha256(fleet_public_key).digest()[:ID_BYTES])
