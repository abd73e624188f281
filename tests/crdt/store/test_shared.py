"""A hub's ledger on a database server: several processes at once, and a server that comes and goes."""

import os
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, event, select

from crdt.certificate import Role, issue
from crdt.cursor import START
from crdt.errors import NotPermitted, UnknownAuthor
from crdt.facts import NO_CONTEXT, Delta, Kind, TerminalId
from crdt.settlement import NO_SERIES
from crdt.store.hub import Change
from crdt.store.jobs import Rank
from crdt.store.recording import Order, book
from crdt.store.server import ServerDatabase
from tests.crdt import world
from tests.crdt.store.behind import forget_history
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.merger import blocks_of
from tests.crdt.store.servers import Server
from tests.crdt.store.sharing import (
    BLOCKS,
    ONE,
    PATIENCE_S,
    TOPUP,
    CursorReader,
    check_against_the_model,
    hubs,
    merger,
    on_postgresql,
    on_servers,
    store_of,
    until,
)
from tests.crdt.store.stores import INTERVAL_S

QUIET_S = 3600.0  # no process looks for what another one changed while a test runs
TABLES = MetaData()
NUMBER = Table("number", TABLES, Column("value", Integer, primary_key=True, autoincrement=False))


@on_servers
def test_invariants_2_and_3_processes_that_merge_at_once_agree_with_the_model(url: str) -> None:
    """Issue: "several hub processes on one PostgreSQL with no position ever skipped by a cursor"."""
    with hubs(url, 1) as (hub,):
        reader = CursorReader()
        processes = [merger(url, number) for number in (1, 2)]
        while any(process.poll() is None for process in processes):
            reader.pull(hub)
        for process in processes:
            output, _ = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0
            assert len(output.splitlines()) == BLOCKS
        check_against_the_model(hub, reader, 2)


@on_servers
def test_a_cursor_skips_nothing_while_a_commit_is_held_back(url: str, server: Server) -> None:
    """Issue: a process has its position and its block's number, and commits after another one was ready."""
    order = Order(card(1), [TOPUP], 5, NO_CONTEXT, "")
    held, go = threading.Event(), threading.Event()

    def book_slowly(connection: Connection) -> None:
        book(connection, world.HUB_KEY, world.HUB, order)
        held.set()
        assert go.wait(PATIENCE_S)

    with hubs(url, 3) as (slow, quick, onlooker):
        reader = CursorReader()
        reader.pull(onlooker)
        booking = store_of(slow).write(book_slowly)
        assert held.wait(PATIENCE_S)
        merging = quick.merge([blocks_of(1, 1)[0].raw], [ONE.certificate])
        until(lambda: waits_for_a_lock(server), LOCKS_SHOWN_S)
        reader.pull(onlooker)
        assert not merging.done()
        assert reader.ordinals == []
        go.set()
        booking.result(PATIENCE_S)
        reader.pull(onlooker)
        merging.result(PATIENCE_S)
        reader.pull(onlooker)
        assert len(reader.ordinals) == 2
        assert reader.cards[card(1)].balance_minor == 1000 - 10
        assert reader.digest() == onlooker.digest().result()


LOCKS_SHOWN_S = 0.25  # InnoDB brings its list of transactions up to date when nobody has read it for 0.1 s


def waits_for_a_lock(server: Server) -> bool:
    """Whether a transaction on the server waits for another one's row."""
    if server.name == "postgresql":
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    else:
        query = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    return int(server.run(query)) > 0


