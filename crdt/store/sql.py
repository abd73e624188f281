"""Statements for many rows at once, in the words of each database: SQLite, PostgreSQL, MariaDB and MySQL.

SQLAlchemy's own INSERT costs four times as much in bulk, so these go to the driver as text, with the rows as
tuples. PostgreSQL gets one array a column in one statement (`unnest`), because its driver sends a row at a
time otherwise; PyMySQL makes one statement of many rows by itself, as long as all values are parameters.
Everything that is not bulk is SQLAlchemy Core.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Dialect,
    LargeBinary,
    Table,
    and_,
    func,
    or_,
    tuple_,
)
from sqlalchemy.dialects.mysql import VARBINARY
from sqlalchemy.exc import IntegrityError

from crdt.store.connection import driver_connection
from crdt.store.statement import fetch

# What an upsert makes of a column, of its old value and the new row's.
GIVEN: Final = "{new}"
ADDED: Final = "{old} + {new}"
LARGER: Final = "{greatest}({old}, {new})"

LOOKUP_KEYS: Final = 512  # of one statement

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
        elif dialect.name == "sqlite":
            _insert(connection, text, rows)
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
    """Reads the rows of many keys at once; SQLAlchemy's own IN costs three times as much.

    A database remembers a statement by its text, so there are few: one for each power of two of keys, the
    last of them said as often as it takes. PostgreSQL gets them as one array.
    """

    def __init__(self, table: Table, key: str, columns: Sequence[str], within: str | None = None) -> None:
        """`key`: a column that finds rows by an index, after `within`, if any, which has one value for all.

        `columns`: those of the answer.
        """
        self._table = table
        self._key = key
        self._within = within
        self._columns = tuple(columns)
        self._texts: dict[tuple[str, int], str] = {}  # by dialect and number of keys

    def run(
        self, connection: Connection, keys: Collection[Any], within: Any = None
    ) -> Iterator[tuple[Any, ...]]:
        """The rows with one of these keys, in no order; `within` is the value of that column."""
        every = list(keys)
        first = [] if self._within is None else [within]
        for at in range(0, len(every), LOOKUP_KEYS):
            part = every[at : at + LOOKUP_KEYS]
            if connection.dialect.name == "postgresql":
                yield from fetch(connection, self._text(connection.dialect, 1), [*first, part])
                continue
            part += [part[-1]] * (_room(len(part)) - len(part))
            yield from fetch(connection, self._text(connection.dialect, len(part)), first + part)

    def _text(self, dialect: Dialect, count: int) -> str:
        text = self._texts.get((dialect.name, count))
        if text is None:
            text = self._texts[dialect.name, count] = self._made(dialect, count)
        return text

    def _made(self, dialect: Dialect, count: int) -> str:
        quote = dialect.identifier_preparer.quote
        mark = {"sqlite": "?", "postgresql": "%b"}.get(dialect.name, "%s")
        within = "" if self._within is None else f"{quote(self._within)} = {mark} AND "
        keys = f"IN ({', '.join([mark] * count)})"
        if dialect.name == "postgresql":
            keys = f"= ANY(%b::{_array_of(self._table.c[self._key].type.compile(dialect))})"
        columns, table = ", ".join(map(quote, self._columns)), quote(self._table.name)
        return f"SELECT {columns} FROM {table} WHERE {within}{quote(self._key)} {keys}"  # noqa: S608 - our own names


def short_bytes(length: int) -> Any:
    """The type of a short binary value; MySQL and MariaDB cannot index a BLOB."""
    return LargeBinary(length).with_variant(VARBINARY(length), "mysql", "mariadb")


def replacing(table: Table) -> Bulk:
    """Rows that take the place of those with the same key."""
    key = {column.name for column in table.primary_key}
    names = table.columns.keys()
    return Bulk(table, names, {name: GIVEN for name in names if name not in key})


def beyond(
    dialect: Dialect, columns: tuple[Column[Any], Column[Any]], values: tuple[Any, Any]
) -> ColumnElement[bool]:
    """Rows after a place in an index of two columns, found by the index. `values`: bound ones, or parameters.

    MariaDB and MySQL read the whole index for a comparison of rows; SQLite and PostgreSQL for the long form.
    """
    (first, second), (low, key) = columns, values
    if dialect.name in _MYSQL:
        return or_(first > low, and_(first == low, second > key))
    return tuple_(first, second) > tuple_(*values, types=[first.type, second.type])


def total(column: ColumnElement[int]) -> ColumnElement[int]:
    """The exact sum of a column of minor units; a Decimal on some databases, so `int` it."""
    return func.coalesce(func.sum(column), 0)


def _insert(connection: Connection, text: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """By the driver; a key that is there already is SQLAlchemy's error, as on every database."""
    try:
        driver_connection(connection).executemany(text, rows)
    except connection.dialect.loaded_dbapi.IntegrityError as err:
        raise IntegrityError(text, None, err, hide_parameters=True) from err


def _room(count: int) -> int:
    """The power of two that holds this many."""
    return 1 << (count - 1).bit_length()


def _on_conflict(table: Table, dialect: Dialect) -> str:
    if dialect.name in _MYSQL:
        return "ON DUPLICATE KEY UPDATE"
    quote = dialect.identifier_preparer.quote
    return f"ON CONFLICT ({', '.join(quote(column.name) for column in table.primary_key)}) DO UPDATE SET"


def _array_of(type_: str) -> str:
    """The array type of a column's; without the length, which the column itself checks."""
    return type_.split("(")[0] + "[]"
