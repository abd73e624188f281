"""The tables of a ledger. One schema for terminal and hub; each uses its part, and `block`, `head`, `author`.

Only what SQL in general has: the hub's tables lie in a server database too (see `sql`). Times are Unix
milliseconds, money is minor units, both 64 bits.
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
    text,
)
from sqlalchemy.dialects.mysql import MEDIUMBLOB

from crdt.facts import MAX_TEXT_BYTES
from crdt.store.sql import short_bytes as _bytes

METADATA: Final = MetaData()

_NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")  # SQLite's own row number is an INTEGER
_TEXT: Final = String(MAX_TEXT_BYTES)
_RAW: Final = LargeBinary().with_variant(MEDIUMBLOB, "mysql", "mariadb")  # their BLOB ends at 64 KiB


def _number(name: str, **options: Any) -> Column[Any]:
    return Column(name, BigInteger, nullable=False, **options)


def _fact_columns() -> list[Column[Any]]:
    """What a delta carries beside its author and number."""
    return [
        Column("card", _bytes(16), nullable=False),
        Column("kind", SmallInteger, nullable=False),
        _number("amount_minor"),
        _number("at_ms"),
        *(Column(name, _TEXT, nullable=False) for name in ("route", "trip", "stop")),
        _number("clock_epoch"),
        _number("clock_error_ms"),
    ]


# The record: every sealed block held, as it was signed. Balances and history can be made again from it.
BLOCK: Final = Table(
    "block",
    METADATA,
    Column("ordinal", _NUMBER, primary_key=True, autoincrement=True),  # order of arrival
    Column("replica", _bytes(16), nullable=False),
    _number("first_seq"),
    _number("last_seq"),
    Column("hash", _bytes(32), nullable=False),
    Column("raw", _RAW, nullable=False),
    Column("settled_ms", BigInteger),  # on a terminal: when it was first seen settled; NULL: it is not
    Index("block_by_seq", "replica", "first_seq", unique=True),
)

# The end of each replica's chain held. `position`: the merge that last moved it (a hub's; 0 on a terminal).
# A hub keeps the row of a chain of which nothing counts any more, with `seq` 0.
HEAD: Final = Table(
    "head",
    METADATA,
    Column("replica", _bytes(16), primary_key=True),
    _number("seq"),
    Column("hash", _bytes(32), nullable=False),
    _number("position"),
    _number("credit_minor"),  # all credits of the chain up to here, see `Limits.allowance_minor`
    Index("head_by_position", "position", "replica"),
    sqlite_with_rowid=False,
)

# The certificates of authors: verified once, when they were put here.
AUTHOR: Final = Table(
    "author",
    METADATA,
    Column("replica", _bytes(16), primary_key=True),
    Column("certificate", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# Signed blocks that do not count, each with the block of the record it contradicts: see `quarantine`.
QUARANTINE: Final = Table(
    "quarantine",
    METADATA,
    Column("hash", _bytes(32), primary_key=True),
    Column("replica", _bytes(16), nullable=False),
    _number("first_seq"),
    _number("last_seq"),
    Column("reason", SmallInteger, nullable=False),  # a RefusalCode
    Column("resolution", String(16), nullable=False),  # empty: what it says is not in the ledger otherwise
    _number("noted_ms"),
    _number("size_bytes"),  # of both blocks
    _number("amount_minor"),  # of all its facts
    Column("raw", _RAW, nullable=False),  # after what lists show: SQLite reads a row from its beginning
    Column("counted", _RAW),  # the block it contradicts; NULL: none
    Index("quarantine_by_replica", "replica", "first_seq"),
    Index("quarantine_by_resolution", "resolution", "replica", "hash"),
    sqlite_with_rowid=False,
)

# ---- A terminal's ----

# The open segment: this terminal's taps since its last sealed block.
OPEN_DELTA: Final = Table(
    "open_delta",
    METADATA,
    Column("seq", _NUMBER, primary_key=True, autoincrement=False),
    *_fact_columns(),
)

# The replicas that ever wrote to this ledger: this terminal's identities.
IDENTITY: Final = Table(
    "identity",
    METADATA,
    Column("replica", _bytes(16), primary_key=True),
    sqlite_with_rowid=False,
)

# Settled balances. A generation is one consistent set; see settled.py for which of them show.
SETTLED: Final = Table(
    "settled",
    METADATA,
    Column("generation", Integer, primary_key=True),
    Column("card", _bytes(16), primary_key=True),
    _number("sum_minor"),
    _number("opening_minor"),
    Column("flags", SmallInteger, nullable=False),
    _number("number"),  # the hub's short name of the card; 0: none
    sqlite_with_rowid=False,
)

# The frontier the settled balances include.
SETTLED_HEAD: Final = Table(
    "settled_head",
    METADATA,
    Column("generation", Integer, primary_key=True),
    Column("replica", _bytes(16), primary_key=True),
    _number("seq"),
    Column("hash", _bytes(32), nullable=False),
    sqlite_with_rowid=False,
)

# Changed cards of settlement pages until the final page makes them count, in sorted runs: see staged_rows.py.
# Of a card's rows that of the last run counts.
STAGED: Final = Table(
    "staged",
    METADATA,
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("card", _bytes(16), primary_key=True),  # the first of the segment
    Column("cards", LargeBinary, nullable=False),  # the rows, packed, of this card and those after it
    sqlite_with_rowid=False,
)

# The heads of these pages, in runs as well.
STAGED_HEAD: Final = Table(
    "staged_head",
    METADATA,
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("replica", _bytes(16), primary_key=True),
    _number("seq"),  # 0: nothing of it counts any more
    Column("hash", _bytes(32), nullable=False),
    sqlite_with_rowid=False,
)

# One row: who writes here, what is installed, and how far staging has come.
TERMINAL: Final = Table(
    "terminal",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("fleet", _bytes(16), nullable=False),
    Column("replica", _bytes(16), nullable=False),  # the author of the open segment
    Column("suspended", SmallInteger, nullable=False),  # 1: nothing is sealed until a new identity takes over
    Column("nonce", _bytes(16)),  # the last start's, see `marks`; NULL: kept without marks so far
    Column("series", _bytes(16), nullable=False),
    _number("position"),
    Column("base_generation", Integer, nullable=False),
    Column("overlay_generation", Integer, nullable=False),  # 0: none
    Column("head_generation", Integer, nullable=False),
    Column("last_generation", Integer, nullable=False),  # the highest number ever used
    Column("staged_series", _bytes(16), nullable=False),  # empty: nothing is staged
    _number("staged_base"),
    _number("staged_position"),
    Column("staged_card", _bytes(16), nullable=False),
    Column("staged_replica", _bytes(16), nullable=False),
    _number("staged_since"),
    _number("staged_seen"),
    Column("staged_generation", Integer, nullable=False),  # of `settled`, that a full load fills; 0: none
    _number("staged_from"),  # runs of `staged` and `staged_head` before this one are left over
)

# The hub's own blocks, kept for it: see `keepsake`. They are settled, and nothing here counts them.
KEEPSAKE: Final = Table(
    "keepsake",
    METADATA,
    # Of all blocks kept before this one: the order of arrival, and from row to row the size.
    Column("start_bytes", _NUMBER, primary_key=True, autoincrement=False),
    Column("replica", _bytes(16), nullable=False),
    _number("first_seq"),
    _number("last_seq"),
    Column("hash", _bytes(32), nullable=False),
    Column("raw", _RAW, nullable=False),
    Index("keepsake_by_seq", "replica", "first_seq", unique=True),
)

# Signed settings documents, the newest version of each.
DOCUMENT: Final = Table(
    "document",
    METADATA,
    Column("name", _TEXT, primary_key=True),
    _number("version"),
    Column("raw", _RAW, nullable=False),
)

# ---- A hub's ----

# One row: the settlement's series and position, and running totals of everything merged.
HUB: Final = Table(
    "hub",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("fleet", _bytes(16), nullable=False),
    Column("series", _bytes(16), nullable=False),
    _number("position"),
    _number("deltas"),
    _number("deltas_minor"),
    _number("openings_minor"),
    _number("projected"),  # the last block in `history`, by its ordinal
    _number("learnt"),  # the last block that ever was: what is projected again was known before
    _number("numbered"),  # the last number given to a card
    _number("floor_minor"),  # a card whose balance is below is overdrawn
    Column("judge_after", _bytes(16)),  # the cards after this one are still judged by it; NULL: none are
    Column("retired", _bytes(16)),  # the hub's own replica that was found restored and is not continued
)

# The processes of the hub that keep marks: one on a file, several on a server. See `witness`.
PROCESS: Final = Table(
    "process",
    METADATA,
    Column("nonce", _bytes(16), primary_key=True),  # of its last start, see `marks`
    Column("series", _bytes(16), nullable=False),  # as it was then
    _number("turn"),  # how many times it has written since, on a server
)

# Positions are made in runs, one for each start of the hub, at random distances: see `balances.begin_run`.
RUN: Final = Table(
    "run",
    METADATA,
    Column("first", BigInteger, primary_key=True, autoincrement=False),  # the run's first position
    _number("before"),  # the last position made before it
)

# Authors of whom the operator should know something: a fork, a broken limit, a write after the revocation.
FLAG: Final = Table(
    "flag",
    METADATA,
    Column("replica", _bytes(16), primary_key=True),
    Column("code", SmallInteger, primary_key=True),  # a RefusalCode
    _number("at_ms"),  # when it was first seen
    _number("seq"),  # the first fact that it is about
    Column("sentence", String(255), nullable=False),
    sqlite_with_rowid=False,
)

# How far authors' chains are known to go, whoever holds them, and when they last spoke to the hub.
EXPECTED: Final = Table(
    "expected",
    METADATA,
    Column("replica", _bytes(16), primary_key=True),
    _number("seq"),  # the furthest number anybody named; 0: none
    _number("at_ms"),  # when it was named first
    Column("source", _TEXT, nullable=False),  # by whom
    _number("heard_ms"),  # when the author last said all it has; 0: never
    Column("ended", SmallInteger, nullable=False),  # 1: it writes no more, see `expectations`
    sqlite_with_rowid=False,
)

# What a terminal says of how far another's chain goes, and nothing proves: see `claims`.
CLAIMED: Final = Table(
    "claimed",
    METADATA,
    Column("replica", _bytes(16), primary_key=True),
    Column("claimant", _bytes(16), primary_key=True),  # the terminal that says so
    _number("seq"),
    _number("at_ms"),
    Column("source", _TEXT, nullable=False),
    Column("given_up", SmallInteger, nullable=False),  # 1: nobody waits for it
    sqlite_with_rowid=False,
)

# A card's balance, kept with every merge.
CARD: Final = Table(
    "card",
    METADATA,
    Column("card", _bytes(16), primary_key=True),
    _number("sum_minor"),
    _number("opening_minor"),
    Column("flags", SmallInteger, nullable=False, server_default=text("0")),
    _number("position"),  # the merge that last changed it
    _number("number", server_default=text("0")),  # its short name, for ever; 0: no fact has mentioned it
    Index("card_by_position", "position", "card"),
    sqlite_with_rowid=False,
)

# Who shares a database looks up numbers that another process gave; where nobody does, they are in memory.
Index("card_by_number", CARD.c.number).ddl_if(
    dialect=("postgresql", "mysql", "mariadb")  # type: ignore[arg-type]  # a tuple is documented
)

# Cards that were hotlisted before any fact mentioned them, and the position that did it.
LISTED: Final = Table(
    "listed",
    METADATA,
    Column("card", _bytes(16), primary_key=True),
    _number("since"),
    sqlite_with_rowid=False,
)

# The facts as rows, for people: a projection of the blocks that may lag and can be made again.
HISTORY: Final = Table(
    "history",
    METADATA,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),  # order of arrival
    Column("replica", _bytes(16), nullable=False),
    _number("seq"),
    *_fact_columns(),
    Index("history_by_card", "card", "id"),
    sqlite_autoincrement=True,  # an id stands for a moment: that of a row taken away is not given again
)


def _figures() -> list[Column[Any]]:
    """What facts add up to for a report; see `days.Figures`."""
    return [_number(name) for name in ("facts", "taps", "fares_minor", "amount_minor")]


# What an author wrote in each quarter of an hour, by its own clock: a projection, as `history` is. Days of
# every time zone, and ones that begin at four in the morning, are made of these.
QUARTER: Final = Table(
    "quarter",
    METADATA,
    Column("replica", _bytes(16), primary_key=True),
    Column("quarter", BigInteger, primary_key=True, autoincrement=False),  # Unix time in quarters of an hour
    *_figures(),
    Index("quarter_by_time", "quarter"),
    sqlite_with_rowid=False,
)

# Days that were closed: their figures never change again.
DAY: Final = Table(
    "day",
    METADATA,
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
    _number("end_ms"),
    _number("closed_ms"),
)
DAY_FIGURE: Final = Table(
    "day_figure",
    METADATA,
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("replica", _bytes(16), primary_key=True),
    *_figures(),
    sqlite_with_rowid=False,
)

# What was learnt of a closed day later. Facts of their own, which a projection made again leaves alone.
DAY_ADJUSTMENT: Final = Table(
    "day_adjustment",
    METADATA,
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("learnt_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("replica", _bytes(16), primary_key=True),
    *_figures(),
    sqlite_with_rowid=False,
)

# Requests that have booked, so that a repeated one books nothing.
REQUEST: Final = Table(
    "request",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("replica", _bytes(16), nullable=False),  # the hub that booked it
    _number("seq"),  # the last delta of the block
)


def _terminals() -> MetaData:
    record = (BLOCK, HEAD, AUTHOR, QUARANTINE, OPEN_DELTA, IDENTITY, DOCUMENT)
    part = MetaData()
    for table in (*record, SETTLED, SETTLED_HEAD, STAGED, STAGED_HEAD, TERMINAL, KEEPSAKE):
        table.to_metadata(part)
    return part


# A terminal makes its own tables only: every table more in the file costs each tap some microseconds.
TERMINAL_METADATA: Final = _terminals()


def inserting(table: Table, *, columns: tuple[str, ...] = (), or_replace: bool = False, rows: int = 1) -> str:
    """A terminal's INSERT, in SQLite's words, of `rows` rows as one tuple; `sql.Bulk` is for any database."""
    names = columns or tuple(column.name for column in table.columns)
    verb = "INSERT OR REPLACE" if or_replace else "INSERT"
    places = ", ".join([f"({', '.join('?' * len(names))})"] * rows)
    return f"{verb} INTO {table.name}({', '.join(names)}) VALUES {places}"  # noqa: S608 - our own names
