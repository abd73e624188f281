"""Where a database server is, and how every connection to it is set up: PostgreSQL, MariaDB or MySQL."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from crdt.errors import DriverUnusable, StoreFailed

CONNECT_TIMEOUT_S: Final = 5
LOCK_TIMEOUT_S: Final = 20  # longest wait for another process's transaction
IDLE_TIMEOUT_S: Final = 60  # after which the server ends a transaction whose process is out of reach

SILENCE_S: Final = 60  # after which a server that says nothing counts as gone; by itself TCP takes hours

_ALIVE: Final = {
    "application_name": "farebox",
    "keepalives_idle": SILENCE_S // 2,
    "keepalives_interval": SILENCE_S // 6,
    "keepalives_count": 3,
    "tcp_user_timeout": SILENCE_S * 1000,
}

_DRIVERS: Final = {
    "postgresql": ("postgresql+psycopg", "psycopg"),
    "mariadb": ("mariadb+pymysql", "pymysql"),
    "mysql": ("mysql+pymysql", "pymysql"),
}

# What a connection is told at once. MySQL would otherwise cut short what is too long, or store a table where
# no transaction can be undone.
_SETTINGS: Final = {
    "postgresql": (f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'",),
    "mysql": (
        f"SET SESSION innodb_lock_wait_timeout = {LOCK_TIMEOUT_S}",
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO'",
        "SET SESSION default_storage_engine = InnoDB",
    ),
}

# A transaction whose answer nobody takes is not idle to PostgreSQL: over TCP this ends it. A server that only
# speaks as PostgreSQL does may not have it.
_UNREAD: Final = "SELECT set_config(name, '{}s', false) FROM pg_settings WHERE name = 'tcp_user_timeout'"

# What the server has to be set to, so that what is acknowledged is on its disk and text comes back as it was.
_DEMANDS: Final = {
    "postgresql": (
        ("SHOW fsync", ("on",), "fsync = on"),
        ("SHOW synchronous_commit", ("on", "remote_write", "remote_apply"), "synchronous_commit = on"),
        ("SHOW server_encoding", ("UTF8",), "a database made with ENCODING 'UTF8'"),
    ),
    "mysql": (
        ("SELECT @@innodb_flush_log_at_trx_commit", ("1",), "innodb_flush_log_at_trx_commit = 1"),
        ("SELECT @@innodb_doublewrite", ("1", "ON"), "innodb_doublewrite = ON"),
    ),
}


@dataclass(frozen=True, slots=True)
class Server:
    """A database on a server, not connected yet. Made by `parse`."""

    url: URL

    @classmethod
    def parse(cls, text: str) -> Server:
        """The server of an address such as `postgresql://user:password@host/database`.

        Also mariadb:// and mysql://. Raises DriverUnusable or StoreFailed; neither repeats the address, in
        which the password stands.
        """
        try:
            url = make_url(text)
        except ArgumentError:
            raise StoreFailed(_EXPECTED) from None
        name = url.get_backend_name()
        if name not in _DRIVERS or not url.database:
            raise StoreFailed(_EXPECTED)
        drivername, module = _DRIVERS[name]
        try:
            importlib.import_module(module)
        except ImportError as err:
            raise DriverUnusable(
                f"The driver for {name} is not installed ({err}). Run: pip install 'farebox[server]'"
            ) from err
        return cls(url.set(drivername=drivername))

    @property
    def is_postgresql(self) -> bool:
        """Whether it is PostgreSQL, or a server that speaks as it does."""
        return self.url.get_backend_name() == "postgresql"

    @property
    def place(self) -> str:
        """The address for a person: without user and password."""
        where = (
            self.url.host or self.url.query.get("host") or self.url.query.get("unix_socket") or "localhost"
        )
        return f"{self.url.database} on {where if isinstance(where, str) else where[0]}"

    def engine(self, *, read_only: bool, idle_s: int = IDLE_TIMEOUT_S) -> Engine:
        """Makes connections: to read, one snapshot a transaction; or to write, upon what is committed.

        `idle_s`: after which the server undoes the transaction of a process that it hears nothing of.
        """
        options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
        if self.is_postgresql:
            options |= _ALIVE
        else:
            options |= {"charset": "utf8mb4", "read_timeout": SILENCE_S, "write_timeout": SILENCE_S}
        engine = create_engine(
            self.url,
            poolclass=NullPool,
            connect_args=options,
            isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
            hide_parameters=True,
        )
        settings = self._settings(read_only, idle_s)

        @event.listens_for(engine, "connect")
        def set_up(raw: Any, _record: Any) -> None:
            with raw.cursor() as cursor:
                for statement in settings:
                    cursor.execute(statement)
            raw.commit()

        return engine

    def _settings(self, read_only: bool, idle_s: int) -> Sequence[str]:
        if self.is_postgresql:
            mode = "on" if read_only else "off"
            idle = f"SET idle_in_transaction_session_timeout = '{idle_s}s'"
            unread = _UNREAD.format(idle_s)
            return *_SETTINGS["postgresql"], idle, unread, f"SET default_transaction_read_only = {mode}"
        if read_only:  # holds nothing that others wait for
            return _SETTINGS["mysql"]
        # Ends a connection that idles outside a transaction too. MariaDB's idle_write_transaction_timeout
        # does not count a transaction that has only locked a row, and MySQL has nothing of the kind.
        return *_SETTINGS["mysql"], f"SET SESSION wait_timeout = {idle_s}"


def check_server(connection: Connection, place: str) -> None:
    """Raise StoreFailed unless the server keeps what it acknowledges, and gives back text as it was."""
    family = "postgresql" if connection.dialect.name == "postgresql" else "mysql"
    for query, good, demand in _DEMANDS[family]:
        found = str(connection.exec_driver_sql(query).scalar_one())
        if found not in good:
            raise StoreFailed(
                f"The database {place} is not safe for money: {query.split()[-1].lstrip('@')} is {found}. "
                f"It needs {demand}."
            )


_EXPECTED: Final = (
    "The address of the database server is not understood. It reads "
    "postgresql://USER:PASSWORD@HOST/DATABASE, or the same with mariadb:// or mysql://."
)
