"""Secrets on a database server, sealed with a key that the server does not have.

An encrypted file hides everything from whoever copies it. A server's administrators, backups and replicas see
its tables; private keys are therefore sealed before they go there (ChaCha20-Poly1305, RFC 8439).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from sqlalchemy import Column, Connection, LargeBinary, MetaData, String, Table, select

from crdt.errors import MisuseError, WrongKey
from crdt.store.swapping import swapped

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_CHECK: Final = "farebox.key-check"  # a secret of the store's own: which key seals here

METADATA: Final = MetaData()
_SECRET: Final = Table(
    "secret",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),  # nonce, then the sealed value
)


class SealedSecrets:
    """Named secrets under one key. The name is sealed in, so values cannot change places."""

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
        """The value under this name. Raises WrongKey."""
        query = select(_SECRET.c.value).where(_SECRET.c.name == name)
        sealed: bytes | None = connection.execute(query).scalar_one_or_none()
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
        """Within a write: keep a value under a name, replacing the one before."""
        nonce = self._entropy(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, value, name.encode())
        connection.execute(_SECRET.delete().where(_SECRET.c.name == name))
        connection.execute(_SECRET.insert().values(name=name, value=sealed))

    def swap(self, connection: Connection, name: str, former: bytes, value: bytes) -> bytes:
        """Within a write: keep a value in place of `former`; what is kept then. Raises WrongKey."""
        return swapped(self.get(connection, name), former, value, partial(self.put, connection, name))
