"""PgBouncer from Debian's package, between a test and a PostgreSQL."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import make_url

from tests.crdt.store.servers import PATIENCE_S, Server
from tests.needs import needs_program

_SETTINGS = """\
[databases]
{database} = host={server} user={user} dbname={database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
"""


@contextmanager
def pooled(url: str, mode: str, server: Server) -> Iterator[str]:
    """The address of a database through a pooler, while it runs; `mode` is its pool_mode."""
    program = needs_program("pgbouncer", "run the ledger through a pooler")
    parts = make_url(url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    settings = server.directory / f"pooler-{port}.ini"
    words = _SETTINGS.format(
        database=parts.database, server=server.directory, user=parts.username, port=port, mode=mode
    )
    settings.write_text(words)
    with settings.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen([program, settings], stdout=log, stderr=log, **server.somebody())
    try:
        _wait_for(port, process)
        yield f"postgresql://{parts.username}@127.0.0.1:{port}/{parts.database}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    pause = threading.Event()
    for _ in range(PATIENCE_S * 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        pause.wait(0.02)
    raise AssertionError("the pooler does not start")
