"""The settled balances of a terminal: which rows show, and how a settlement becomes one of them.

Rows carry a generation. What shows is the base generation and, over it, at most one overlay. A full load,
whose cards come by id, is written into a new generation as it comes. An increment, whose cards come by the
time of their change, is staged in sorted runs, which is quick in any order; when the final page is there,
the runs are merged into a new generation. Nobody sees that yet, and all of it is done in transactions short
enough for a tap to wait for; then one small transaction makes it show: as the base after a full load, as the
overlay after an increment. Afterwards, in the background and again a little at a time, an overlay is moved
into its base and rows that no longer show are deleted. Whatever stops this half way leaves only rows that do
not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select

from crdt.cursor import START, Cursor, beginning
from crdt.errors import MisuseError
from crdt.facts import CardId, CardState, ReplicaId
from crdt.frontier import Head
from crdt.settlement import NO_SERIES
from crdt.store.connection import driver_connection
from crdt.store.sql import Lookup
from crdt.store.statement import Statement
from crdt.store.terminal_schema import SETTLED, SETTLED_HEAD, TERMINAL, inserting

SMALL_ROWS: Final = 500  # an increment of at most this many cards is written where it shows, with the swap
CHUNK_ROWS: Final = 1_000  # neighbouring rows of one background transaction: a tap waits for one at most

_ROWS_AT_ONCE: Final = 20  # in one statement: a third less time a row than one each
_PUT_ROW: Final = inserting(SETTLED, or_replace=True)
_PUT_ROWS: Final = inserting(SETTLED, or_replace=True, rows=_ROWS_AT_ONCE)

SettledRow = tuple[int, int, int]  # sum_minor, opening_minor, flags

# One row by its key. A statement of the tap path, so it goes to the driver as text.
FIND: Final = "SELECT sum_minor, opening_minor, flags FROM settled WHERE generation = ? AND card = ?"


@dataclass(frozen=True, slots=True)
class Standing:
    """Which settlement is installed, and how far the next one has come."""

    series: bytes = NO_SERIES
    position: int = 0
    base_generation: int = 1
    overlay_generation: int = 0  # 0: none
    head_generation: int = 1
    last_generation: int = 1
    staged_series: bytes = b""  # empty: nothing is staged
    staged_base: int = 0
    staged_position: int = 0
    staged_card: bytes = b""
    staged_replica: bytes = b""
    staged_since: int = 0
    staged_seen: int = 0
    staged_generation: int = 0  # that a full load fills; 0: none
    staged_from: int = 0

    @property
    def staged(self) -> Cursor:
        """How far staging has come."""
        place = self.staged_position, self.staged_card, self.staged_replica, self.staged_since
        return Cursor(*place, self.staged_seen)

    @property
    def next_page(self) -> tuple[bytes, int, Cursor]:
        """What to ask the hub for: series, base and the cursor after which to go on."""
        if self.staged_series:
            return self.staged_series, self.staged_base, self.staged
        if self.series == NO_SERIES:
            return NO_SERIES, 0, START
        return self.series, self.position, beginning(self.position)


STANDING_COLUMNS: Final = tuple(field.name for field in fields(Standing))
_VALUES: Final = attrgetter(*STANDING_COLUMNS)
_STANDING: Final = Statement(select(*(TERMINAL.c[name] for name in STANDING_COLUMNS)))
_STAND: Final = Statement(TERMINAL.update().values({name: bindparam(name) for name in STANDING_COLUMNS}))
_HEADS: Final = Statement(
    select(SETTLED_HEAD.c.replica, SETTLED_HEAD.c.seq, SETTLED_HEAD.c.hash).where(
        SETTLED_HEAD.c.generation == bindparam("generation")
    )
)
_HEADS_OF: Final = Lookup(SETTLED_HEAD, "replica", ("replica", "seq", "hash"), within="generation")
_HEAD_GENERATION: Final = Statement(select(TERMINAL.c.head_generation))
_NUMBERS_OF: Final = Lookup(SETTLED, "card", ("card", "number"), within="generation")


def read_standing(connection: Connection) -> Standing:
    """The standing in this snapshot. Raises MisuseError where none has begun."""
    row = _STANDING.row(connection)
    if row is None:
        raise MisuseError("this ledger is no terminal's yet")
    return Standing(*row)


def write_standing(connection: Connection, standing: Standing) -> None:
    """Replace the standing."""
    _STAND.run(connection, **dict(zip(STANDING_COLUMNS, _VALUES(standing), strict=True)))


def settled_heads(connection: Connection, standing: Standing) -> dict[ReplicaId, Head]:
    """The frontier that the settled balances include."""
    rows = _HEADS.rows(connection, generation=standing.head_generation)
    return {ReplicaId(replica): Head(seq, hash_) for replica, seq, hash_ in rows}


def settled_heads_of(connection: Connection, replicas: Sequence[ReplicaId]) -> dict[ReplicaId, Head]:
    """Of these replicas, the heads that the settled balances include."""
    rows = _HEADS_OF.run(connection, replicas, within=_HEAD_GENERATION.value(connection))
    return {ReplicaId(replica): Head(seq, hash_) for replica, seq, hash_ in rows}


def numbers_of(connection: Connection, standing: Standing, cards: Sequence[CardId]) -> dict[CardId, int]:
    """The hub's numbers of those of these cards that are settled with one."""
    numbers: dict[CardId, int] = {}
    for generation in (standing.base_generation, standing.overlay_generation):  # 0 is none, and has no rows
        for card, number in _NUMBERS_OF.run(connection, cards, within=generation):
            if number:
                numbers[CardId(card)] = number
    return numbers


def settled_cards(connection: Connection, standing: Standing) -> Iterator[tuple[CardId, CardState]]:
    """Every card that shows, by ascending id; streamed."""
    over = SETTLED.alias("over")
    hidden = (
        select(over.c.card)
        .where(over.c.generation == standing.overlay_generation, over.c.card == SETTLED.c.card)
        .exists()
    )
    columns = (SETTLED.c.card, SETTLED.c.sum_minor, SETTLED.c.opening_minor)
    base = select(*columns).where(SETTLED.c.generation == standing.base_generation)
    if standing.overlay_generation:
        top = select(*columns).where(SETTLED.c.generation == standing.overlay_generation)
        query: Any = base.where(~hidden).union_all(top).order_by("card")
    else:
        query = base.order_by(SETTLED.c.card)
    with connection.execute(query.execution_options(stream_results=True, yield_per=1000)) as rows:
        for card, sum_minor, opening_minor in rows:
            yield CardId(card), CardState(sum_minor, opening_minor)


def put_rows(connection: Connection, generation: int, rows: Sequence[Sequence[Any]]) -> None:
    """Write rows of (card, sum, opening, flags, number) into a generation.

    A card goes to the driver as a bytearray: for bytes it first looks for an adapter, which takes about
    twice as long as the rest of the row.
    """
    driver = driver_connection(connection)
    values = [(generation, bytearray(row[0]), *row[1:]) for row in rows]
    rest = len(values) % _ROWS_AT_ONCE
    whole = range(0, len(values) - rest, _ROWS_AT_ONCE)
    if whole:
        several = [tuple(chain.from_iterable(values[at : at + _ROWS_AT_ONCE])) for at in whole]
        driver.executemany(_PUT_ROWS, several)
    if rest:
        driver.executemany(_PUT_ROW, values[len(values) - rest :])
