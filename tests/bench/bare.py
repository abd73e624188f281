"""What everything is compared with: SQLCipher by itself, with the pragmas of a durable commit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlcipher3

KEY = bytes(range(32))


def connect(path: Path) -> Any:
    """A bare encrypted connection: WAL, synchronous=FULL, everything else as it comes."""
    connection = sqlcipher3.connect(str(path), isolation_level=None)
    connection.execute(f"PRAGMA key = \"x'{KEY.hex()}'\"")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def insert_in_one_transaction(connection: Any, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """The quickest way to many rows."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(sql, rows)
    connection.execute("COMMIT")
