"""What nobody waits for is in the log when it fails: once, in a sentence, without keys and cards."""

import logging
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from sqlalchemy import Connection, Table

from crdt.block import NOMINAL_BLOCK_DELTAS
from crdt.facts import Draft, Kind
from crdt.store.database import Database
from crdt.store.hub_schema import HISTORY
from crdt.store.jobs import Rank
from crdt.store.schema import BLOCK
from crdt.store.store import Store
from crdt.store.terminal_schema import SETTLED_HEAD
from crdt.store.trouble import Trouble
from tests.crdt.store.fleet import Fleet, card

FARE = Draft(Kind.FARE, -250)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and a terminal."""
    fleet = Fleet(tmp_path, 1)
    yield fleet
    fleet.close()


def without(database: Store, table: Table) -> None:
    """Take a table away: every step of the work that needs it fails from now on, and the disk does not."""

    def rename(connection: Connection) -> None:
        connection.exec_driver_sql(f"ALTER TABLE {table.name} RENAME TO gone")

    database.write(rename).result()


def settle(database: Store) -> None:
    """Wait until the background work that is queued is done, and what it told is told."""
    for _ in range(3):
        database.write(lambda _connection: None, rank=Rank.BACKGROUND).result()
        database.read(lambda _connection: None).result()


def test_a_history_that_cannot_grow_says_so_once(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.book(card(1), FARE)
    settle(fleet.hub_database)
    without(fleet.hub_database, HISTORY)
    for number in range(3):
        fleet.book(card(number), FARE)
        settle(fleet.hub_database)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("The history of cards stopped growing")
    assert "no such table" in record.getMessage()
    assert card(1).hex() not in caplog.text
    assert fleet.hub.balance(card(2)).result() == -250


def test_housekeeping_that_fails_says_so(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    one = fleet.terminals[0]
    settle(one.database)
    without(one.database, SETTLED_HEAD)
    for _ in range(2):
        one.ledger._installer.tidying.begin()
        settle(one.database)
    (record,) = caplog.records
    assert record.getMessage().startswith("Settled balances that no longer show are not cleared away")


def test_sealing_that_fails_says_so_and_keeps_the_taps(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    one = fleet.terminals[0]
    without(one.database, BLOCK)
    for _ in range(NOMINAL_BLOCK_DELTAS + 2):
        one.write(card(1), [FARE])
        if len(one.written) >= NOMINAL_BLOCK_DELTAS:
            settle(one.database)
    (record,) = caplog.records
    assert record.getMessage().startswith("A full segment of taps was not sealed; the taps are safe")
    assert one.ledger.status()["open"] == NOMINAL_BLOCK_DELTAS + 2


def test_what_works_again_may_fail_again_and_closing_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Database.open(tmp_path / "a.db", bytes(32)) as database:
        trouble = Trouble(database, "It does not work.")
        good, bad, cancelled = Future[None](), Future[None](), Future[None]()
        good.set_result(None)
        bad.set_exception(ValueError("why\nand with what"))
        cancelled.cancel()
        assert [trouble.judge(step) for step in (bad, bad, cancelled, bad)] == [False] * 4
        assert caplog.messages == ["It does not work. (ValueError: why)"]
        assert trouble.judge(good)
        assert not trouble.judge(bad)
        assert len(caplog.messages) == 2
        trouble.judge(good)
    assert not trouble.judge(bad)
    assert len(caplog.messages) == 2
