"""An encrypted connection: the key, the pragmas that make a commit durable, the driver's errors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from crdt.errors import MisuseError, StoreFailed, WrongKey
from crdt.store.directory import sync_directory

KEY_BYTES: Final = 32
BUSY_TIMEOUT_MS: Final = 5_000  # only a foreign tool on the same file can make us wait at all
WAL_FALLBACK_PAGES: Final = 4_000  # 16 MB: past this a commit moves the log itself, see Database
# Prepared on a connection: more than any ledger has. Preparing one again costs more than running it, and past
# its limit (128 by itself) the driver drops what was used least: of two new ones each then drops the other.
KEPT_STATEMENTS: Final = 512
WAL_KEPT_BYTES: Final = 16 * 1024 * 1024  # a log grown by a bulk load is cut back to this

# SQLite's primary result codes after which the file is not to be trusted until it has been opened anew.
_BROKEN_CODES: Final = frozenset({7, 8, 10, 11, 13, 14, 15, 26})
# The same for a driver that gives no code; the texts are sqlite3_errstr()'s.
_BROKEN_TEXTS: Final = (
    "out of memory",
    "attempt to write a readonly database",
    "disk I/O error",
    "database disk image is malformed",
    "database or disk is full",
    "unable to open database file",
    "locking protocol",
    "file is not a database",
)


class DriverConnection(Protocol):
    """What is used of a DB-API connection to SQLite."""

    @property
    def total_changes(self) -> int: ...  # rows changed since it was opened

    @property
    def in_transaction(self) -> bool: ...

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ...) -> Any: ...  # a cursor

    def cursor(self) -> Any: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> Any: ...

    def close(self) -> None: ...


class Layout(NamedTuple):
    """How a file is cut into pages, and how much of it a connection keeps in memory.

    An encrypted file does not say how it is cut: whoever opens it with another size finds no database.
    """

    page_bytes: int
    cache_kib: int


HUB_LAYOUT: Final = Layout(4_096, 8_000)  # the driver's own size; its tables are large
TERMINAL_LAYOUT: Final = Layout(2_048, 2_000)
"""A tap's commit encrypts, signs and writes one page, and costs a thirtieth less than with the driver's size.

The inner pages of a million cards' balances take under a megabyte, and memory is short there.
"""


def connect(
    driver: ModuleType, path: Path, key: bytes, query_only: bool = False, layout: Layout = HUB_LAYOUT
) -> Connection:
    """A SQLAlchemy connection that keeps one encrypted driver connection.

    It is in autocommit as far as SQLAlchemy knows: BEGIN and COMMIT are ours. Any thread may use it, one at a
    time. Raises WrongKey, StoreFailed.
    """
    engine = create_engine(
        "sqlite://",
        module=driver,
        creator=lambda: _open(driver, path, key, query_only, layout),
        poolclass=StaticPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,  # an error goes to a log; keys and cards do not
    )
    return engine.connect()


def connect_in_memory(driver: ModuleType) -> Connection:
    """The same on a new database in memory, which is not encrypted and ends with it."""
    engine = create_engine(
        "sqlite://",
        module=driver,
        creator=lambda: driver.connect(
            ":memory:", isolation_level=None, check_same_thread=False, cached_statements=KEPT_STATEMENTS
        ),
        poolclass=StaticPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
    )
    return engine.connect()


def driver_connection(connection: Connection) -> DriverConnection:
    """The driver's own connection under a SQLAlchemy one."""
    raw: DriverConnection | None = connection.connection.driver_connection
    if raw is None:
        raise MisuseError("the connection is closed")
    return raw


def dispose(connection: Connection) -> None:
    """Close a connection of `connect` and what is under it."""
    connection.close()
    connection.engine.dispose()


def is_broken(err: BaseException) -> bool:
    """Whether this error means that the disk or the file failed, rather than that a statement was wrong."""
    original = err.orig if isinstance(err, DBAPIError) else err
    if original is None:
        return False
    code = getattr(original, "sqlite_errorcode", None)
    if isinstance(code, int):
        return code & 0xFF in _BROKEN_CODES
    return type(original).__module__.startswith("pysqlcipher3") and str(original).startswith(_BROKEN_TEXTS)


def _open(driver: ModuleType, path: Path, key: bytes, query_only: bool, layout: Layout) -> DriverConnection:
    _touch(path)
    try:
        raw: DriverConnection = driver.connect(
            str(path), isolation_level=None, check_same_thread=False, cached_statements=KEPT_STATEMENTS
        )
    except driver.Error as err:
        raise StoreFailed(f"The ledger {path} cannot be opened: {err}. Check the directory.") from err
    try:
        _unlock(driver, raw, path, key, layout)
        _configure(raw, query_only, layout)
    except driver.Error as err:
        raw.close()
        raise StoreFailed(f"The ledger {path} cannot be used: {err}. Check the disk.") from err
    except BaseException:
        raw.close()
        raise
    return raw


def _touch(path: Path) -> None:
    """Make the file readable by its owner only, and its directory entry durable."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        sync_directory(path.parent)
    except OSError as err:
        reason = err.strerror
        raise StoreFailed(f"The ledger {path} cannot be opened: {reason}. Check the directory.") from err


def _unlock(driver: ModuleType, raw: DriverConnection, path: Path, key: bytes, layout: Layout) -> None:
    if len(key) != KEY_BYTES:
        raise MisuseError("the database key has 32 bytes")
    # SQLCipher prints every failed page check on standard error; the person gets one sentence instead.
    raw.execute("PRAGMA cipher_log_level = NONE")
    raw.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
    raw.execute(f"PRAGMA cipher_page_size = {layout.page_bytes}")
    try:
        raw.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except driver.DatabaseError as err:
        if "not a database" not in str(err):
            raise
        raise WrongKey(
            f"The key does not open the ledger {path}: it is another installation's key, or the file is "
            "damaged. Put back the key file this ledger was made with, or restore both from a backup."
        ) from err
    raw.execute("PRAGMA cipher_log_level = ERROR")


def _configure(raw: DriverConnection, query_only: bool, layout: Layout) -> None:
    mode = raw.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreFailed(f"The disk does not support a write-ahead log ({mode}); use a local disk.")
    for pragma in (
        "synchronous = FULL",  # NORMAL loses acknowledged taps at a power cut
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        f"wal_autocheckpoint = {WAL_FALLBACK_PAGES}",
        f"journal_size_limit = {WAL_KEPT_BYTES}",
        "temp_store = MEMORY",
        f"cache_size = {-layout.cache_kib}",
        "trusted_schema = OFF",
        f"query_only = {int(query_only)}",
    ):
        raw.execute(f"PRAGMA {pragma}")
