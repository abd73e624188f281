"""What a terminal's ledger asks of its database beyond what a hub's does: a tap writes on its own thread."""

from __future__ import annotations

from typing import Protocol

from crdt.store.store import Store
from crdt.store.writer import Direct


class LocalStore(Store, Protocol):
    """An open database of this process alone: `Database`, or `InlineDatabase` in a simulation."""

    @property
    def direct(self) -> Direct:
        """`with database.direct as sql`: the calling thread writes, before everything that waits."""

    def own(self, owner: object) -> None:
        """Within a write: `owner` alone keeps what it knows of this database in memory from now on."""

    def owner(self) -> object:
        """Who was the last to `own` this database; None before."""

    def check_owner(self, owner: object) -> None:
        """Within a write: raise MisuseError unless `owner` was the last to `own` this database."""

    def is_owner(self, owner: object) -> bool:
        """Whether `owner` was the last to `own` this database."""
