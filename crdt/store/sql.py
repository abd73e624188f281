"""Statements for many rows at once, in the words of each database: SQLite, PostgreSQL, MariaDB and MySQL.

SQLAlchemy's own INSERT costs four times as much in bulk, so these go to the driver as text, with the rows as
tuples. PostgreSQL gets one array a column in one statement (`unnest`), because its driver sends a row at a
time otherwise; PyMySQL makes one statement of many rows by itself, as long as all values are parameters.
Everything that is not bulk is SQLAlchemy Core.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    CursorResult,
    Dialect,
    LargeBinary,
    Table,
    and_,
    func,
    or_,
    tuple_,
)
from sqlalchemy.dialects.mysql import VARBINARY

# What an upsert makes of a column, of its old value and the new row's.
GIVEN: Final = "{new}"
ADDED: Final = "{old} + {new}"
LARGER: Final = "{greatest}({old}, {new})"

LOOKUP_KEYS: Final = 500  # of one statement

_MYSQL: Final = ("mysql", "mariadb")


class Bulk:
    """Inserts many rows of a table at once. `changes`: what to do where a row has the key already."""

    def __init__(
        self, table: Table, columns: Sequence[str] = (), changes: Mapping[str, str] | None = None
    ) -> None:
        """`columns`: in the order of the rows' values; all of the table's, for none.

        `changes`: column to one of GIVEN, ADDED, LARGER, or SQL of `{old}`; None: such a row is an error.
        """
        self._table = table
        self._columns = tuple(columns or table.columns.keys())
        self._changes = changes
        self._texts: dict[str, str] = {}  # by dialect

    def run(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert the rows; none is fine."""
        if not rows:
            return
        dialect = connection.dialect
        text = self._texts.get(dialect.name)
        if text is None:
            text = self._texts[dialect.name] = self._text(dialect)
        if dialect.name == "postgresql":
            connection.exec_driver_sql(text, tuple(map(list, zip(*rows, strict=True))))
        else:
            connection.exec_driver_sql(text, [*rows])

    def _text(self, dialect: Dialect) -> str:
        quote = dialect.identifier_preparer.quote
        table, columns = quote(self._table.name), ", ".join(map(quote, self._columns))
        into = f"INSERT INTO {table} ({columns}) {self._values(dialect)}"
        if self._changes is None:
            return into
        return f"{into} {_on_conflict(self._table, dialect)} {self._assignments(dialect)}"

    def _values(self, dialect: Dialect) -> str:
        if dialect.name == "postgresql":
            types = (self._table.c[name].type.compile(dialect) for name in self._columns)
            return f"SELECT * FROM unnest({', '.join(f'%b::{_array_of(one)}' for one in types)})"  # noqa: S608 - our own names
        mark = "%s" if dialect.name in _MYSQL else "?"
        return f"VALUES ({', '.join([mark] * len(self._columns))})"

    def _assignments(self, dialect: Dialect) -> str:
        quote = dialect.identifier_preparer.quote
        table = quote(self._table.name)
        new = "VALUES({})" if dialect.name in _MYSQL else "excluded.{}"
        greatest = "max" if dialect.name == "sqlite" else "greatest"
        return ", ".join(
            f"{quote(name)} = "
            + rule.format(old=f"{table}.{quote(name)}", new=new.format(quote(name)), greatest=greatest)
            for name, rule in (self._changes or {}).items()
        )


class Lookup:
    """Reads the rows of many keys at once; SQLAlchemy's own IN costs three times as much."""

    def __init__(self, table: Table, key: str, columns: Sequence[str]) -> None:
        """`key`: a column that finds rows by an index. `columns`: those of the answer."""
        self._table = table
        self._key = key
        self._columns = tuple(columns)

    def run(self, connection: Connection, keys: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """The rows with one of these keys, in no order."""
        for at in range(0, len(keys), LOOKUP_KEYS):
            part = tuple(keys[at : at + LOOKUP_KEYS])
            yield from self._rows(connection, part)

    def _rows(self, connection: Connection, keys: tuple[Any, ...]) -> Sequence[tuple[Any, ...]]:
        quote = connection.dialect.identifier_preparer.quote
        columns, table = ", ".join(map(quote, self._columns)), quote(self._table.name)
        wanted = f"SELECT {columns} FROM {table} WHERE {quote(self._key)}"  # noqa: S608 - our own names
        if connection.dialect.name == "postgresql":
            type_ = _array_of(self._table.c[self._key].type.compile(connection.dialect))
            return _plain(connection.exec_driver_sql(f"{wanted} = ANY(%b::{type_})", (list(keys),)))
        mark = "%s" if connection.dialect.name in _MYSQL else "?"
        return _plain(connection.exec_driver_sql(f"{wanted} IN ({', '.join([mark] * len(keys))})", keys))


def short_bytes(length: int) -> Any:
    """The type of a short binary value; MySQL and MariaDB cannot index a BLOB."""
    return LargeBinary(length).with_variant(VARBINARY(length), "mysql", "mariadb")


def _plain(result: CursorResult[Any]) -> Sequence[tuple[Any, ...]]:
    """The driver's own tuples: of many SQLAlchemy rows at once the garbage collector makes a meal."""
    rows: Sequence[tuple[Any, ...]] = result.cursor.fetchall() if result.cursor is not None else ()
    result.close()
    return rows


def replacing(table: Table) -> Bulk:
    """Rows that take the place of those with the same key."""
    key = {column.name for column in table.primary_key}
    names = table.columns.keys()
    return Bulk(table, names, {name: GIVEN for name in names if name not in key})


def beyond(
    connection: Connection, columns: tuple[Column[Any], Column[Any]], values: tuple[Any, Any]
) -> ColumnElement[bool]:
    """Rows after a place in an index of two columns, found by the index.

    MariaDB and MySQL read the whole index for a comparison of rows; SQLite and PostgreSQL for the long form.
    """
    (first, second), (low, key) = columns, values
    if connection.dialect.name in _MYSQL:
        return or_(first > low, and_(first == low, second > key))
    return tuple_(first, second) > tuple_(*values, types=[first.type, second.type])


def total(column: ColumnElement[int]) -> ColumnElement[int]:
    """The exact sum of a column of minor units; a Decimal on some databases, so `int` it."""
    return func.coalesce(func.sum(column), 0)


def _on_conflict(table: Table, dialect: Dialect) -> str:
    if dialect.name in _MYSQL:
        return "ON DUPLICATE KEY UPDATE"
    quote = dialect.identifier_preparer.quote
    return f"ON CONFLICT ({', '.join(quote(column.name) for column in table.primary_key)}) DO UPDATE SET"


def _array_of(type_: str) -> str:
    """The array type of a column's; without the length, which the column itself checks."""
    return type_.split("(")[0] + "[]"