@pytest.mark.parametrize(
    ("server", "interval_s"), [("postgresql", 3600.0), ("mariadb", INTERVAL_S)], indirect=["server"]
)
def test_a_listener_in_one_process_hears_what_another_one_does(url: str, interval_s: float) -> None:
    """Issue: "live events across processes with LISTEN/NOTIFY"; elsewhere by looking now and then."""
    with hubs(url, 2, interval_s=interval_s) as (here, there):
        heard: list[Change] = []
        stop = there.on_commit(heard.append)
        here.merge([blocks_of(1, 1)[0].raw], [ONE.certificate]).result()
        until(lambda: any(ONE.key.replica in change.replicas for change in heard))
        until(lambda: any(change.history for change in heard))
        assert {card(1), card(2)} <= {one for change in heard for one in change.cards}
        assert there.authors()[ONE.key.replica] == ONE.certificate
        heard.clear()
        here.set_hotlisted(card(6), True).result()
        until(lambda: any(card(6) in change.cards for change in heard))
        position = there.totals().result().position
        assert [change.position for change in heard if card(6) in change.cards] == [position]
        heard.clear()
        there.append(card(3), [TOPUP], 1).result()
        own = [change for change in heard if not change.history]
        assert [(list(change.cards), change.position) for change in own] == [([card(3)], position + 1)]
        stop()


@on_postgresql
def test_a_lost_notification_only_delays(url: str, server: Server) -> None:
    """The listening connection is cut while somebody writes: the next look finds it."""
    with hubs(url, 2, interval_s=0.3) as (here, there):
        heard: list[Change] = []
        there.on_commit(heard.append)
        for number in range(1, 4):
            server.run(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = 'LISTEN farebox'"
            )
            here.append(card(number), [TOPUP], 1).result()
            until(lambda number=number: any(card(number) in change.cards for change in heard))  # type: ignore[misc]


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """So many open, as in a hub with as many connections: what is opened next has a higher number."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2 * count), before[1]))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        for _ in range(count):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


@on_postgresql
def test_a_listener_hears_at_once_beyond_descriptor_1023(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A hub with a thousand connections whose server was restarted listens as any other does."""
    with descriptors(1024), hubs(url, 2, interval_s=3600.0) as (here, there):
        heard: list[Change] = []
        there.on_commit(heard.append)
        here.append(card(1), [TOPUP], 1).result()
        until(lambda: any(card(1) in change.cards for change in heard))
    assert not [record for record in caplog.records if "noticed late" in record.getMessage()]


@on_servers
def test_an_author_enrolled_by_one_process_is_known_to_all(url: str) -> None:
    """Invariant 10, the same everywhere: also before the next look, and a key is certified once for all."""
    with hubs(url, 2, interval_s=3600.0) as (here, there):
        block = blocks_of(1, 1)[0]
        (refused,) = there.merge([block.raw]).result().refused
        assert isinstance(refused.error, UnknownAuthor)
        assert here.enrol(ONE.certificate).result()
        assert not there.enrol(ONE.certificate).result()
        assert not there.merge([block.raw]).result().refused
        second = issue(
            world.FLEET_KEY, TerminalId(b"x" * 16), "x", Role.TERMINAL, ONE.key.public_key, world.ANYTHING
        )
        with pytest.raises(NotPermitted):
            there.enrol(second).result()


@on_servers
def test_a_request_books_once_in_all_processes(url: str) -> None:
    """A form that is sent twice, to two processes at once, tops up once."""
    with hubs(url, 2) as both:
        asked = [hub.append(card(1), [TOPUP], 5, request="form") for hub in both for _ in range(5)]
        assert sorted(future.result().repeated for future in asked) == [False] + [True] * 9
        assert both[0].balance(card(1)).result() == 1000


@on_servers
def test_the_history_is_made_once_whoever_makes_it(url: str) -> None:
    """Rows do not double when every process follows the record at the same time."""
    with hubs(url, 3) as every:
        raws = [block.raw for block in blocks_of(1, 20)]
        every[0].merge(raws, [ONE.certificate]).result()
        store_of(every[0]).write_and_wait(forget_history)
        for hub in every:
            hub._parts.projection.follow()
        until(lambda: every[1].lag().result() == 0)
        deltas = every[2].latest(1000).result()
        assert [delta.seq for delta in deltas] == list(range(40, 0, -1))


