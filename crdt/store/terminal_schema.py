"""The tables of a terminal's ledger, beside those of the record."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, SmallInteger, Table

from crdt.store.schema import RAW, ROW_NUMBER, fact_columns, metadata_with_record, number
from crdt.store.sql import short_bytes

# A terminal makes its own tables only: every table more in the file costs each tap some microseconds.
TERMINAL_METADATA: Final = metadata_with_record()

NO_PLACE: Final = 2**63 - 1  # after every place

# The open segment: this terminal's taps since its last sealed block. Its rows stand by place: see segment.py.
OPEN_DELTA: Final = Table(
    "open_delta",
    TERMINAL_METADATA,
    Column("place", ROW_NUMBER, primary_key=True, autoincrement=False),
    *fact_columns(),
)

# The replicas that ever wrote to this ledger: this terminal's identities.
IDENTITY: Final = Table(
    "identity",
    TERMINAL_METADATA,
    Column("replica", short_bytes(16), primary_key=True),
    sqlite_with_rowid=False,
)

# Settled balances. A generation is one consistent set; see settled.py for which of them show.
SETTLED: Final = Table(
    "settled",
    TERMINAL_METADATA,
    Column("generation", Integer, primary_key=True),
    Column("card", short_bytes(16), primary_key=True),
    number("sum_minor"),
    number("opening_minor"),
    Column("flags", SmallInteger, nullable=False),
    number("number"),  # the hub's short name of the card; 0: none
    sqlite_with_rowid=False,
)

# The frontier the settled balances include.
SETTLED_HEAD: Final = Table(
    "settled_head",
    TERMINAL_METADATA,
    Column("generation", Integer, primary_key=True),
    Column("replica", short_bytes(16), primary_key=True),
    number("seq"),
    Column("hash", short_bytes(32), nullable=False),
    sqlite_with_rowid=False,
)

# Changed cards of settlement pages until the final page makes them count, in sorted runs: see staged_rows.py.
# Of a card's rows that of the last run counts.
STAGED: Final = Table(
    "staged",
    TERMINAL_METADATA,
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("card", short_bytes(16), primary_key=True),  # the first of the segment
    Column("cards", LargeBinary, nullable=False),  # the rows, packed, of this card and those after it
    sqlite_with_rowid=False,
)

# The heads of these pages, in runs as well.
STAGED_HEAD: Final = Table(
    "staged_head",
    TERMINAL_METADATA,
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("replica", short_bytes(16), primary_key=True),
    number("seq"),  # 0: nothing of it counts any more
    Column("hash", short_bytes(32), nullable=False),
    sqlite_with_rowid=False,
)

# One row: who writes here, what is installed, and how far staging has come.
TERMINAL: Final = Table(
    "terminal",
    TERMINAL_METADATA,
    Column("id", Integer, primary_key=True),
    Column("fleet", short_bytes(16), nullable=False),
    Column("replica", short_bytes(16), nullable=False),  # the author of the open segment
    Column("suspended", SmallInteger, nullable=False),  # 1: nothing is sealed until a new identity takes over
    Column("nonce", short_bytes(16)),  # the last start's, see `marks`; NULL: kept without marks so far
    Column("series", short_bytes(16), nullable=False),
    number("position"),
    Column("base_generation", Integer, nullable=False),
    Column("overlay_generation", Integer, nullable=False),  # 0: none
    Column("head_generation", Integer, nullable=False),
    Column("last_generation", Integer, nullable=False),  # the highest number ever used
    Column("staged_series", short_bytes(16), nullable=False),  # empty: nothing is staged
    number("staged_base"),
    number("staged_position"),
    Column("staged_card", short_bytes(16), nullable=False),
    Column("staged_replica", short_bytes(16), nullable=False),
    number("staged_since"),
    number("staged_seen"),
    Column("staged_generation", Integer, nullable=False),  # of `settled`, that a full load fills; 0: none
    number("staged_from"),  # runs of `staged` and `staged_head` before this one are left over
    number("again_from"),  # open deltas from this place on do not show
)

# The hub's own blocks, kept for it: see `keepsake`. They are settled, and nothing here counts them.
KEEPSAKE: Final = Table(
    "keepsake",
    TERMINAL_METADATA,
    # Of all blocks kept before this one: the order of arrival, and from row to row the size.
    Column("start_bytes", ROW_NUMBER, primary_key=True, autoincrement=False),
    Column("replica", short_bytes(16), nullable=False),
    number("first_seq"),
    number("last_seq"),
    Column("hash", short_bytes(32), nullable=False),
    Column("raw", RAW, nullable=False),
    Index("keepsake_by_seq", "replica", "first_seq", unique=True),
)


def inserting(table: Table, *, columns: tuple[str, ...] = (), or_replace: bool = False, rows: int = 1) -> str:
    """A terminal's INSERT, in SQLite's words, of `rows` rows as one tuple; `sql.Bulk` is for any database."""
    names = columns or tuple(column.name for column in table.columns)
    verb = "INSERT OR REPLACE" if or_replace else "INSERT"
    places = ", ".join([f"({', '.join('?' * len(names))})"] * rows)
    return f"{verb} INTO {table.name}({', '.join(names)}) VALUES {places}"  # noqa: S608 - our own names
