"""Secrets on a database server, sealed with a key that the server does not have.

An encrypted file hides everything from whoever copies it. A server's administrators, backups and replicas see
its tables; private keys are therefore sealed before they go there (ChaCha20-Poly1305, RFC 8439).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from sqlalchemy import Connection

from crdt.errors import MisuseError, WrongKey
from crdt.store.secrets import Secrets

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12  # before the sealed value
_CHECK: Final = "farebox.key-check"  # a secret of the store's own: which key seals here


class SealedSecrets(Secrets):
    """Named secrets under one key. The name is sealed in, so values cannot change places.

    `get` and `swap` raise WrongKey.
    """

    def __init__(self, key: bytes, entropy: Callable[[int], bytes]) -> None:
        """`key`: 32 secret bytes. `entropy`: makes nonces."""
        if len(key) != KEY_BYTES:
            raise MisuseError("the database key has 32 bytes")
        self._cipher = ChaCha20Poly1305(key)
        self._entropy = entropy

    def check(self, connection: Connection) -> None:
        """Within a write: raise WrongKey unless secrets were sealed with this key here, or none yet."""
        if self.get(connection, _CHECK) is None:
            self.put(connection, _CHECK, b"")

    def get(self, connection: Connection, name: str) -> bytes | None:
        """See Secrets."""
        sealed = super().get(connection, name)
        if sealed is None:
            return None
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except InvalidTag as err:
            raise WrongKey(
                "The key does not open the secrets in this database: it is another installation's key, or "
                "they were altered. Put back the key file this hub was founded with."
            ) from err

    def put(self, connection: Connection, name: str, value: bytes) -> None:
        """See Secrets."""
        nonce = self._entropy(_NONCE_BYTES)
        super().put(connection, name, nonce + self._cipher.encrypt(nonce, value, name.encode()))
