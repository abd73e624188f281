"""A consistent, encrypted copy of a ledger's database file, while it is in use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from sqlalchemy import Connection

from crdt.errors import StoreFailed
from crdt.store.connection import connect, dispose, driver_connection
from crdt.store.directory import sync_directory
from crdt.store.driver import choose_driver


def back_up(
    database: Path,
    key: bytes,
    copy: Path,
    driver: ModuleType | None = None,
    *,
    mark: Callable[[Connection], None] = lambda _connection: None,
) -> None:
    """Copy the database at `database` as it is now to `copy`, under the same key; durable on return.

    It has a connection of its own, so nobody who writes waits, and a full disk under `copy` is no failure of
    the ledger. `copy` must not be there yet; its mode is 0600. `mark` changes the copy alone. Raises
    WrongKey, StoreFailed: then it is not there afterwards.
    """
    module = driver or choose_driver()
    try:
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as err:
        raise StoreFailed(f"The backup {copy} cannot be made: {err.strerror}.") from err
    try:
        _vacuum_into(module, database, key, copy)
        _change(module, copy, key, mark)
        _make_durable(copy)
    except BaseException:
        with contextlib.suppress(OSError):
            copy.unlink()
        raise


def _vacuum_into(driver: ModuleType, database: Path, key: bytes, copy: Path) -> None:
    connection = connect(driver, database, key)
    try:
        # One read transaction: a snapshot, whatever is committed meanwhile. SQLCipher keeps the key.
        driver_connection(connection).execute("VACUUM INTO ?", (str(copy),))
    except driver.Error as err:
        raise _unfinished(copy, err) from err
    finally:
        dispose(connection)


def _change(driver: ModuleType, copy: Path, key: bytes, mark: Callable[[Connection], None]) -> None:
    connection = connect(driver, copy, key)
    try:
        mark(connection)
    except driver.Error as err:
        raise _unfinished(copy, err) from err
    finally:
        dispose(connection)  # what it wrote is in the file then


def _make_durable(copy: Path) -> None:
    try:
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        sync_directory(copy.parent)
    except OSError as err:
        raise StoreFailed(f"The backup {copy} is not safe on its disk: {err.strerror}.") from err


def _unfinished(copy: Path, err: Exception) -> StoreFailed:
    return StoreFailed(f"The backup {copy} cannot be made: {err}. Look whether its disk is full.")
