"""The database under the ledgers: durable, encrypted, one process, one writer, taps first."""

import asyncio
import shutil
import stat
import subprocess
import sys
import threading
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
import sqlcipher3
from sqlalchemy import Column, Connection, Integer, MetaData, Table
from sqlalchemy.exc import IntegrityError

from crdt.errors import LedgerBusy, MisuseError, Overloaded, StoreFailed, WrongKey
from crdt.store import database as module
from crdt.store.connection import HUB_LAYOUT, TERMINAL_LAYOUT, Layout
from crdt.store.database import Database
from crdt.store.jobs import MAX_PENDING, Rank
from tests.crdt.store.conftest import KEY

METADATA = MetaData()
NUMBER = Table("number", METADATA, Column("value", Integer, primary_key=True))
INSERT = "INSERT INTO number(value) VALUES (?)"
PATIENCE_S = 30  # a bound on waiting for a thread, not a measurement


def insert(*values: int) -> Any:
    def work(connection: Connection) -> int:
        connection.exec_driver_sql(INSERT, [(value,) for value in values])
        return len(values)

    return work


def numbers(database: Database) -> list[int]:
    query = NUMBER.select().order_by(NUMBER.c.value)
    return database.wait(database.read(lambda connection: list(connection.execute(query).scalars())))


@pytest.fixture
def table(database: Database) -> Database:
    database.create(METADATA)
    return database


class Held:
    """A write job that keeps the writer busy until it is let go."""

    def __init__(self, database: Database) -> None:
        self.running = threading.Event()
        self.go = threading.Event()
        self.future: Future[None] = database.write(self._work)
        assert self.running.wait(PATIENCE_S)

    def _work(self, _connection: Connection) -> None:
        self.running.set()
        assert self.go.wait(PATIENCE_S)


def test_what_is_written_is_there_after_opening_again(path: Path) -> None:
    with Database.open(path, KEY) as database:
        database.create(METADATA)
        assert database.write(insert(1, 2)).result() == 2
    with Database.open(path, KEY) as database:
        assert numbers(database) == [1, 2]


def test_a_write_is_durable_before_its_future_is_done(table: Database, path: Path, tmp_path: Path) -> None:
    """Invariant 1, as far as a copy of the files shows it: the same files without any close."""
    table.write(insert(7)).result()
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in path.parent.glob("ledger.db*"):
        shutil.copy(file, copy)
    with Database.open(copy / "ledger.db", KEY) as other:
        assert numbers(other) == [7]


def test_the_connection_makes_commits_durable_and_the_file_private(table: Database, path: Path) -> None:
    """Invariant 1: WAL with synchronous=FULL; the reader cannot write."""

    def pragmas(connection: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "query_only")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert table.write(pragmas).result() == ["wal", 2, 0]
    assert table.read(pragmas).result() == ["wal", 2, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"SQLite format 3" not in path.read_bytes()


@pytest.mark.parametrize("layout", [HUB_LAYOUT, TERMINAL_LAYOUT])
def test_a_file_is_cut_and_kept_in_memory_as_its_opener_says(path: Path, layout: Layout) -> None:
    """A tap writes one small page, a terminal stays under 100 MB: not as the driver happens to be built."""

    def found(connection: Connection) -> list[int]:
        pragmas = ("PRAGMA page_size", "PRAGMA cache_size")
        return [int(connection.exec_driver_sql(pragma).scalar_one()) for pragma in pragmas]

    with Database.open(path, KEY, layout=layout) as database:
        for asked in (database.write, database.read):
            assert asked(found).result() == [layout.page_bytes, -layout.cache_kib]


def test_a_file_that_is_cut_otherwise_is_left_as_it_was(path: Path) -> None:
    """An encrypted file does not say how it is cut; a hub's program on a terminal's file harms nothing."""
    with Database.open(path, KEY, layout=TERMINAL_LAYOUT) as database:
        database.put_secret("key", b"kept")
    with pytest.raises(WrongKey, match="The key does not open the ledger"):
        Database.open(path, KEY, layout=HUB_LAYOUT)
    with Database.open(path, KEY, layout=TERMINAL_LAYOUT) as database:
        assert database.get_secret("key") == b"kept"


def test_a_wrong_key_is_a_sentence_and_changes_nothing(table: Database, path: Path, tmp_path: Path) -> None:
    """Issue 2: "A wrong database key: a sentence, not a traceback", noticed when opening."""
    table.write(insert(1)).result()
    table.close()
    with pytest.raises(WrongKey, match="The key does not open the ledger .*ledger.db"):
        Database.open(path, bytes(32))
    with Database.open(path, KEY) as again:
        assert numbers(again) == [1]


def test_a_file_that_is_no_ledger_is_a_sentence(path: Path) -> None:
    path.write_bytes(b"not a ledger " * 1000)
    with pytest.raises(WrongKey, match="or the file is damaged"):
        Database.open(path, KEY)


def test_a_missing_directory_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="No such file or directory"):
        Database.open(tmp_path / "nowhere" / "ledger.db", KEY)


