"""One contract for every database a hub's ledger may lie in: an encrypted file, PostgreSQL, MariaDB.

What the ledger itself promises (merge, balances, openings, pages, history, books) is in test_hub.py, on all
of them too.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    bindparam,
    func,
    select,
)
from sqlalchemy.exc import IntegrityError

from crdt.block import MAX_BLOCK_BYTES
from crdt.errors import MisuseError, Overloaded, StoreFailed
from crdt.facts import MAX_AMOUNT_MINOR
from crdt.store.hub_schema import CARD, HUB_METADATA
from crdt.store.jobs import MAX_PENDING, Rank
from crdt.store.schema import BLOCK, QUARANTINE
from crdt.store.sql import ADDED, GIVEN, LARGER, LOOKUP_KEYS, Bulk, Lookup, beyond, replacing, total
from crdt.store.statement import Statement
from crdt.store.store import Store
from tests.crdt.store.servers import Server
from tests.crdt.store.stores import store_opener

TABLES = MetaData()
NUMBER = Table("number", TABLES, Column("value", Integer, primary_key=True, autoincrement=False))
NAME = Table("name", TABLES, Column("name", String(64), primary_key=True))
PAIR = Table(
    "pair",
    TABLES,
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
)
INSERT = Bulk(NUMBER)
PATIENCE_S = 30  # a bound on waiting for a thread, not a measurement


@pytest.fixture
def open_store(server: Server | None, tmp_path: Path) -> Callable[[], Store]:
    """Opens the test's database; the same one each time."""
    return store_opener(server, tmp_path)


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Iterator[Store]:
    """An open database with the tables of these tests and of the ledger."""
    with open_store() as store:
        store.create(TABLES)
        store.create(HUB_METADATA)
        yield store


def insert(*values: int) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        INSERT.run(connection, [(value,) for value in values])
        return len(values)

    return work


def numbers(store: Store) -> list[int]:
    query = select(NUMBER.c.value).order_by(NUMBER.c.value)
    return store.read_and_wait(lambda connection: list(connection.execute(query).scalars()))


class Held:
    """A write job that keeps the writer busy until it is let go."""

    def __init__(self, store: Store) -> None:
        self.running = threading.Event()
        self.go = threading.Event()
        self.future: Future[None] = store.write(self._work)
        assert self.running.wait(PATIENCE_S)

    def _work(self, _connection: Connection) -> None:
        self.running.set()
        assert self.go.wait(PATIENCE_S)


def test_what_is_written_is_there_after_opening_again(open_store: Callable[[], Store]) -> None:
    with open_store() as store:
        store.create(TABLES)
        store.create(TABLES)
        assert store.write_and_wait(insert(1, 2)) == 2
    with open_store() as store:
        assert numbers(store) == [1, 2]


def test_jobs_that_wait_share_a_commit_and_a_failing_one_is_undone_alone(store: Store) -> None:
    """Group commit: nothing of it shows before all of it does, and errors are not shared."""
    held = Held(store)
    seen: list[int] = []
    jobs: list[Future[Any]] = [
        store.write(insert(1, 2)),
        store.write(insert(3, 1)),
        store.write(lambda _connection: seen.extend(store.read(_all).result())),
        store.write(insert(4)),
    ]
    held.go.set()
    wait(jobs, PATIENCE_S)
    assert isinstance(jobs[1].exception(), IntegrityError)
    assert [job.exception() for job in (jobs[0], jobs[2], jobs[3])] == [None] * 3
    assert seen == []
    assert numbers(store) == [1, 2, 4]


def _all(connection: Connection) -> list[int]:
    return list(connection.execute(select(NUMBER.c.value)).scalars())


def test_errors_do_not_carry_values(store: Store) -> None:
    """An error ends in a log; the values of a statement may be keys and cards."""
    with pytest.raises(IntegrityError) as caught:
        store.write_and_wait(lambda c: [c.execute(NUMBER.insert().values(value=424242)) for _ in "ab"])
    assert "424242" not in str(caught.value)


def test_after_runs_once_the_job_is_durable_and_never_for_a_failed_one(store: Store) -> None:
    seen: list[tuple[int, list[int]]] = []

    def after(result: int) -> None:
        seen.append((result, store.read(_all).result()))

    store.write_and_wait(insert(1), after=after)
    with pytest.raises(IntegrityError):
        store.write_and_wait(insert(1), after=after)
    assert seen == [(1, [1])]


def test_urgent_before_normal_before_background(store: Store) -> None:
    order: list[str] = []
    held = Held(store)
    jobs = [
        store.write(lambda _connection: order.append("background"), rank=Rank.BACKGROUND),
        store.write(lambda _connection: order.append("normal")),
        store.write(lambda _connection: order.append("urgent"), rank=Rank.URGENT),
    ]
    held.go.set()
    wait(jobs, PATIENCE_S)
    assert order == ["urgent", "normal", "background"]


