"""The database without threads keeps the promises of the real one, and its power can be cut at any step."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table
from sqlalchemy.exc import IntegrityError

from crdt.errors import MisuseError, StoreFailed
from crdt.store.database import Database
from crdt.store.inline import InlineDatabase
from crdt.store.jobs import Rank
from tests.crdt.store.conftest import KEY

METADATA = MetaData()
NUMBER = Table("number", METADATA, Column("value", Integer, primary_key=True))
INSERT = "INSERT INTO number(value) VALUES (?)"


class PowerCut(BaseException):
    """The power was cut."""


def insert(*values: int) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        connection.exec_driver_sql(INSERT, [(value,) for value in values])
        return len(values)

    return work


def numbers(database: Database | InlineDatabase) -> list[int]:
    query = NUMBER.select().order_by(NUMBER.c.value)
    return database.wait(database.read(lambda connection: list(connection.execute(query).scalars())))


OPENERS: dict[str, Callable[[Path], Database | InlineDatabase]] = {
    "threads": lambda path: Database.open(path, KEY),
    "inline": lambda path: InlineDatabase.open(path, KEY),
    "memory": lambda _path: InlineDatabase.open(None, KEY),
}


@pytest.fixture(params=OPENERS)
def table(request: pytest.FixtureRequest, path: Path) -> Iterator[Database | InlineDatabase]:
    with OPENERS[request.param](path) as database:
        database.create(METADATA)
        yield database


def test_a_failing_job_is_undone_alone(table: Database | InlineDatabase) -> None:
    table.write(insert(1)).result()
    with pytest.raises(IntegrityError):
        table.write(insert(2, 1)).result()
    table.write(insert(3)).result()
    assert numbers(table) == [1, 3]
    assert not table.failed


def test_after_runs_once_the_job_is_durable_and_never_for_a_failed_one(
    table: Database | InlineDatabase,
) -> None:
    seen: list[int] = []
    table.write(insert(1), after=seen.append).result()
    with pytest.raises(IntegrityError):
        table.write(insert(1), after=seen.append).result()
    assert seen == [1]


def test_a_write_within_a_write_is_refused_instead_of_waiting_for_itself(
    table: Database | InlineDatabase,
) -> None:
    with pytest.raises(MisuseError):
        table.write(lambda _connection: table.write_and_wait(insert(1))).result()


def test_a_job_begun_in_a_job_runs_after_it(table: Database | InlineDatabase) -> None:
    def work(connection: Connection) -> None:
        table.write(insert(2))
        insert(1)(connection)

    table.write(work).result()
    table.write(insert(3)).result()
    assert numbers(table) == [1, 2, 3]


def test_a_tap_is_durable_or_leaves_nothing(table: Database | InlineDatabase) -> None:
    with table.direct as sql:
        sql.commit(INSERT, [(1,)])
    with pytest.raises(ZeroDivisionError), table.direct as sql:
        sql.row(INSERT + " RETURNING value", (2,))
        raise ZeroDivisionError
    assert numbers(table) == [1]


def test_secrets_are_kept_and_replaced(table: Database | InlineDatabase) -> None:
    assert table.get_secret("key") is None
    table.put_secret("key", b"1")
    table.put_secret("key", b"2")
    assert table.get_secret("key") == b"2"


def test_the_last_owner_counts(table: Database | InlineDatabase) -> None:
    first, second = object(), object()
    table.write_and_wait(lambda _connection: table.own(first))
    table.write_and_wait(lambda _connection: table.own(second))
    assert not table.is_owner(first)
    with pytest.raises(MisuseError):
        table.check_owner(first)


def test_a_closed_database_refuses(table: Database | InlineDatabase) -> None:
    table.close()
    with pytest.raises(StoreFailed):
        table.write(insert(1)).result()
    assert table.closed


def test_both_write_the_same_file(path: Path) -> None:
    with Database.open(path, KEY) as database:
        database.create(METADATA)
        database.write(insert(1)).result()
    with InlineDatabase.open(path, KEY) as inline:
        inline.create(METADATA)
        inline.write(insert(2)).result()
    with Database.open(path, KEY) as database:
        assert numbers(database) == [1, 2]


def test_background_work_waits_until_it_is_asked_for() -> None:
    with InlineDatabase.open(None, KEY, eager=False) as database:
        database.create(METADATA)
        database.write(insert(1), rank=Rank.BACKGROUND)
        assert numbers(database) == []
        assert database.run_background() == 1
        assert numbers(database) == [1]


def test_a_read_that_writes_is_noticed() -> None:
    """A read takes no transaction here; what the real database refuses must not pass unseen."""
    with InlineDatabase.open(None, KEY) as database:
        database.create(METADATA)
        with pytest.raises(StoreFailed, match="a read has written"):
            database.read_and_wait(insert(1))
        assert database.failed


@pytest.mark.parametrize("step", range(4))
def test_the_power_can_be_cut_before_and_after_every_commit(step: int) -> None:
    """Invariants 1 and 4: what was committed is there afterwards, and nothing else is."""
    left = [step]

    def cut() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise PowerCut

    database = InlineDatabase.open(None, KEY)
    database.create(METADATA)
    cut_off = database.after_power_cut(cut=cut)
    with pytest.raises(PowerCut):
        _write_and_tap(cut_off)
    with pytest.raises(StoreFailed):
        cut_off.write(insert(9)).result()
    with cut_off.after_power_cut() as again:
        assert numbers(again) == [[], [1], [1], [1, 2]][step]


def _write_and_tap(database: InlineDatabase) -> None:
    database.write(insert(1))
    with database.direct as sql:
        sql.commit(INSERT, [(2,)])
