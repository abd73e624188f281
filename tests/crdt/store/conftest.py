"""A real encrypted database in a temporary directory, for every test of the store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.store.database import Database

KEY = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's ledger is."""
    return tmp_path / "ledger.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """An open, empty database."""
    with Database.open(path, KEY) as database:
        yield database