def test_the_queue_is_bounded_and_a_cancelled_job_does_not_run(store: Store) -> None:
    """Invariant 8: bounded memory."""
    held = Held(store)
    cancelled = store.write(insert(1))
    assert cancelled.cancel()
    jobs: list[Future[Any]] = [store.write(lambda _connection: None) for _ in range(MAX_PENDING - 1)]
    refused = store.write(lambda _connection: None)
    held.go.set()
    with pytest.raises(Overloaded):
        refused.result()
    wait(jobs, PATIENCE_S)
    assert numbers(store) == []


def test_a_reader_sees_one_snapshot(store: Store) -> None:
    """Invariant 6: what a reader computes from several queries belongs to one instant."""
    store.write_and_wait(insert(1))

    def twice(connection: Connection) -> tuple[int, int]:
        first = len(_all(connection))
        store.write(insert(2)).result()
        return first, len(_all(connection))

    assert store.read(twice).result() == (1, 1)
    assert numbers(store) == [1, 2]


def test_a_wait_within_a_write_is_refused_instead_of_waiting_for_itself(store: Store) -> None:
    inner = store.write(lambda _connection: store.put_secret("a", b"b"))
    with pytest.raises(MisuseError, match="wait for itself"):
        inner.result()
    assert store.get_secret("a") is None


def test_secrets_are_kept_and_replaced(open_store: Callable[[], Store]) -> None:
    with open_store() as store:
        assert store.get_secret("key") is None
        store.put_secret("key", b"one")
        store.put_secret("key", b"\x00two\xff" * 100)
    with open_store() as store:
        assert store.get_secret("key") == b"\x00two\xff" * 100


def test_of_two_that_replace_a_secret_at_once_one_does(open_store: Callable[[], Store]) -> None:
    """Invariant 5: hub processes that all find their database put back take one new identity."""
    with open_store() as store:
        store.put_secret("key", b"former")
        assert [store.swap_secret("key", b"former", new) for new in (b"one", b"other")] == [b"one"] * 2
        assert store.get_secret("key") == b"one"


