"""A database in the hands of one ledger: whoever was followed by another ledger writes no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from crdt.store.jobs import nothing
from crdt.store.local import LocalStore
from crdt.store.memory import Memory

T = TypeVar("T")


class Owned:
    """The database, for what works on the ledger with this memory. Its methods wait for the disk."""

    def __init__(self, database: LocalStore, memory: Memory) -> None:
        self._database = database
        self._memory = memory

    def write(self, work: Callable[[Connection], T], after: Callable[[T], None] = nothing) -> T:
        """See Store.write. Raises MisuseError when another ledger has the database since."""

        def checked(connection: Connection) -> T:
            self._database.check_owner(self._memory)
            return work(connection)

        return self._database.write_and_wait(checked, after=after)

    def read(self, work: Callable[[Connection], T]) -> T:
        """See Store.read."""
        return self._database.read_and_wait(work)
