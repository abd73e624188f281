"""Databases that tests are given on a server."""

import os
from urllib.parse import urlsplit

import pytest

from crdt.facts import Draft, Kind
from crdt.store.schema import BLOCK
from crdt.store.server import ServerDatabase
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.servers import KEPT, SERVERS, TABLES, Server
from tests.crdt.store.stores import open_ledger


@pytest.mark.parametrize("server", list(SERVERS), indirect=True)
def test_a_database_that_is_given_again_is_as_a_new_one(server: Server) -> None:
    """Another test has filled it: nothing is left, another key opens it, and rows count from the first."""
    first = server.with_tables()
    name = urlsplit(first).path.lstrip("/")
    for key in (KEY, bytes(32)):
        with ServerDatabase.open(first, key) as store:
            hub = open_ledger(store, os.urandom)
            hub.append(card(1), [Draft(Kind.TOPUP, 500)], 1).result()
            with server.connected(name) as connection:
                assert connection.execute(BLOCK.select()).one().ordinal == 1
            hub.close()
        given = [server.with_tables() for _ in range(KEPT)]
        assert given[-1] == first
        with server.connected(name) as connection:
            for metadata in TABLES:
                for table in metadata.sorted_tables:
                    assert connection.execute(table.select()).first() is None, table.name
