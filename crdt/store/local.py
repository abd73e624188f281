"""What a terminal's ledger asks of its database beyond what a hub's does: a tap writes on its own thread."""

from __future__ import annotations

from typing import Final, Protocol

from crdt.errors import MisuseError
from crdt.store.secrets import Secrets
from crdt.store.store import Store
from crdt.store.writer import Direct

_SECRETS: Final = Secrets()


class LocalStore(Store, Protocol):
    """An open encrypted file of this process alone: `Database`, or `InlineDatabase` in a simulation."""

    _owner: object = None

    @property
    def direct(self) -> Direct:
        """`with database.direct as sql`: the calling thread writes, before everything that waits."""

    @property
    def secrets(self) -> Secrets:
        """See Store."""
        return _SECRETS

    def own(self, owner: object) -> None:
        """Within a write: `owner` alone keeps what it knows of this database in memory from now on."""
        self._owner = owner

    def owner(self) -> object:
        """Who was the last to `own` this database; None before."""
        return self._owner

    def check_owner(self, owner: object) -> None:
        """Within a write: raise MisuseError unless `owner` was the last to `own` this database."""
        if self._owner is not owner:
            raise MisuseError("this database was given to another ledger since; go on with that one")

    def is_owner(self, owner: object) -> bool:
        """Whether `owner` was the last to `own` this database."""
        return self._owner is owner
