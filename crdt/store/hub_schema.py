"""The tables of a hub's ledger, beside those of the record."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, Integer, SmallInteger, String, Table, literal_column, text

from crdt.facts import Kind
from crdt.store.schema import ROW_NUMBER, TEXT, fact_columns, metadata_with_record, number
from crdt.store.sql import short_bytes

HUB_METADATA: Final = metadata_with_record()

# One row: the settlement's series and position, and running totals of everything merged.
HUB: Final = Table(
    "hub",
    HUB_METADATA,
    Column("id", Integer, primary_key=True),
    Column("fleet", short_bytes(16), nullable=False),
    Column("series", short_bytes(16), nullable=False),
    number("position"),
    number("deltas"),
    number("deltas_minor"),
    number("openings_minor"),
    number("projected"),  # the last block in `history`, by its ordinal
    number("numbered"),  # the last number given to a card
    number("floor_minor"),  # a card whose balance is below is overdrawn
    Column("judge_after", short_bytes(16)),  # the cards after this one are still judged by it; NULL: none are
    number("asked", server_default=text("0")),  # how often comparing was asked for, see `comparing`
    number("answered", server_default=text("0")),  # the first so many of these
    number("compared", server_default=text("0")),  # steps towards the next answer, ever
    Column("retired", short_bytes(16)),  # the hub's own replica that was found restored and is not continued
)

# The processes of the hub that keep marks: one on a file, several on a server. See `witness`.
PROCESS: Final = Table(
    "process",
    HUB_METADATA,
    Column("nonce", short_bytes(16), primary_key=True),  # of its last start, see `marks`
    Column("series", short_bytes(16), nullable=False),  # as it was then
    number("turn"),  # how many times it has written since, on a server
)

# Positions are made in runs, one for each start of the hub, at random distances: see `balances.begin_run`.
RUN: Final = Table(
    "run",
    HUB_METADATA,
    Column("first", BigInteger, primary_key=True, autoincrement=False),  # the run's first position
    number("before"),  # the last position made before it
)

# Authors of whom the operator should know something: a fork, a broken limit, a write after the revocation.
FLAG: Final = Table(
    "flag",
    HUB_METADATA,
    Column("replica", short_bytes(16), primary_key=True),
    Column("code", SmallInteger, primary_key=True),  # a RefusalCode
    number("at_ms"),  # when it was first seen
    number("seq"),  # the first fact that it is about
    Column("sentence", String(255), nullable=False),
    sqlite_with_rowid=False,
)

# How far authors' chains are known to go, whoever holds them, and when they last spoke to the hub.
EXPECTED: Final = Table(
    "expected",
    HUB_METADATA,
    Column("replica", short_bytes(16), primary_key=True),
    number("seq"),  # the furthest number anybody named; 0: none
    number("at_ms"),  # when it was named first
    Column("source", TEXT, nullable=False),  # by whom
    number("heard_ms"),  # when the author last said all it has; 0: never
    number("turn"),  # the greater, the later among its terminal's identities; 0: it never did
    Column("ended", SmallInteger, nullable=False),  # 1: it writes no more, see `expectations`
    sqlite_with_rowid=False,
)

# What terminals say of how far others' chains go, beyond what is held, and nothing proves: see `claims`.
CLAIMED: Final = Table(
    "claimed",
    HUB_METADATA,
    Column("replica", short_bytes(16), primary_key=True),
    Column("place", SmallInteger, primary_key=True, autoincrement=False),  # of each author there are few
    Column("claimant", short_bytes(16), nullable=False),  # the terminal that says so
    number("seq"),
    number("at_ms"),
    Column("source", TEXT, nullable=False),
    Column("given_up", SmallInteger, nullable=False),  # 1: nobody waits for it
    sqlite_with_rowid=False,
)

# A card's balance, kept with every merge.
CARD: Final = Table(
    "card",
    HUB_METADATA,
    Column("card", short_bytes(16), primary_key=True),
    number("sum_minor"),
    number("opening_minor"),
    Column("flags", SmallInteger, nullable=False, server_default=text("0")),
    number("position"),  # the merge that last changed it
    number("number", server_default=text("0")),  # its short name, for ever; 0: no fact has mentioned it
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
    HUB_METADATA,
    Column("card", short_bytes(16), primary_key=True),
    number("since"),
    sqlite_with_rowid=False,
)

# Terminals that were paired with old storage of another one, see `copies`.
COPY: Final = Table(
    "copy_of",
    HUB_METADATA,
    Column("terminal", short_bytes(16), primary_key=True),
    Column("origin", short_bytes(16), primary_key=True),  # that other one
    sqlite_with_rowid=False,
)

# The facts as rows, for people: a projection of the blocks that may lag.
HISTORY: Final = Table(
    "history",
    HUB_METADATA,
    Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),  # order of arrival
    Column("replica", short_bytes(16), nullable=False),
    number("seq"),
    *fact_columns(),
    Index("history_by_card", "card", "at_ms", postgresql_include=["id"]),  # elsewhere an index has it anyway
    sqlite_autoincrement=True,  # an id stands for a moment: that of a row taken away is not given again
)
# The largest that is left counts when one leaves: among a card's rides, which may be many, these are found at
# once. Said in words, and not as a parameter: only so does a database see what the index answers.
IS_OPENING: Final = HISTORY.c.kind == literal_column(str(int(Kind.OPENING)))
Index(
    "history_openings",
    HISTORY.c.card,
    HISTORY.c.kind,
    HISTORY.c.amount_minor,
    sqlite_where=IS_OPENING,
    postgresql_where=IS_OPENING,
)


def _figures() -> list[Column[Any]]:
    """What facts add up to for a report; see `days.Figures`."""
    return [number(name) for name in ("facts", "taps", "fares_minor", "amount_minor")]


# What an author wrote in each quarter of an hour, by its own clock: a projection, as `history` is. Days of
# every time zone, and ones that begin at four in the morning, are made of these.
QUARTER: Final = Table(
    "quarter",
    HUB_METADATA,
    Column("replica", short_bytes(16), primary_key=True),
    Column("quarter", BigInteger, primary_key=True, autoincrement=False),  # Unix time in quarters of an hour
    *_figures(),
    Index("quarter_by_time", "quarter"),
    sqlite_with_rowid=False,
)

# Of quarters of an hour by a hub's clock: what was here before the first block that came in one.
ARRIVAL: Final = Table(
    "arrival",
    HUB_METADATA,
    Column("quarter", BigInteger, primary_key=True, autoincrement=False),  # Unix time in quarters of an hour
    number("ordinal"),  # of the last block before it; 0: there was none
)

# Chains that are longer than the list of revocations lets them be, each with its cut-off: see `cutting`.
CUT: Final = Table(
    "cut",
    HUB_METADATA,
    Column("replica", short_bytes(16), primary_key=True),
    number("seq"),
    sqlite_with_rowid=False,
)

# Days that were closed: neither their limits nor their figures change again.
DAY: Final = Table(
    "day",
    HUB_METADATA,
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
    number("end_ms"),
    number("number"),  # by which people ask for it
    number("closed_ms"),
    Index("day_by_number", "number", unique=True),
)
DAY_FIGURE: Final = Table(
    "day_figure",
    HUB_METADATA,
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("replica", short_bytes(16), primary_key=True),
    *_figures(),
    sqlite_with_rowid=False,
)

# What was learnt of a closed day later.
DAY_ADJUSTMENT: Final = Table(
    "day_adjustment",
    HUB_METADATA,
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("learnt_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("replica", short_bytes(16), primary_key=True),
    *_figures(),
    sqlite_with_rowid=False,
)

# When the hub wrote about a card, each time once: see `moments`.
MOMENT: Final = Table(
    "moment",
    HUB_METADATA,
    Column("card", short_bytes(16), primary_key=True),
    Column("at_ms", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

# Moments of which a ride may be here more than once, and nobody has looked yet: see `said_again`.
SAID_AGAIN: Final = Table(
    "said_again",
    HUB_METADATA,
    Column("card", short_bytes(16), primary_key=True),
    Column("at_ms", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

# Requests that have booked, so that a repeated one books nothing.
REQUEST: Final = Table(
    "request",
    HUB_METADATA,
    Column("id", String(64), primary_key=True),
    Column("replica", short_bytes(16), nullable=False),  # the hub that booked it
    number("seq"),  # the last delta of the block
)
