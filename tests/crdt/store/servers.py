"""Real database servers from Debian's packages, in a temporary directory, while tests need them."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any, Self

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from crdt.store import secrets
from crdt.store.connection import KEY_BYTES
from crdt.store.hub_schema import HUB_METADATA
from crdt.store.server import ServerDatabase
from crdt.store.server_writer import LOCK_METADATA
from hub.demo.home import free_port
from tests.memory import memory
from tests.needs import needs_program

PATIENCE_S = 60
KEPT = 8  # databases of one server: more than any test uses at once
ROOM_BYTES = 1 << 30
TABLES = (LOCK_METADATA, secrets.METADATA, HUB_METADATA)
LEFT_OVER = "is still in use"  # PostgreSQL says so of the memory of one that was killed
_NOBODY = "nobody"  # servers refuse to run as root


class Server(ABC):
    """One server with everything in a directory of its own."""

    name: str
    BEGIN_ANEW: str
    """Takes all rows out of a table whose rows it numbers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = itertools.count(1)
        self._databases: deque[str] = deque()
        self._prepared: deque[str] = deque()
        self._process: subprocess.Popen[bytes] | None = None
        self.found()
        self.start()

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """A fresh server, stopped and removed afterwards."""
        cls.needs()
        directory = new_directory(f"farebox-{cls.name}-")
        try:
            if os.geteuid() == 0:
                shutil.chown(directory, _NOBODY)
            server = cls(directory)
            try:
                yield server
            finally:
                server.discard()
        finally:
            shutil.rmtree(directory)

    def start(self) -> None:
        """Start it and wait until it answers."""
        begun = self._launch()
        pause = threading.Event()
        for _ in range(PATIENCE_S * 50):
            if self.answers():
                break
            if self._process is None or self._process.poll() is not None:
                if LEFT_OVER not in self._said()[begun:]:
                    break
                begun = self._launch()  # what was killed with -9 has children that end a moment later
            pause.wait(0.02)
        else:
            self.kill()
        if self._process is None or self._process.poll() is not None:
            raise AssertionError(f"{self.name} does not start:\n{self.last_words()}")

    def _launch(self) -> int:
        """Start the process; how much the log had before."""
        with (self.directory / "log").open("ab") as log:
            begun = len(self._said())
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, **self.somebody())
        return begun

    @property
    def fallen(self) -> bool:
        """Whether it has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def last_words(self) -> str:
        """The end of its log."""
        return self._said()[-4000:]

    def _said(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def renew(self) -> None:
        """Begin once more, with nothing in it, after it has fallen."""
        self._process = None
        self._databases.clear()
        self._prepared.clear()
        shutil.rmtree(self.directory / "data")
        self.found()
        self.start()

    def stop(self) -> None:
        """Stop it in good order; connections are cut."""
        self._end(signal.SIGINT if self.name == "postgresql" else signal.SIGTERM)

    def kill(self) -> None:
        """Stop it as a crash would."""
        self._end(signal.SIGKILL)

    def discard(self) -> None:
        """Stop it for good, at once: what it would still write, nobody reads."""
        self._end(signal.SIGQUIT if self.name == "postgresql" else signal.SIGKILL)

    def fresh(self) -> str:
        """A new, empty database; its address. The last few are kept."""
        self._databases.append(self._new())
        if len(self._databases) > KEPT:
            self.run(f"DROP DATABASE {self._databases.popleft()}")
        return self.url(self._databases[-1])

    def with_tables(self) -> str:
        """A database with a hub's tables and nothing in them; its address. After some, an old one again."""
        name = self._new_with_tables() if len(self._prepared) < KEPT else self._prepared.popleft()
        self._empty(name)
        self._prepared.append(name)
        return self.url(name)

    def run(self, statement: str) -> Any:
        """Run a statement as the server's owner; the first value it finds."""
        with self.connected() as connection:
            result = connection.exec_driver_sql(statement)
            return result.scalar() if result.returns_rows else None

    @contextmanager
    def connected(self, database: str = "") -> Iterator[Connection]:
        """As the server's owner, outside any transaction; without a database where databases are made."""
        engine = create_engine(self.driver_url(database), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection

    def answers(self) -> bool:
        """Whether it can be asked something."""
        try:
            self.run("SELECT 1")
        except DBAPIError:
            return False
        return True

    def somebody(self) -> dict[str, Any]:
        """Who runs it, for subprocess: whoever runs the tests, but not root."""
        if os.geteuid() != 0:
            return {}
        nobody = pwd.getpwnam(_NOBODY)
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}

    def _new(self) -> str:
        name = f"ledger{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return name

    def _new_with_tables(self) -> str:
        name = self._new()
        with ServerDatabase.open(self.url(name), bytes(KEY_BYTES)) as store:
            store.create(HUB_METADATA)
        return name

    def _empty(self, name: str) -> None:
        """Take everything out; rows are numbered from the first again. About half the work of a new one."""
        with self.connected(name) as connection:
            for table in itertools.chain.from_iterable(metadata.sorted_tables for metadata in TABLES):
                numbered = table.autoincrement_column is not None
                words = self.BEGIN_ANEW if numbered else "DELETE FROM {}"
                connection.exec_driver_sql(words.format(table.name))

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    @classmethod
    @abstractmethod
    def needs(cls) -> None:
        """Skip the test where its programs are not installed."""

    @abstractmethod
    def found(self) -> None:
        """Make the directory of its data."""

    @abstractmethod
    def command(self) -> list[str]:
        """How it is started."""

    @abstractmethod
    def url(self, database: str) -> str:
        """The address a hub is given."""

    @abstractmethod
    def driver_url(self, database: str) -> str:
        """The same for SQLAlchemy; without a database where its owner may make some."""