def test_a_key_of_the_wrong_size_is_a_mistake_of_the_program(path: Path) -> None:
    with pytest.raises(MisuseError, match="32 bytes"):
        Database.open(path, b"short")


def test_a_ledger_under_another_name_is_the_same_ledger(path: Path) -> None:
    """Invariant 5: nobody writes the same numbers beside it through a symbolic link."""
    link, circle = path.with_name("link.db"), path.with_name("circle.db")
    link.symlink_to(path)
    circle.symlink_to(circle)
    with Database.open(path, KEY), pytest.raises(LedgerBusy, match="in use by another process"):
        Database.open(link, KEY)
    with Database.open(link, KEY), pytest.raises(LedgerBusy, match="in use by another process"):
        Database.open(path, KEY)
    with pytest.raises(StoreFailed, match="Check its links"):
        Database.open(circle, KEY)


def test_a_second_opening_is_refused_until_the_first_is_closed(path: Path) -> None:
    with Database.open(path, KEY), pytest.raises(LedgerBusy, match="in use by another process"):
        Database.open(path, KEY)
    Database.open(path, KEY).close()


def test_a_second_process_is_refused(database: Database, path: Path) -> None:
    """Issue 2: "A second process on the same ledger: refused"."""
    program = (
        "import sys; from pathlib import Path; from crdt.store.database import Database\n"
        f"Database.open(Path(sys.argv[1]), {KEY!r})\n"
    )
    second = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert second.returncode != 0
    assert "LedgerBusy" in second.stderr


def test_a_failing_job_is_undone_alone(table: Database) -> None:
    """Jobs that share a commit do not share their errors."""
    held = Held(table)
    good, bad, also_good = (table.write(insert(*values)) for values in ((1, 2), (3, 1), (4,)))
    held.go.set()
    wait([good, bad, also_good], PATIENCE_S)
    assert good.result() == 2
    assert also_good.result() == 1
    assert isinstance(bad.exception(), IntegrityError)
    assert numbers(table) == [1, 2, 4]


def test_waiting_jobs_share_a_commit(table: Database) -> None:
    """Group commit: nothing of a group is durable, and nothing shows to a reader, before all of it is."""
    held = Held(table)
    readable: list[list[int]] = []

    def look(_connection: Connection) -> None:
        readable.append(numbers_elsewhere())

    def numbers_elsewhere() -> list[int]:
        return table.read(lambda connection: list(connection.execute(NUMBER.select()).scalars())).result()

    jobs = [table.write(insert(1)), table.write(look), table.write(insert(2))]
    held.go.set()
    wait(jobs, PATIENCE_S)
    assert readable == [[]]
    assert numbers(table) == [1, 2]


def test_after_runs_once_the_job_is_durable_and_never_for_a_failed_one(table: Database) -> None:
    seen: list[tuple[int, list[int]]] = []

    def after(result: int) -> None:
        seen.append((result, list(table.read(numbers_of).result())))

    def numbers_of(connection: Connection) -> list[int]:
        return list(connection.execute(NUMBER.select()).scalars())

    table.write(insert(1), after=after).result()
    with pytest.raises(IntegrityError):
        table.write(insert(1), after=after).result()
    assert seen == [(1, [1])]


def test_a_tap_goes_before_everything_that_waits(table: Database) -> None:
    """Invariant 7: bulk work that is queued delays a tap by the job that runs, not by the queue."""
    order: list[str] = []
    held = Held(table)
    bulk = [table.write(lambda _connection: order.append("bulk")) for _ in range(3)]

    def tap() -> None:
        with table.direct as sql:
            order.append("tap")
            sql.commit(INSERT, [(1,)])

    thread = threading.Thread(target=tap)
    thread.start()
    while not table._gate.urgent_waiting:  # the tap is at the gate
        assert thread.is_alive()
        threading.Event().wait(0.001)
    held.go.set()
    thread.join(PATIENCE_S)
    wait(bulk, PATIENCE_S)
    assert order == ["tap", "bulk", "bulk", "bulk"]


def test_a_group_ends_when_a_tap_waits(table: Database) -> None:
    """The writer stops adding jobs to a commit as soon as a tap is at the gate."""
    order: list[str] = []
    thread = threading.Thread(target=lambda: _tap(table, order))

    def first(_connection: Connection) -> None:
        order.append("first")
        thread.start()
        while not table._gate.urgent_waiting:
            threading.Event().wait(0.001)

    held = Held(table)
    jobs = [table.write(first), table.write(lambda _connection: order.append("second"))]
    held.go.set()
    wait(jobs, PATIENCE_S)
    thread.join(PATIENCE_S)
    assert order == ["first", "tap", "second"]


def _tap(database: Database, order: list[str]) -> None:
    with database.direct:
        order.append("tap")


