"""The housekeeping of settled balances: an overlay sinks into its base, and what shows no more is deleted.

For a terminal's `installer`; see `settled`. In the background, each step so short that a tap may wait for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from sqlalchemy import Connection, Table, bindparam, func, select

from crdt.store.chore import Chore
from crdt.store.local import LocalStore
from crdt.store.memory import Memory
from crdt.store.owned import Owned
from crdt.store.settled import CHUNK_ROWS, Standing, read_standing, write_standing
from crdt.store.statement import Statement
from crdt.store.terminal_schema import SETTLED, SETTLED_HEAD, STAGED, STAGED_HEAD

SINK_ROWS: Final = 200  # as CHUNK_ROWS, of rows all over the base, where each may cost a page

_NEXT_GENERATION: Final = {
    table: Statement(select(func.min(table.c.generation)).where(table.c.generation > bindparam("generation")))
    for table in (SETTLED, SETTLED_HEAD)
}
_FIRST_RUN: Final = {table: Statement(select(func.min(table.c.run))) for table in (STAGED, STAGED_HEAD)}


class Tidied(NamedTuple):
    """What a step has done."""

    standing: Standing  # after it
    more: bool  # whether there may be another


class Tidying:
    """That of one terminal's ledger. Once another one has the database it does nothing: what that one builds
    is never tidied away."""

    def __init__(self, database: LocalStore, memory: Memory) -> None:
        self._database = database
        self._memory = memory
        self._owned = Owned(database, memory)
        self._building = 0
        self._chore: Chore[Tidied] = Chore(
            database,
            self._step,
            self._stands,
            "Settled balances that no longer show are not cleared away; the next settlement tries again.",
        )

    def begin(self) -> None:
        """There may be something to do. Does not wait."""
        self._chore.begin()

    def leave(self, generation: int) -> None:
        """Leave this generation alone, which is being made; 0: none is."""
        self._building = generation

    def sink(self) -> None:
        """Have no overlay; waits. Raises MisuseError where another ledger has the database since."""
        while self._memory.standing.overlay_generation:
            self._owned.write(self._step, self._stands)

    def _step(self, connection: Connection) -> Tidied:
        standing = read_standing(connection)
        if not self._database.is_owner(self._memory):
            return Tidied(standing, more=False)
        return tidy(connection, standing, self._building)

    def _stands(self, tidied: Tidied) -> None:
        if self._database.is_owner(self._memory):
            self._memory.stands(tidied.standing)


def tidy(connection: Connection, standing: Standing, building: int) -> Tidied:
    """One short step of housekeeping.

    `building`: a generation that is being made, beside a full load's, and must be left alone; 0 for none.
    """
    if standing.overlay_generation:
        return Tidied(_sink_overlay(connection, standing), more=True)
    made = {building, standing.staged_generation}
    for table, shown in ((SETTLED, standing.base_generation), (SETTLED_HEAD, standing.head_generation)):
        stale = _stale_generation(connection, table, {shown, *made})
        if stale is not None:
            _delete_some(connection, table, stale)
            return Tidied(standing, more=True)
    return Tidied(standing, more=_delete_left_over(connection, standing))


def _sink_overlay(connection: Connection, standing: Standing) -> Standing:
    base, overlay = standing.base_generation, standing.overlay_generation
    until = _boundary(connection, SETTLED, overlay, SINK_ROWS)
    if until is None:
        sunk = replace(standing, overlay_generation=0)
        write_standing(connection, sunk)
        return sunk
    connection.exec_driver_sql(
        "INSERT OR REPLACE INTO settled (generation, card, sum_minor, opening_minor, flags, number) "
        "SELECT ?, card, sum_minor, opening_minor, flags, number FROM settled "
        "WHERE generation = ? AND card <= ? ORDER BY card",
        (base, overlay, until),
    )
    _delete_until(connection, SETTLED, overlay, until)
    return standing


def _stale_generation(connection: Connection, table: Table, kept: set[int]) -> int | None:
    """The lowest generation in the table that is not kept; found by hopping, without reading the rows."""
    generation = 0
    while True:
        found = _NEXT_GENERATION[table].value(connection, generation=generation)
        if found is None or found not in kept:
            return None if found is None else int(found)
        generation = found


def _boundary(connection: Connection, table: Table, generation: int, count: int) -> bytes | None:
    """The key that ends the first `count` rows of a generation; None when it has no rows."""
    key = table.primary_key.columns.values()[1]
    rows = select(key).where(table.c.generation == generation).order_by(key).limit(count).subquery()
    last: bytes | None = connection.execute(select(func.max(rows.c[0]))).scalar_one()
    return last


def _delete_some(connection: Connection, table: Table, generation: int) -> None:
    until = _boundary(connection, table, generation, CHUNK_ROWS)
    if until is not None:
        _delete_until(connection, table, generation, until)


def _delete_until(connection: Connection, table: Table, generation: int, until: bytes) -> None:
    key = table.primary_key.columns.values()[1]
    connection.execute(table.delete().where(table.c.generation == generation, key <= until))


def _delete_left_over(connection: Connection, standing: Standing) -> bool:
    """Delete a run that no longer matters; whether there was one."""
    for table in (STAGED, STAGED_HEAD):
        first = _FIRST_RUN[table].value(connection)
        if first is not None and first < standing.staged_from:
            connection.execute(table.delete().where(table.c.run == first))
            return True
    return False
