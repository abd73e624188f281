"""A database server that goes back to an older state under hubs that run on it. Real servers, real copies.

Invariants 4 (nothing acknowledged is lost) and 5 (no replica and number name two facts).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from crdt.cursor import START, beginning
from crdt.errors import RefusalCode, Restored, StoreFailed
from crdt.facts import Draft, Kind
from crdt.settlement import NO_SERIES
from crdt.signing import SigningKey
from crdt.store.hub import HubLedger
from crdt.store.hub_schema import PROCESS
from crdt.store.marks import Marks
from crdt.store.server import ServerDatabase
from tests.crdt import world
from tests.crdt.store.dumps import Dump
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.quarantined import at_rest, in_quarantine
from tests.crdt.store.servers import SERVERS, Server
from tests.crdt.store.sharing import PATIENCE_S, until
from tests.crdt.store.stores import INTERVAL_S
from tests.crdt.store.test_restored_hub import NEW_HUB, NEW_KEY

TRIES = 100
SELDOM_S = 3600.0  # a process that looks so seldom hears of others by what it writes itself
TOPUP = Draft(Kind.TOPUP, 1000)
WENT_BACK = "went back to an older state.*Start the hub again.*do not book a top-up again"


@pytest.fixture(params=list(SERVERS))
def mortal(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own, to be stopped, killed and put back."""
    with SERVERS[request.param].running() as server:
        yield server


