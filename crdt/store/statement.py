"""Statements that run often: made text once for each database, then given to the driver with their values.

SQLAlchemy Core says what a statement is, here as everywhere; but building it anew, finding it in the cache
and wrapping its rows costs ten times what SQLite takes to answer. Rows are the driver's own tuples: integers,
texts, bytes and None. What SQL computes may be a Decimal on some databases, and a truth value 0 or 1: `int`
the one, `bool` the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from crdt.errors import MisuseError
from crdt.store.connection import driver_connection

Rows = Sequence[tuple[Any, ...]]
Values = Sequence[Any] | Mapping[str, Any]  # by name only where the driver wants it

_SQLITE: Final = "sqlite"


class _Text(NamedTuple):
    """A statement in the words of one database."""

    sql: str
    names: Sequence[str] | None  # of its values, in order; None: the driver wants them by name
    fixed: dict[str, Any]  # values that the statement brings along


class Statement:
    """A statement of Core. What changes from run to run is a `bindparam`; an IN list is one of `Lookup`'s."""

    def __init__(self, construct: ClauseElement | Callable[[Dialect], ClauseElement]) -> None:
        """`construct`: the statement, or what makes it for a database that needs it said its own way."""
        self._construct = construct
        self._texts: dict[str, _Text] = {}  # by dialect

    def rows(self, connection: Connection, **values: Any) -> Rows:
        """All rows."""
        text = self._texts.get(connection.dialect.name) or self._made(connection)
        return fetch(connection, text.sql, _given(text, values))

    def row(self, connection: Connection, **values: Any) -> tuple[Any, ...] | None:
        """The first row; None when there is none."""
        found = self.rows(connection, **values)
        return found[0] if found else None

    def value(self, connection: Connection, **values: Any) -> Any:
        """The first value of the first row; None when there is none."""
        found = self.rows(connection, **values)
        return found[0][0] if found else None

    def run(self, connection: Connection, **values: Any) -> int:
        """Change rows; how many."""
        text = self._texts.get(connection.dialect.name) or self._made(connection)
        given = _given(text, values)
        if connection.dialect.name == _SQLITE:
            return int(driver_connection(connection).cursor().execute(text.sql, given).rowcount)
        return connection.exec_driver_sql(text.sql, _for_server(given)).rowcount

    def _made(self, connection: Connection) -> _Text:
        dialect, construct = connection.dialect, self._construct
        if not isinstance(construct, ClauseElement):
            construct = construct(dialect)
        compiled = construct.compile(dialect=dialect)
        if not isinstance(compiled, SQLCompiler) or compiled.post_compile_params:
            raise MisuseError("this statement is another text for every run; give it to SQLAlchemy")
        names = tuple(compiled.positiontup or ()) if compiled.positional else None
        fixed = {name: one.value for name, one in compiled.binds.items() if not one.required}
        made = _Text(str(compiled), names, fixed)
        if dialect.name == _SQLITE:
            made = _with_limits(made)
        self._texts[dialect.name] = made
        return made


def fetch(connection: Connection, sql: str, values: Values = ()) -> Rows:
    """All rows of a query in the driver's words, as its own tuples.

    Of many SQLAlchemy rows at once the garbage collector makes a meal; and beside SQLite, which answers at
    once, even one result object is dear.
    """
    if connection.dialect.name == _SQLITE:
        found: Rows = driver_connection(connection).execute(sql, values).fetchall()
        return found
    result = connection.exec_driver_sql(sql, _for_server(values))
    rows: Rows = result.cursor.fetchall() if result.cursor is not None else ()
    result.close()
    return rows


def _with_limits(text: _Text) -> _Text:
    """Without bare parameters for a LIMIT: SQLite reads their value, and plans a query anew for each.

    Fixed ones are said in words; of the others it sees an expression, and plans for any.
    """
    parts, names = text.sql.split("?"), text.names or ()
    if len(parts) != len(names) + 1:  # some question mark is no parameter
        return text
    kept: list[str] = []
    sql = parts[0]
    for name, part in zip(names, parts[1:], strict=True):
        if not sql.endswith("LIMIT "):
            kept, sql = [*kept, name], f"{sql}?{part}"
        elif name in text.fixed:
            sql += f"{text.fixed[name]}{part}"
        else:
            kept, sql = [*kept, name], f"{sql}(? + 0){part}"
    return _Text(sql, kept, {name: text.fixed[name] for name in kept if name in text.fixed})


def _given(text: _Text, values: dict[str, Any]) -> Values:
    given = text.fixed | values
    return given if text.names is None else [given[name] for name in text.names]


def _for_server(values: Values) -> Any:
    """One set of values: SQLAlchemy takes a list for many."""
    return values if isinstance(values, Mapping) else tuple(values)
