"""The databases a hub's ledger may lie in: an encrypted file, and real servers."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from crdt.store.database import Database
from crdt.store.hub import HubLedger
from crdt.store.server import ServerDatabase
from crdt.store.store import Store
from tests.crdt import world
from tests.crdt.store.fleet import KEY, Fleet
from tests.crdt.store.servers import SERVERS, Server

KINDS: Final = ("file", *SERVERS)

NewFleet = Callable[[int], Fleet]  # given how many terminals
INTERVAL_S: Final = 0.05  # at which other processes' changes are looked for


class FleetOn(Fleet):
    """A fleet whose hub keeps its ledger in any kind of database; the same one when it is opened again."""

    def __init__(self, directory: Path, terminals: int, open_store: Callable[[], Store]) -> None:
        self._open_store = open_store
        super().__init__(directory, terminals)

    def open_hub(self) -> None:
        self.hub_database = self._open_store()
        self.hub = open_ledger(self.hub_database, self._entropy)


def open_ledger(store: Store, entropy: Callable[[int], bytes]) -> HubLedger:
    """The ledger of the test world's hub."""
    return HubLedger(store, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB, entropy=entropy)


def store_opener(server: Server | None, directory: Path, *, with_tables: bool = False) -> Callable[[], Store]:
    """Opens a store that is empty the first time: on the server, or for None a file.

    `with_tables`: those of a hub's ledger may be there, for a test that is not about making them.
    """
    if server is None:
        return lambda: Database.open(directory / "hub.db", KEY, readers=2)
    url = server.with_tables() if with_tables else server.fresh()
    return lambda: ServerDatabase.open(url, KEY)  # nobody shares it: changes of others need not show soon
