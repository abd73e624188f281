"""A backup is the ledger of one moment, opens with its key only, and never gets in the ledger's way."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, func, insert, select

from crdt.errors import StoreFailed, WrongKey
from crdt.store.backup import back_up
from crdt.store.database import Database
from tests.crdt.store.conftest import KEY

METADATA = MetaData()
PAIR = Table("pair", METADATA, Column("id", Integer, primary_key=True), Column("side", Integer))


def sums(connection: Connection) -> tuple[int, int]:
    query = select(func.count(), func.coalesce(func.sum(PAIR.c.side), 0))
    count, total = connection.execute(query).one()
    return count, total


def add_pair(connection: Connection) -> None:
    connection.execute(insert(PAIR), [{"side": 1}, {"side": -1}])


def test_a_copy_is_of_one_moment_while_the_ledger_is_written_to(
    path: Path, database: Database, tmp_path: Path
) -> None:
    """Never half of a transaction, and nobody who writes waits for it or fails."""
    database.create(METADATA)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            database.write_and_wait(add_pair)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            back_up(path, KEY, tmp_path / f"copy-{number}")
    finally:
        stop.set()
        writer.join()
    seen = 0
    for number in range(5):
        with Database.open(tmp_path / f"copy-{number}", KEY) as copy:
            count, total = copy.read_and_wait(sums)
        assert total == 0
        assert count >= seen
        seen = count
    assert database.read_and_wait(sums)[0] >= seen > 0


def test_a_copy_is_encrypted_and_for_its_owner_only(path: Path, database: Database, tmp_path: Path) -> None:
    database.put_secret("name", b"in the clear?" * 100)
    copy = tmp_path / "copy"
    back_up(path, KEY, copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert b"in the clear?" not in copy.read_bytes()
    with pytest.raises(WrongKey):
        Database.open(copy, bytes(32))


def test_what_is_there_is_not_overwritten(path: Path, database: Database, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(b"last week's")
    with pytest.raises(StoreFailed, match="File exists"):
        back_up(path, KEY, copy)
    assert copy.read_bytes() == b"last week's"


def test_a_copy_that_fails_leaves_nothing_and_the_ledger_works(
    path: Path, database: Database, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    with pytest.raises(WrongKey):
        back_up(path, bytes(32), copy)
    assert not copy.exists()
    database.create(METADATA)
    database.write_and_wait(add_pair)
    assert not database.failed
