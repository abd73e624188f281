"""A pooler between a hub and PostgreSQL: one that lends connections by the transaction is no server."""

import pytest

from crdt.errors import StoreFailed
from crdt.store.server import ServerDatabase
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.poolers import pooled
from tests.crdt.store.servers import Server
from tests.crdt.store.sharing import TOPUP, hubs, on_postgresql


@on_postgresql
def test_connections_that_are_lent_for_a_transaction_are_refused_and_nothing_is_made(
    url: str, server: Server
) -> None:
    """Settings, prepared statements and LISTEN would be those of whoever had the connection before."""
    with pooled(url, "transaction", server) as through:
        for _ in range(2):
            with pytest.raises(StoreFailed, match="lends its connections for one transaction.*store.url"):
                ServerDatabase.open(through, KEY)
    with server.connected(url.split("/")[3].partition("?")[0]) as connection:
        assert (
            connection.exec_driver_sql("SELECT count(*) FROM pg_tables WHERE tablename = 'writer'").scalar()
            == 0
        )


@on_postgresql
def test_connections_that_are_lent_for_a_session_are_as_good_as_the_servers(url: str, server: Server) -> None:
    with pooled(url, "session", server) as through, hubs(through, 2) as (one, other):
        one.append(card(1), [TOPUP], 1).result()
        other.append(card(1), [TOPUP], 2).result()
        assert one.balance(card(1)).result() == 2000
