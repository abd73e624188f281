"""The tables of the record, which a terminal's ledger and a hub's have alike, and the columns of all tables.

`terminal_schema` and `hub_schema` have those of their own. Only what SQL in general has: the hub's tables lie
in a server database too (see `sql`). Times are Unix milliseconds, money is minor units, both 64 bits.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
)
from sqlalchemy.dialects.mysql import MEDIUMBLOB

from crdt.facts import MAX_TEXT_BYTES
from crdt.store.sql import short_bytes

ROW_NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")  # SQLite's own row number is an INTEGER
TEXT: Final = String(MAX_TEXT_BYTES)
RAW: Final = LargeBinary().with_variant(MEDIUMBLOB, "mysql", "mariadb")  # their BLOB ends at 64 KiB

_RECORD: Final = MetaData()


def number(name: str, **options: Any) -> Column[Any]:
    """A column of whole numbers that are always there."""
    return Column(name, BigInteger, nullable=False, **options)


def fact_columns() -> list[Column[Any]]:
    """What a delta carries beside its author and number."""
    return [
        Column("card", short_bytes(16), nullable=False),
        Column("kind", SmallInteger, nullable=False),
        number("amount_minor"),
        number("at_ms"),
        *(Column(name, TEXT, nullable=False) for name in ("route", "trip", "stop")),
        number("clock_epoch"),
        number("clock_error_ms"),
    ]


# The record: every sealed block held, as it was signed. Balances and history can be made again from it.
BLOCK: Final = Table(
    "block",
    _RECORD,
    Column("ordinal", ROW_NUMBER, primary_key=True, autoincrement=True),  # order of arrival
    Column("replica", short_bytes(16), nullable=False),
    number("first_seq"),
    number("last_seq"),
    Column("hash", short_bytes(32), nullable=False),
    Column("raw", RAW, nullable=False),
    Column("settled_ms", BigInteger),  # on a terminal: when it was first seen settled; NULL: it is not
    Index("block_by_seq", "replica", "first_seq", unique=True),
)

# The end of each replica's chain held. `position`: the merge that last moved it (a hub's; 0 on a terminal).
# A hub keeps the row of a chain of which nothing counts any more, with `seq` 0.
HEAD: Final = Table(
    "head",
    _RECORD,
    Column("replica", short_bytes(16), primary_key=True),
    number("seq"),
    Column("hash", short_bytes(32), nullable=False),
    number("position"),
    number("credit_minor"),  # all credits of the chain up to here, see `Limits.allowance_minor`
    Index("head_by_position", "position", "replica"),
    sqlite_with_rowid=False,
)

# The certificates of authors: verified once, when they were put here.
AUTHOR: Final = Table(
    "author",
    _RECORD,
    Column("replica", short_bytes(16), primary_key=True),
    Column("certificate", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# Signed blocks that do not count, each with the block of the record it contradicts: see `quarantine`.
QUARANTINE: Final = Table(
    "quarantine",
    _RECORD,
    Column("hash", short_bytes(32), primary_key=True),
    Column("replica", short_bytes(16), nullable=False),
    number("first_seq"),
    number("last_seq"),
    Column("reason", SmallInteger, nullable=False),  # a RefusalCode
    Column("resolution", String(16), nullable=False),  # empty: what it says is not in the ledger otherwise
    number("noted_ms"),
    number("size_bytes"),  # of both blocks
    number("amount_minor"),  # of all its facts
    Column("raw", RAW, nullable=False),  # after what lists show: SQLite reads a row from its beginning
    Column("counted", RAW),  # the block it contradicts; NULL: none
    Index("quarantine_by_replica", "replica", "first_seq"),
    Index("quarantine_by_resolution", "resolution", "replica", "hash"),
    sqlite_with_rowid=False,
)

# Signed settings documents, the newest version of each.
DOCUMENT: Final = Table(
    "document",
    _RECORD,
    Column("name", TEXT, primary_key=True),
    number("version"),
    Column("raw", RAW, nullable=False),
)


def metadata_with_record() -> MetaData:
    """What a ledger's own tables are added to: the tables of the record."""
    metadata = MetaData()
    for table in _RECORD.sorted_tables:
        table.to_metadata(metadata)
    return metadata
