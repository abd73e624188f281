"""Connections that are idle: in the middle of a write, where everybody waits for it, and between two."""

import logging
import threading
from typing import Any

import pytest
from sqlalchemy import Connection

from crdt.errors import StoreFailed
from crdt.store.hub_schema import HUB, HUB_METADATA
from crdt.store.server import ServerDatabase
from crdt.store.server_url import IDLE_TIMEOUT_S
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.servers import PostgreSQLOverTCP, Server
from tests.crdt.store.sharing import PATIENCE_S, TOPUP, hubs, on_postgresql, on_servers, until

IDLE_S = 3  # more than a busy machine pauses in a write

THREAD = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT connection_id()"}
LONG_ANSWER = b"SELECT repeat('x', 1000) FROM generate_series(1, 100000)"  # more than fits into a socket
LISTENER = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'"
END = {"postgresql": "SELECT pg_terminate_backend({})", "mariadb": "KILL {}"}


@on_servers
def test_a_process_that_is_out_of_reach_in_a_write_keeps_the_others_waiting_for_a_bounded_time(
    url: str, server: Server
) -> None:
    """A host that lost its network, a machine that was paused: it holds the lock, and nobody can ask it."""
    with hubs(url, 1) as (hub,), ServerDatabase.open(url, KEY, idle_s=IDLE_S) as stuck:
        inside, awake = threading.Event(), threading.Event()

        def stop(_connection: Connection) -> None:
            inside.set()
            awake.wait(PATIENCE_S)

        write = stuck.write(stop)
        inside.wait(PATIENCE_S)
        try:
            hub.append(card(1), [TOPUP], 1).result(PATIENCE_S)
        finally:
            awake.set()
        with pytest.raises(StoreFailed, match="Nothing was written; try again"):
            write.result(PATIENCE_S)
        stuck.put_secret("tls", b"goes on")
        assert hub.balance(card(1)).result() == 1000


def test_a_process_that_stops_in_the_middle_of_an_answer_keeps_the_others_waiting_for_a_bounded_time() -> (
    None
):
    """To PostgreSQL it is not idle then; and a machine that is paused takes what is sent for hours."""
    with PostgreSQLOverTCP.running() as server:
        url = server.fresh()
        with ServerDatabase.open(url, KEY) as other, ServerDatabase.open(url, KEY, idle_s=IDLE_S) as stuck:
            inside, awake = threading.Event(), threading.Event()

            def stop(connection: Connection) -> None:
                raw: Any = connection.connection.driver_connection
                raw.pgconn.send_query(LONG_ANSWER)
                inside.set()
                awake.wait(PATIENCE_S)

            write = stuck.write(stop)
            inside.wait(PATIENCE_S)
            try:
                booking = other.write(lambda sql: other.secrets.put(sql, "tls", b"a booking"))
                booking.result(PATIENCE_S)
            finally:
                awake.set()
            with pytest.raises(StoreFailed, match="Nothing was written"):
                write.result(PATIENCE_S)
            assert stuck.get_secret("tls") == b"a booking"


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_a_writer_whose_idle_connection_the_server_has_ended_books_all_the_same(
    url: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """That is how MariaDB and MySQL end a stuck write; at night it happens once a minute, and is no news."""
    with ServerDatabase.open(url, KEY, idle_s=IDLE_S, patience_s=0.0) as store:
        thread = _thread(store, server)
        until(lambda: thread not in _threads(server))
        store.put_secret("tls", b"a booking")
        assert store.get_secret("tls") == b"a booking"
    assert not _alarming(caplog)


@on_servers
def test_idle_connections_that_somebody_has_ended_are_made_again_without_a_word(
    url: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A firewall or a proxy between them ends any connection that idles."""
    with ServerDatabase.open(url, KEY, readers=1, patience_s=0.0) as store:
        reader = store.read_and_wait(lambda sql: sql.exec_driver_sql(THREAD[server.name]).scalar_one())
        for thread in (_thread(store, server), reader):
            server.run(END[server.name].format(thread))
        store.put_secret("tls", b"a booking")
        assert store.get_secret("tls") == b"a booking"
        server.run(END[server.name].format(_thread(store, server)))
        store.create(HUB_METADATA)
        assert store.read_and_wait(lambda sql: sql.execute(HUB.select()).all()) == []
    assert not _alarming(caplog)


@on_postgresql
def test_an_ended_connection_that_only_listens_is_made_again_without_a_word(
    url: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing happens it says nothing for hours, and `idle_session_timeout` ends it too."""
    with ServerDatabase.open(url, KEY):
        until(lambda: server.run(LISTENER) is not None)
        former = server.run(LISTENER)
        server.run(END[server.name].format(former))
        until(lambda: server.run(LISTENER) not in (None, former))
    assert not _alarming(caplog)


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_readers_may_idle_for_long(url: str, server: Server) -> None:
    """They hold nothing that others wait for: nobody waits for a connection to be made again."""
    with ServerDatabase.open(url, KEY) as store:
        assert store.write_and_wait(_idle_limit_s) == IDLE_TIMEOUT_S
        assert store.read_and_wait(_idle_limit_s) == server.run("SELECT @@global.wait_timeout")


def _thread(store: ServerDatabase, server: Server) -> int:
    """The server's number of the writer's connection."""
    return int(store.write_and_wait(lambda sql: sql.exec_driver_sql(THREAD[server.name]).scalar_one()))


def _threads(server: Server) -> list[int]:
    with server.connected() as connection:
        return list(connection.exec_driver_sql("SELECT id FROM information_schema.processlist").scalars())


def _idle_limit_s(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT @@wait_timeout").scalar_one())


def _alarming(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