class PostgreSQL(Server):
    """As Debian brings it, on a Unix socket; its programs are not on PATH."""

    name = "postgresql"
    BEGIN_ANEW = "TRUNCATE {} RESTART IDENTITY"

    @classmethod
    def needs(cls) -> None:
        needs_program("initdb", "run the ledger on PostgreSQL")

    def found(self) -> None:
        initdb = needs_program("initdb", "run the ledger on PostgreSQL")
        data = self.directory / "data"
        subprocess.run(
            [initdb, "-D", data, "-U", "farebox", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.directory,
            **self.somebody(),
        )

    def command(self) -> list[str]:
        server = needs_program("initdb", "run the ledger on PostgreSQL").with_name("postgres")
        data = str(self.directory / "data")
        # Shared memory that lies in its directory goes with it, also when it was killed.
        settings = ("listen_addresses=", "dynamic_shared_memory_type=mmap")
        options = [part for setting in settings for part in ("-c", setting)]
        return [str(server), "-D", data, "-k", str(self.directory), *options]

    def url(self, database: str) -> str:
        return f"postgresql://farebox@/{database}?host={self.directory}"

    def driver_url(self, database: str) -> str:
        return self.url(database or "postgres").replace("postgresql:", "postgresql+psycopg:")


class PostgreSQLOverTCP(PostgreSQL):
    """The same on a port, for what a Unix socket does not do."""

    def found(self) -> None:
        super().found()
        self._port = free_port(SystemRandom())

    def command(self) -> list[str]:
        return [*super().command(), "-c", "listen_addresses=127.0.0.1", "-c", f"port={self._port}"]

    def url(self, database: str) -> str:
        return f"postgresql://farebox@127.0.0.1:{self._port}/{database}"


class MariaDB(Server):
    """As Debian brings it. On a port: PyMySQL forgets to close a Unix socket that nobody answers."""

    name = "mariadb"
    BEGIN_ANEW = "TRUNCATE {}"

    @classmethod
    def needs(cls) -> None:
        needs_program("mariadbd", "run the ledger on MariaDB")

    def found(self) -> None:
        install = needs_program("mariadb-install-db", "run the ledger on MariaDB")
        data = self.directory / "data"
        subprocess.run(
            # One that starts removes all temporary tables in it: in /tmp also those of others, which crash.
            [
                install,
                "--no-defaults",
                f"--datadir={data}",
                f"--tmpdir={self.directory}",
                "--auth-root-authentication-method=normal",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.directory,
            **self.somebody(),
        )
        (self.directory / "users.sql").write_text(
            "CREATE USER IF NOT EXISTS farebox@'127.0.0.1';\nGRANT ALL ON *.* TO farebox@'127.0.0.1';\n"
        )
        self._port = free_port(SystemRandom())

    def command(self) -> list[str]:
        server = needs_program("mariadbd", "run the ledger on MariaDB")
        return [
            str(server),
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            f"--tmpdir={self.directory}",
            f"--init-file={self.directory / 'users.sql'}",
            "--bind-address=127.0.0.1",
            f"--port={self._port}",
            "--skip-name-resolve",
        ]

    def url(self, database: str) -> str:
        # It has no TLS. PyMySQL reads all the root certificates of the machine for each connection otherwise.
        return f"mariadb://farebox@127.0.0.1:{self._port}/{database}?ssl_disabled=1"

    def driver_url(self, database: str) -> str:
        return self.url(database).replace("mariadb:", "mariadb+pymysql:")


def new_directory(prefix: str) -> Path:
    """In memory, where there is room. No test cuts a server's power, and kill -9 leaves memory as it is.

    The name is short: a socket is in it.
    """
    return Path(tempfile.mkdtemp(prefix=prefix, dir=memory(ROOM_BYTES)))


SERVERS: dict[str, type[Server]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}