def test_urgent_before_normal_before_background(table: Database) -> None:
    order: list[str] = []
    held = Held(table)
    jobs = [
        table.write(lambda _connection: order.append("background"), rank=Rank.BACKGROUND),
        table.write(lambda _connection: order.append("normal")),
        table.write(lambda _connection: order.append("urgent"), rank=Rank.URGENT),
    ]
    held.go.set()
    wait(jobs, PATIENCE_S)
    assert order == ["urgent", "normal", "background"]


def test_the_queue_is_bounded(table: Database) -> None:
    held = Held(table)
    jobs = [table.write(lambda _connection: None) for _ in range(MAX_PENDING)]
    refused = table.write(lambda _connection: None)
    held.go.set()
    with pytest.raises(Overloaded):
        refused.result()
    wait(jobs, PATIENCE_S)


def test_a_reader_sees_one_snapshot(table: Database) -> None:
    """Invariant 6: what a reader computes from several queries belongs to one instant."""
    table.write(insert(1)).result()

    def twice(connection: Connection) -> tuple[int, int]:
        first = len(connection.execute(NUMBER.select()).all())
        table.write(insert(2)).result()
        return first, len(connection.execute(NUMBER.select()).all())

    assert table.read(twice).result() == (1, 1)
    assert numbers(table) == [1, 2]


def test_a_write_within_a_write_is_refused_instead_of_waiting_for_itself(table: Database) -> None:
    with table.direct, pytest.raises(MisuseError, match="wait for itself"):
        table.direct.__enter__()
    inner = table.write(lambda _connection: table.put_secret("a", b"b"))
    with pytest.raises(MisuseError, match="wait for itself"):
        inner.result()
    assert table.get_secret("a") is None


def test_a_tap_that_cannot_begin_leaves_the_way_free_for_the_next(path: Path, table: Database) -> None:
    """A foreign tool holds the file: the tap is refused, and neither the database nor the gate is lost."""
    table._writer._raw.execute("PRAGMA busy_timeout = 0")
    foreign = sqlcipher3.connect(str(path), isolation_level=None)
    try:
        foreign.execute(f"PRAGMA key = \"x'{KEY.hex()}'\"")
        foreign.execute("BEGIN IMMEDIATE")
        with pytest.raises(Exception, match="locked"), table.direct:
            pass
    finally:
        foreign.close()
    assert not table.failed
    with table.direct as sql:
        sql.commit(INSERT, [(1,)])
    assert numbers(table) == [1]


def test_a_failed_insert_of_a_tap_leaves_nothing_and_the_database_usable(table: Database) -> None:
    with pytest.raises(Exception, match="UNIQUE"), table.direct as sql:
        sql.commit(INSERT, [(1,), (1,)])
    assert numbers(table) == []
    assert not table.failed


def test_secrets_are_kept_and_replaced(path: Path) -> None:
    with Database.open(path, KEY) as database:
        assert database.get_secret("key") is None
        database.put_secret("key", b"one")
        database.put_secret("key", b"two")
    with Database.open(path, KEY) as database:
        assert database.get_secret("key") == b"two"


def test_closing_finishes_what_is_queued_and_refuses_the_rest(path: Path) -> None:
    database = Database.open(path, KEY)
    database.create(METADATA)
    jobs = [database.write(insert(value)) for value in range(20)]
    database.close()
    assert [job.result() for job in jobs] == [1] * 20
    with pytest.raises(StoreFailed, match="closed"):
        database.write(insert(99)).result()
    with pytest.raises(StoreFailed, match="closed"):
        database.read(lambda _connection: None).result()
    with pytest.raises(StoreFailed, match="closed"), database.direct:
        raise AssertionError("must not get here")
    database.close()


def test_a_cancelled_job_does_not_run(table: Database) -> None:
    held = Held(table)
    job = table.write(insert(1))
    assert job.cancel()
    held.go.set()
    table.write(insert(2)).result()
    assert numbers(table) == [2]


async def test_an_event_loop_never_waits_for_the_disk(table: Database) -> None:
    """Invariant 7, second half (the house's checks around async tests watch for blocking calls)."""
    assert await asyncio.wrap_future(table.write(insert(1, 2, 3))) == 3
    count = await asyncio.wrap_future(
        table.read(lambda connection: len(connection.execute(NUMBER.select()).all()))
    )
    assert count == 3


def test_the_log_is_moved_by_a_reader_and_not_by_a_tap(
    table: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taps alone must not let the write-ahead log grow to where SQLite makes one of them move it all."""
    moved: Future[Any] = Future()
    real = table._checkpoint
    monkeypatch.setattr(table, "_checkpoint", lambda connection: moved.set_result(real(connection)))
    monkeypatch.setattr(module, "CHECKPOINT_PAGES", 30)
    for value in range(40):
        with table.direct as sql:
            sql.commit(INSERT, [(value,)])
    in_log, in_database = moved.result(PATIENCE_S)
    assert in_log == in_database > 0


def test_errors_do_not_carry_values(table: Database) -> None:
    """An error ends in a log; the values of a statement may be keys and cards."""
    with pytest.raises(IntegrityError) as caught:
        table.write(insert(424242, 424242)).result()
    assert "424242" not in str(caught.value)
