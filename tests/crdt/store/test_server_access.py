"""How a hub comes to a server: by its address, with its own key, and only where commits are durable."""

import pytest
from sqlalchemy import Connection, text

from crdt.errors import StoreFailed, WrongKey
from crdt.store.server import ServerDatabase
from tests.crdt.store.fleet import KEY
from tests.crdt.store.servers import Server
from tests.crdt.store.sharing import on_servers


@on_servers
def test_secrets_are_sealed_with_a_key_that_the_server_does_not_have(url: str, server: Server) -> None:
    with ServerDatabase.open(url, KEY) as store:
        store.put_secret("ca", b"a private key")
        store.put_secret("tls", b"another one")
        raw = store.read_and_wait(
            lambda sql: b"".join(sql.execute(text("SELECT value FROM secret")).scalars())
        )
        assert b"private" not in raw
        store.write_and_wait(_exchange_secrets)
        with pytest.raises(WrongKey, match="or they were altered"):
            store.get_secret("ca")
    with pytest.raises(WrongKey, match="another installation's key"):
        ServerDatabase.open(url, bytes(32))


def _exchange_secrets(connection: Connection) -> None:
    """What somebody with the server's tables could try."""
    for old, new in (("ca", "spare"), ("tls", "ca"), ("spare", "tls")):
        connection.execute(text("UPDATE secret SET name = :new WHERE name = :old"), {"old": old, "new": new})


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("sqlite:///x", "It reads postgresql://"),
        ("postgresql://u:hush@host", "It reads postgresql://"),
        ("hush", "It reads postgresql://"),
        ("postgresql://u:hush@127.0.0.1:1/x", "x on 127.0.0.1 cannot be reached.*refused"),
        ("mysql://u:hush@127.0.0.1:1/x", "x on 127.0.0.1 cannot be reached.*refused"),
    ],
)
def test_an_address_that_is_wrong_is_a_sentence_without_the_password(address: str, sentence: str) -> None:
    with pytest.raises(StoreFailed, match=sentence) as caught:
        ServerDatabase.open(address, KEY, patience_s=0.0)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "unsafe", "safe", "name"),
    [
        (
            "postgresql",
            "ALTER ROLE farebox SET synchronous_commit = off",
            "ALTER ROLE farebox RESET synchronous_commit",
            "synchronous_commit is off",
        ),
        (
            "mariadb",
            "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
            "SET GLOBAL innodb_flush_log_at_trx_commit = 1",
            "innodb_flush_log_at_trx_commit is 2",
        ),
    ],
    indirect=["server"],
)
def test_invariant_1_a_server_that_may_forget_is_refused(
    server: Server, url: str, unsafe: str, safe: str, name: str
) -> None:
    server.run(unsafe)
    try:
        with pytest.raises(StoreFailed, match=f"not safe for money: {name}"):
            ServerDatabase.open(url, KEY)
    finally:
        server.run(safe)