@pytest.fixture(scope="module", params=list(SERVERS))
def lasting(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that stays up; each test has a database of its own there."""
    with SERVERS[request.param].running() as server:
        yield server


@contextmanager
def hub_on(
    url: str,
    marks: Path,
    key: SigningKey = world.HUB_KEY,
    certificate: object = world.HUB,
    *,
    interval_s: float = SELDOM_S,
) -> Iterator[HubLedger]:
    """A hub process: a store and marks of its own."""
    with ServerDatabase.open(url, KEY, interval_s=interval_s, patience_s=PATIENCE_S) as store:
        public_key = world.FLEET_KEY.public_key
        hub = HubLedger(store, public_key, key, certificate, marks=Marks.open(marks))  # type: ignore[arg-type]
        try:
            yield hub
        finally:
            hub.close()


@contextmanager
def copied(server: Server, tmp_path: Path) -> Iterator[None]:
    """The server's files, copied when the block begins and put back when it ends; hubs stay as they are."""
    data, copy = server.directory / "data", tmp_path / "copy"
    server.stop()
    shutil.copytree(data, copy, symlinks=True)
    server.start()
    yield
    server.stop()
    owner = data.stat()
    shutil.rmtree(data)
    shutil.copytree(copy, data, symlinks=True)
    for directory, _, files in os.walk(data):
        for name in (".", *files):
            os.chown(Path(directory, name), owner.st_uid, owner.st_gid)
    data.chmod(0o700)
    server.start()


def refused(hub: HubLedger, number: int) -> None:
    """It books nothing, and says why and what to do."""
    with pytest.raises(StoreFailed, match=WENT_BACK):
        book(hub, number)
    assert hub._database.failed


def book(hub: HubLedger, number: int) -> int:
    """A top-up; its number in the hub's own chain. Where the connection was cut, it is tried once more."""
    for _ in range(TRIES):
        try:
            return hub.append(card(number), [TOPUP], number, request=f"form {number}").result().head.seq
        except StoreFailed:
            if hub._database.failed:
                raise
    raise AssertionError("the server stays away")


def test_invariant_5_a_server_whose_files_are_put_back_stops_the_hub(mortal: Server, tmp_path: Path) -> None:
    """Nothing more is acknowledged; started again the hub has another identity, and says what it lost.

    And a terminal loads the settlement anew: the position that it has installed means something else now.
    """
    url, marks = mortal.fresh(), tmp_path / "marks"
    with hub_on(url, marks) as hub:
        assert book(hub, 1) == 1
        with copied(mortal, tmp_path):
            assert book(hub, 2) == 2
            page = hub.page(NO_SERIES, 0, START, 9).result()
        for number in (3, 4):
            refused(hub, number)
        with pytest.raises(StoreFailed, match=WENT_BACK):
            hub.balance(card(1)).result(PATIENCE_S)
    with hub_on(url, marks) as hub:
        assert hub.restored
        with pytest.raises(Restored):
            hub.append(card(1), [TOPUP], 5).result()
    with hub_on(url, marks, NEW_KEY, NEW_HUB) as hub:
        assert not hub.restored
        (waits,) = hub.waiting().result()
        assert (waits.replica, waits.held_seq, waits.expected_seq) == (world.HUB.replica, 1, 2)
        assert book(hub, 3) == 1
        fresh = hub.page(page.series, page.position, beginning(page.position), 9).result()
        assert fresh.restarts
        assert fresh.series != page.series


def test_a_server_that_only_stops_and_starts_is_the_one_it_was(mortal: Server, tmp_path: Path) -> None:
    """In good order, and killed; the hub goes on under its identity, and so it does after a restart."""
    url, marks = mortal.fresh(), tmp_path / "marks"
    with hub_on(url, marks, interval_s=INTERVAL_S) as hub:
        for number, end in enumerate((mortal.stop, mortal.kill, mortal.kill), 1):
            assert book(hub, number) == number
            end()
            mortal.start()
        assert book(hub, 4) == 4
    with hub_on(url, marks) as hub:
        assert not hub.restored
        assert book(hub, 5) == 5


def test_a_hub_that_writes_nothing_notices_too(lasting: Server, tmp_path: Path) -> None:
    """Else terminals would be given older balances until somebody writes."""
    url = lasting.fresh()
    with hub_on(url, tmp_path / "marks", interval_s=INTERVAL_S) as hub:
        book(hub, 1)
        dump = Dump(lasting, url)
        book(hub, 2)
        dump.put_back()
        until(lambda: hub._database.failed)


def test_invariant_5_what_one_process_finds_stops_every_process(lasting: Server, tmp_path: Path) -> None:
    """The other one has lost nothing of its own, and would go on with the hub's chain as it is now."""
    url = lasting.fresh()
    with hub_on(url, tmp_path / "one") as one, hub_on(url, tmp_path / "other") as other:
        book(one, 1)
        book(other, 2)
        dump = Dump(lasting, url)
        assert book(one, 3) == 3
        dump.put_back()
        refused(one, 5)
        refused(other, 6)
    with hub_on(url, tmp_path / "one", NEW_KEY, NEW_HUB) as one:
        assert not one.restored
        with hub_on(url, tmp_path / "other", NEW_KEY, NEW_HUB) as other:
            assert not other.restored, "one new identity is enough"
            assert [book(one, 7), book(other, 8), book(one, 9)] == [1, 2, 3]


def test_invariant_5_what_a_process_that_lost_nothing_numbered_again_is_a_fork_kept_as_evidence(
    lasting: Server, tmp_path: Path
) -> None:
    """A standby that lagged behind took over, and the process that lost something ended before it saw that.

    So the hub's chain went on, and two acknowledged top-ups have one number. The operator is told, once, as
    soon as that process starts again; and both are kept when a terminal brings what was lost."""
    url = lasting.fresh()
    with hub_on(url, tmp_path / "other") as other:
        at_rest(other)  # what it does because it starts would tell it of the second booking
        with hub_on(url, tmp_path / "one") as one:
            book(one, 1)
            dump = Dump(lasting, url)
            assert book(one, 2) == 2
            lost = one.blocks_after(world.HUB.replica, 1, 1 << 20).result()
        dump.put_back()
        assert book(other, 3) == 2
        assert other.flags().result() == []
        with hub_on(url, tmp_path / "one") as one:
            assert one.restored
        refused(other, 5)
    with hub_on(url, tmp_path / "one", NEW_KEY, NEW_HUB) as hub:
        (flag,) = hub.flags().result()
        assert (flag.replica, flag.code, flag.seq) == (world.HUB.replica, RefusalCode.FORK_DETECTED, 2)
        assert hub.dismiss_flag(flag.replica, flag.code).result()
    with hub_on(url, tmp_path / "one", NEW_KEY, NEW_HUB) as hub:
        assert hub.flags().result() == [], "somebody has seen to it"
        (refusal,) = hub.merge(lost).result().refused
        assert refusal.error.code is RefusalCode.FORK_DETECTED
        assert [hub.balance(card(number)).result() for number in (1, 2, 3)] == [1000, 0, 1000]
        (kept,) = in_quarantine(hub).result()
        assert (kept.raw, kept.proof is not None) == (lost[0], True)
        for _ in range(2):
            hub.adopt([kept.hash]).result()
            assert hub.balance(card(2)).result() == 1000
        assert hub.books().result().balance


def test_invariant_5_a_server_put_back_with_all_marks_is_told_by_a_block_of_the_hubs_own(
    lasting: Server, tmp_path: Path
) -> None:
    """Images of all machines were put back: nothing else tells. Every process stops, whichever was told."""
    url, names = lasting.fresh(), ("one", "other")
    with hub_on(url, tmp_path / "one"), hub_on(url, tmp_path / "other"):
        pass
    dump = Dump(lasting, url)
    for name in names:
        shutil.copy(tmp_path / name, tmp_path / f"image of {name}")
    with hub_on(url, tmp_path / "one") as one:
        book(one, 1)
        lost = one.blocks_after(world.HUB.replica, 0, 1 << 20).result()
    dump.put_back()
    for name in names:
        shutil.copy(tmp_path / f"image of {name}", tmp_path / name)
    with hub_on(url, tmp_path / "one") as one, hub_on(url, tmp_path / "other") as other:
        assert book(one, 2) == 1
        (refusal,) = other.merge(lost).result().refused
        assert refusal.error.code is RefusalCode.FORK_DETECTED
        refused(other, 3)
        refused(one, 4)
    with hub_on(url, tmp_path / "one") as one:
        assert one.restored
    with (
        hub_on(url, tmp_path / "one", NEW_KEY, NEW_HUB) as one,
        hub_on(url, tmp_path / "other", NEW_KEY, NEW_HUB) as other,
    ):
        assert not (one.restored or other.restored), "one new identity is enough"
        (kept,) = in_quarantine(one).result()
        other.adopt([kept.hash]).result()
        assert [book(one, 5), book(other, 6)] == [2, 3]
        assert [one.balance(card(number)).result() for number in (1, 2, 5, 6)] == [1000] * 4


@pytest.mark.parametrize("damaged", [True, False], ids=["damaged", "absent"])
def test_a_process_whose_marks_are_damaged_counts_as_put_back_and_a_new_one_does_not(
    lasting: Server, tmp_path: Path, damaged: bool
) -> None:
    """Its log says so: "so now the ledger counts as put back, and gets a new identity"."""
    url, marks = lasting.fresh(), tmp_path / "marks"
    with hub_on(url, marks) as hub:
        book(hub, 1)
    marks.unlink()
    if damaged:
        marks.write_bytes(b"?")
    with hub_on(url, marks) as hub:
        assert hub.restored == damaged
    with hub_on(url, marks, NEW_KEY, NEW_HUB) as hub:
        assert not hub.restored
        assert book(hub, 2) == 1


def test_an_older_dump_is_noticed_also_where_no_connection_is_cut(lasting: Server, tmp_path: Path) -> None:
    """So each write looks, not only the first one on a connection."""
    url = lasting.fresh()
    with hub_on(url, tmp_path / "marks") as hub:
        book(hub, 1)
        dump = Dump(lasting, url)
        book(hub, 2)
        dump.put_back()
        with pytest.raises(StoreFailed, match=WENT_BACK):
            book(hub, 3)
    with hub_on(url, tmp_path / "marks") as hub:
        assert hub.restored


def test_what_a_hub_lost_that_was_no_booking_is_noticed(lasting: Server, tmp_path: Path) -> None:
    """A revocation, say: neither a position nor a chain tells, but the operator has to do it again."""
    url = lasting.fresh()
    with hub_on(url, tmp_path / "marks") as hub:
        dump = Dump(lasting, url)
        hub._database.write_and_wait(lambda _connection: None)
        dump.put_back()
        with pytest.raises(StoreFailed, match=WENT_BACK):
            book(hub, 1)


def test_a_dump_of_before_this_start_is_noticed_at_the_next_one(lasting: Server, tmp_path: Path) -> None:
    """Each process has its own row, so that a start tells, though other processes have started since."""
    url = lasting.fresh()
    with hub_on(url, tmp_path / "one"):
        dump = Dump(lasting, url)
    with hub_on(url, tmp_path / "one"), hub_on(url, tmp_path / "other") as other:
        assert not other.restored, "a process that comes for the first time has nothing to compare"
    dump.put_back()
    with hub_on(url, tmp_path / "one") as one:
        assert one.restored


def test_a_database_without_the_ledger_is_waited_for(lasting: Server, tmp_path: Path) -> None:
    """Halfway through a dump nothing is judged, and nothing written."""
    url = lasting.fresh()
    with hub_on(url, tmp_path / "marks") as hub:
        book(hub, 1)
        with ServerDatabase.open(url, KEY) as store:
            row = store.write_and_wait(lambda sql: sql.execute(text("SELECT * FROM hub")).mappings().one())
            store.write_and_wait(lambda sql: sql.execute(text("DELETE FROM hub")) and None)
            with pytest.raises(StoreFailed, match="no ledger in it"):
                hub.append(card(2), [TOPUP], 2).result(PATIENCE_S)
            values = ", ".join(f":{name}" for name in row)
            store.write_and_wait(
                lambda sql: sql.execute(text(f"INSERT INTO hub VALUES ({values})"), dict(row)) and None  # noqa: S608
            )
        assert book(hub, 2) == 2


@pytest.mark.parametrize("lasting", ["postgresql"], indirect=True)
def test_invariant_1_a_commit_of_unknown_outcome_is_not_taken_for_a_database_put_back(
    lasting: Server, tmp_path: Path
) -> None:
    """The write may be there or not: both are what the process may have left."""
    with hub_on(lasting.fresh(), tmp_path / "marks") as hub:
        hub._database.write_and_wait(_die_at_commit)
        for _ in range(2):
            with pytest.raises(StoreFailed, match="not known"):
                hub.append(card(1), [TOPUP], 1, request="form").result(PATIENCE_S)
        hub._database.write_and_wait(lambda sql: sql.execute(text("DROP TRIGGER die ON request")) and None)
        assert hub.append(card(1), [TOPUP], 1, request="form").result().state.balance_minor == 1000


def _die_at_commit(connection: Connection) -> None:
    """From now on the server ends the connection of whoever commits a booking, after COMMIT was sent."""
    for statement in (
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON request DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION die()",
    ):
        connection.execute(text(statement))


def test_processes_that_come_and_go_leave_one_row_each(lasting: Server, tmp_path: Path) -> None:
    """However often they are started."""
    url = lasting.fresh()
    for _ in range(3):
        with ExitStack() as stack:
            one, _ = (stack.enter_context(hub_on(url, tmp_path / name)) for name in ("one", "other"))
            rows = one._database.read_and_wait(lambda sql: sql.execute(PROCESS.select()).all())
            assert len(rows) == 2