def test_closing_finishes_what_is_queued_and_refuses_the_rest(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.create(TABLES)
    jobs = [store.write(insert(value)) for value in range(20)]
    store.close()
    assert [job.result() for job in jobs] == [1] * 20
    for refused in (store.write(insert(99)), store.read(_all)):
        with pytest.raises(StoreFailed, match="closed"):
            refused.result()
    store.close()
    assert store.closed


async def test_an_event_loop_never_waits_for_the_database(store: Store) -> None:
    """Invariant 7, second half: the house's checks around async tests watch for blocking calls."""
    assert await asyncio.wrap_future(store.write(insert(1, 2, 3))) == 3
    assert await asyncio.wrap_future(store.read(_all)) == [1, 2, 3]


def test_text_is_compared_exactly(store: Store) -> None:
    """The name of a request that has booked must not be taken for another one's."""
    names = ["form a", "form A", "form a ", "form ä", "form 🚌"]
    store.write_and_wait(lambda connection: Bulk(NAME).run(connection, [(name,) for name in names]))
    for name in names:
        query = select(NAME.c.name).where(NAME.c.name == name)
        assert store.read_and_wait(partial(_scalars, query)) == [name]


def _scalars(query: Select[Any], connection: Connection) -> list[Any]:
    return list(connection.execute(query).scalars())


def test_blocks_and_money_of_the_largest_size_come_back(store: Store) -> None:
    """Invariant 3: nothing is cut short, and a sum of the largest amounts is exact."""
    raw = bytes(range(256)) * (MAX_BLOCK_BYTES // 256)
    block = Bulk(BLOCK, ("replica", "first_seq", "last_seq", "hash", "raw"))
    most = 2**63 - 1
    cards = [(bytes([number]), MAX_AMOUNT_MINOR, -most, 5) for number in range(200)]

    def work(connection: Connection) -> None:
        block.run(connection, [(b"r" * 16, 1, most, b"h" * 32, raw), (b"s" * 16, 1, 1, b"i" * 32, b"")])
        Bulk(CARD, ("card", "sum_minor", "opening_minor", "position")).run(connection, cards)

    store.write_and_wait(work)
    rows = store.read_and_wait(
        lambda connection: connection.execute(
            select(BLOCK.c.last_seq, BLOCK.c.raw).order_by(BLOCK.c.ordinal)
        ).all()
    )
    assert [tuple(row) for row in rows] == [(most, raw), (1, b"")]
    assert all(type(row.raw) is bytes for row in rows)
    sums = select(total(CARD.c.sum_minor), func.min(CARD.c.opening_minor))
    found = store.read_and_wait(lambda connection: connection.execute(sums).one())
    assert (int(found[0]), found[1]) == (200 * MAX_AMOUNT_MINOR, -most)


def test_a_bulk_statement_adds_keeps_and_replaces(store: Store) -> None:
    """The statement that balances are kept with."""
    add = Bulk(
        CARD,
        ("card", "sum_minor", "opening_minor", "position"),
        {"sum_minor": ADDED, "opening_minor": LARGER, "position": GIVEN, "flags": "{old} & 1"},
    )
    flagged = Bulk(CARD, ("card", "sum_minor", "opening_minor", "flags", "position"))

    def work(connection: Connection) -> list[tuple[Any, ...]]:
        add.run(connection, [])
        flagged.run(connection, [(b"a", 0, 0, 3, 1)])
        add.run(connection, [(b"a", -5, 7, 2), (b"b", 1, 0, 2)])
        add.run(connection, [(b"b", 2**40, 0, 3), (b"a", -(2**40), 3, 3)])
        columns = (CARD.c.card, CARD.c.sum_minor, CARD.c.opening_minor, CARD.c.flags, CARD.c.position)
        return [tuple(row) for row in connection.execute(select(*columns).order_by(CARD.c.card))]

    assert store.write_and_wait(work) == [(b"a", -5 - 2**40, 7, 1, 3), (b"b", 1 + 2**40, 0, 0, 3)]


def test_rows_without_a_value_and_rows_that_replace_others(store: Store) -> None:
    some = [(b"2", None), (b"3", b"\x00")]
    names = tuple(QUARANTINE.columns.keys())
    row: dict[str, Any] = dict.fromkeys(names, 1)
    row |= {"replica": b"r", "raw": b"x", "resolution": "", "counted": None}
    put = Bulk(QUARANTINE)

    def values(**given: Any) -> tuple[Any, ...]:
        return tuple((row | given)[name] for name in names)

    def work(connection: Connection) -> list[tuple[Any, ...]]:
        put.run(connection, [values(hash=b"1")])
        put.run(connection, [values(hash=key, counted=raw) for key, raw in some])
        replacing(QUARANTINE).run(connection, [values(hash=b"1", counted=b"new")])
        query = select(QUARANTINE.c.hash, QUARANTINE.c.counted).order_by(QUARANTINE.c.hash)
        return [tuple(one) for one in connection.execute(query)]

    assert store.write_and_wait(work) == [(b"1", b"new"), *some]


def test_a_place_in_an_index_of_two_columns(store: Store) -> None:
    """Paging by cursor: each row once, in order, also where many share the first column."""
    rows = [(first, second) for first in (1, 2**40) for second in range(5)]
    place = (PAIR.c.first, PAIR.c.position)

    def work(connection: Connection) -> list[tuple[int, int]]:
        Bulk(PAIR).run(connection, rows)
        found: list[tuple[int, int]] = [(0, 0)]
        while True:
            query = (
                select(*place).where(beyond(connection.dialect, place, found[-1])).order_by(*place).limit(3)
            )
            page = [(row[0], row[1]) for row in connection.execute(query)]
            if not page:
                return found[1:]
            found += page

    assert store.write_and_wait(work) == rows


def test_a_statement_gives_plain_rows_of_the_values_it_is_run_with(store: Store) -> None:
    """Whichever database: the same bytes and numbers, a constant of its own, and how many rows it changed."""
    query = select(PAIR.c.position, PAIR.c.first + 1).where(PAIR.c.first >= bindparam("low"))
    pairs = Statement(query.order_by(PAIR.c.first).limit(bindparam("most", type_=Integer)))
    move = Statement(
        PAIR.update().where(PAIR.c.first == bindparam("which")).values(position=PAIR.c.position * 2)
    )

    def work(connection: Connection) -> None:
        Bulk(PAIR).run(connection, [(first, first * 10) for first in range(5)])
        assert list(pairs.rows(connection, low=1, most=2)) == [(10, 2), (20, 3)]
        assert pairs.row(connection, low=4, most=2) == (40, 5)
        assert pairs.row(connection, low=5, most=2) is pairs.value(connection, low=5, most=2) is None
        assert [move.run(connection, which=which) for which in (3, 9)] == [1, 0]
        assert pairs.value(connection, low=3, most=1) == 60

    store.write_and_wait(work)


def test_a_list_of_values_is_no_statements_but_a_lookups(store: Store) -> None:
    listed = Statement(select(NUMBER.c.value).where(NUMBER.c.value.in_([1, 2])))
    with pytest.raises(MisuseError):
        store.read_and_wait(listed.rows)


@pytest.mark.parametrize("count", [0, 1, 3, LOOKUP_KEYS, LOOKUP_KEYS + 3])
def test_a_lookup_finds_each_key_once(store: Store, count: int) -> None:
    """However its keys are parted and filled up; with a value for all of them, only what has that too."""
    numbers, pairs = Lookup(NUMBER, "value", ("value",)), Lookup(PAIR, "position", ("position",), "first")

    def work(connection: Connection) -> None:
        INSERT.run(connection, [(value,) for value in range(count + 5)])
        Bulk(PAIR).run(connection, [(first, value) for first in (1, 2) for value in range(count)])
        keys = range(count)
        assert sorted(numbers.run(connection, keys)) == [(value,) for value in keys]
        assert sorted(pairs.run(connection, keys, within=2)) == [(value,) for value in keys]
        assert not list(pairs.run(connection, keys, within=3))

    store.write_and_wait(work)
