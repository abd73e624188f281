"""What a server says no to: a write, for as long as it is a standby; and sentences that say what to do."""

import pytest
from sqlalchemy import Connection

from crdt.errors import StoreFailed
from crdt.store.server import ServerDatabase
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.merger import insist
from tests.crdt.store.servers import Server
from tests.crdt.store.sharing import TOPUP, hubs, on_servers, store_of

# As every transaction is on a standby: on this connection, and on no new one.
READ_ONLY = {
    "postgresql": "SET default_transaction_read_only = on",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
RAISE = {
    "postgresql": "DO $$ BEGIN RAISE 'so it is' USING ERRCODE = '{}'; END $$",
    "mariadb": "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {}, MESSAGE_TEXT = 'so it is'",
}
SAID = [
    ("25006", "1290", "broke off: so it is. .*a standby, or a server that was set so. Check where"),
    ("25006", "1836", "broke off: so it is. .*a standby, or a server that was set so. Check where"),
    ("53100", "1114", "failed: so it is. .*Free some space on the disk"),
    ("55P03", "1205", "failed: so it is. .*Another hub has been writing for long"),
    ("57014", "1969", "failed: so it is. .*raise it for the hub's user"),
]


@on_servers
def test_a_connection_to_a_server_that_takes_no_writes_is_given_up(url: str, server: Server) -> None:
    """After a take-over behind a proxy that leaves old connections open nobody has to start the hub again."""
    with hubs(url, 1) as (hub,):
        hub.append(card(1), [TOPUP], 1).result()
        store_of(hub).write_and_wait(lambda sql: sql.exec_driver_sql(READ_ONLY[server.name]))
        insist(lambda: hub.append(card(1), [TOPUP], 2))
        assert hub.balance(card(1)).result() == 2000


@on_servers
def test_what_an_operator_can_mend_is_told_with_what_to_do(url: str, server: Server) -> None:
    """The server's own words are there too; where it will pass by itself "try again" is all."""
    with ServerDatabase.open(url, KEY) as store:
        for *codes, sentence in SAID:
            statement = RAISE[server.name].format(codes[server.name != "postgresql"])

            def refused(connection: Connection, statement: str = statement) -> None:
                connection.exec_driver_sql(statement)

            with pytest.raises(StoreFailed, match=sentence):
                store.write_and_wait(refused)
        assert not store.failed
