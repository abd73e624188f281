"""Named secrets, such as private keys, in a table of their own. As they are: an encrypted file hides them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Connection, LargeBinary, MetaData, String, Table, select

METADATA: Final = MetaData()
_SECRET: Final = Table(
    "secret",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)


class Secrets:
    """What a store that hides its tables does with them."""

    def get(self, connection: Connection, name: str) -> bytes | None:
        """The value under this name."""
        query = select(_SECRET.c.value).where(_SECRET.c.name == name)
        value: bytes | None = connection.execute(query).scalar_one_or_none()
        return value

    def put(self, connection: Connection, name: str, value: bytes) -> None:
        """Within a write: keep a value under a name, replacing the one before."""
        connection.execute(_SECRET.delete().where(_SECRET.c.name == name))
        connection.execute(_SECRET.insert().values(name=name, value=value))

    def swap(self, connection: Connection, name: str, former: bytes, value: bytes) -> bytes:
        """Within a write: keep a value where `former` or nothing is; what is kept then."""
        kept = self.get(connection, name)
        if kept is not None and kept != former:
            return kept
        self.put(connection, name, value)
        return value
