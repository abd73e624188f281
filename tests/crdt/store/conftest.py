"""A real encrypted database in a temporary directory, for every test of the store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.store.database import Database
from tests.crdt import world
from tests.crdt.store.fleet import Fleet
from tests.crdt.store.servers import SERVERS, Server
from tests.crdt.store.stores import FleetOn, NewFleet, store_opener

KEY = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's ledger is."""
    return tmp_path / "ledger.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """An open, empty database."""
    with Database.open(path, KEY) as database:
        yield database


@pytest.fixture
def new_fleet(server: Server | None, tmp_path_factory: pytest.TempPathFactory) -> NewFleet:
    """Makes fleets, whose hubs are on the server."""

    def make(terminals: int) -> FleetOn:
        directory = tmp_path_factory.mktemp("fleet")
        return FleetOn(directory, terminals, store_opener(server, directory, with_tables=True))

    return make


@pytest.fixture
def fleet(new_fleet: NewFleet) -> Iterator[Fleet]:
    """A new hub that knows the terminals, and reads every page from its tables."""
    fleet = new_fleet(0)
    fleet.hub.merge([], world.CERTIFICATES).result()
    yield fleet
    fleet.close()


@pytest.fixture
def mortal(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own, to be stopped or killed."""
    with SERVERS[request.param].running() as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    """A database of the test's own."""
    return server.fresh()
