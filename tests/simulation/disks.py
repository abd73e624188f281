"""Databases in memory that are used over and over: making the tables costs more than a whole simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from crdt.store.connection import driver_connection
from crdt.store.hub_schema import HUB_METADATA
from crdt.store.inline import InlineDatabase
from crdt.store.terminal_schema import TERMINAL_METADATA
from hub import tables

Image = dict[str, list[tuple[Any, ...]]]  # the rows of every table that has any

_SPARE: Final[list[Disk]] = []


class Disk:
    """One computer's disk: a database that outlives what works on it."""

    def __init__(self) -> None:
        self._database = InlineDatabase.open(None, b"")
        for metadata in (HUB_METADATA, tables.metadata, TERMINAL_METADATA):  # a hub's or a terminal's
            self._database.create(metadata)
        self._raw = driver_connection(self._database.connection)
        names = self._raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        self._tables = sorted(name for (name,) in names)
        self._ask_filled = " UNION ALL ".join(
            f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table})"  # noqa: S608 - our own names
            for table in self._tables
        )

    def start(self, cut: Callable[[], None], *, eager: bool) -> InlineDatabase:
        """The database as a start of the program finds it."""
        self._database = self._database.after_power_cut(cut=cut, eager=eager)
        return self._database

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What is on the disk."""
        found: list[tuple[Any, ...]] = self._raw.execute(sql, parameters).fetchall()
        return found

    @property
    def in_transaction(self) -> bool:
        """Whether something written is not committed."""
        return self._raw.in_transaction

    def image(self) -> Image:
        """A copy of everything on it."""
        image = {}
        for table in self._filled():
            image[table] = self.rows(f"SELECT * FROM {table}")  # noqa: S608 - our own names
        return image

    def put_back(self, image: Image) -> None:
        """Make it what it was when the image was taken. Nothing may be working on it."""
        self._raw.execute("BEGIN")
        for table in self._filled():
            self._raw.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
        for table, rows in image.items():
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                self._raw.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608 - our own names
        self._raw.execute("COMMIT")

    def _filled(self) -> list[str]:
        """The tables that have rows; asked in one statement, for most have none."""
        return [name for (name,) in self._raw.execute(self._ask_filled).fetchall()]

    def give_back(self) -> None:
        """Keep it for another simulation."""
        self._database.after_power_cut()
        self.put_back({})
        _SPARE.append(self)


def empty_disk() -> Disk:
    """A disk with empty tables."""
    return _SPARE.pop() if _SPARE else Disk()