@on_servers
def test_a_history_that_nobody_makes_is_taken_over(url: str) -> None:
    """The process that merged has died before it wrote the rows: another one does."""
    order = Order(card(1), [TOPUP], 5, NO_CONTEXT, "")
    with hubs(url, 1) as (hub,):
        store_of(hub).write_and_wait(lambda sql: book(sql, world.HUB_KEY, world.HUB, order) and None)
        until(lambda: len(hub.history(card(1)).result()) == 1)


@on_servers
def test_an_author_flagged_by_one_process_is_told_once_by_all(url: str) -> None:
    """Two signed blocks for the same numbers: whoever looks at any hub's dashboard learns of it."""
    with hubs(url, 2) as (here, there):
        heard: list[Change] = []
        own: list[Change] = []
        there.on_commit(heard.append)
        here.on_commit(own.append)
        here.merge([blocks_of(1, 1)[0].raw], [ONE.certificate]).result()
        fare = Delta(ONE.key.replica, 1, card(1), Kind.FARE, -1, 1)
        here.merge([ONE.blocks([fare], [])[0].raw]).result()
        until(lambda: any(ONE.key.replica in change.suspects for change in heard))
        there.append(card(2), [TOPUP], 1).result()
        until(lambda: any(card(2) in change.cards for change in own))  # it has looked, its own flag included
        for changes in (heard, own):
            assert [set(change.suspects) for change in changes if change.suspects] == [{ONE.key.replica}]


@on_servers
def test_a_merge_is_one_transaction_where_nothing_can_come_again(url: str) -> None:
    """Another one for the history, and none to look whether something that was adopted was written again."""
    transactions: list[str] = []

    def executed(_sql: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "FOR UPDATE" in statement:
            transactions.append(statement)

    with hubs(url, 1, interval_s=3600.0) as (hub,):
        hub.merge([], [ONE.certificate]).result()
        store_of(hub).write(lambda _connection: None, rank=Rank.BACKGROUND).result()  # begun by a start
        event.listen(Engine, "before_cursor_execute", executed)
        try:
            for block in blocks_of(1, BLOCKS):
                hub.merge([block.raw]).result()
                until(lambda: hub.lag().result() == 0)
        finally:
            event.remove(Engine, "before_cursor_execute", executed)
    assert len(transactions) == 2 * BLOCKS


@on_servers
def test_processes_that_begin_at_once_make_one_ledger(url: str) -> None:
    """Tables, lock row and the ledger's beginnings are made by one, and found by the others."""
    with ThreadPoolExecutor(4) as pool:

        def begin(_number: int) -> tuple[bytes, int]:
            with hubs(url, 1) as (hub,):
                return hub.page(NO_SERIES, 0, START).result().series, hub.append(
                    card(1), [TOPUP], 1
                ).result().head.seq

        found = list(pool.map(begin, range(4)))
    assert len({series for series, _ in found}) == 1
    assert sorted(seq for _, seq in found) == [1, 2, 3, 4]


@on_servers
def test_nothing_of_a_read_stays(url: str) -> None:
    """Whatever a read does."""
    with ServerDatabase.open(url, KEY) as store:
        store.create(TABLES)
        reading = store.read(lambda sql: sql.execute(NUMBER.insert().values(value=1)).rowcount)
        assert reading.exception() is not None or reading.result() == 1
        assert store.read_and_wait(lambda sql: sql.execute(select(NUMBER)).all()) == []


@on_servers
def test_whose_chain_is_told_is_known_before_anybody_else_says_that_it_came(url: str) -> None:
    """Its certificate goes with it: an export failed where another process had enrolled a terminal."""
    with hubs(url, 2, interval_s=QUIET_S) as (one, other):
        one.merge([block.raw for block in blocks_of(1, 1)], [world.terminal(1).certificate]).result()
        heads = other.heads().result()
        assert heads == one.heads().result()
        assert heads.keys() <= other.authors().keys()
