"""Background work that its process does not finish, because it ended or the server went away, is finished.

By whichever process of the hub lives, also by one that is busy; and whoever does it, it is done once.
"""

from itertools import count

import pytest
from sqlalchemy import Connection

from crdt.block import parse
from crdt.errors import StoreFailed
from crdt.facts import Delta, Kind, ReplicaId
from crdt.revocations import Revocations
from crdt.store import comparing, cutting, overdrawn, papers
from crdt.store.chore import PAUSE_S, Chore
from crdt.store.comparing import Accounted
from crdt.store.database import Database
from crdt.store.hub import Change, HubLedger
from crdt.store.jobs import Rank
from crdt.store.projection import Step
from crdt.store.unfinished import STANDSTILL_S, Stand, Work, stands, stuck
from tests.crdt import world
from tests.crdt.store.branches import ONE, OTHER, THEIRS, as_of, facts, give, renewed
from tests.crdt.store.fleet import Fleet, card, deltas_of
from tests.crdt.store.merger import insist
from tests.crdt.store.orphans import (
    AGAIN,
    BALANCE_MINOR,
    NOW,
    Hold,
    adopted,
    answered,
    elsewhere,
    merged,
)
from tests.crdt.store.quarantined import at_rest
from tests.crdt.store.servers import Server
from tests.crdt.store.sharing import hubs, on_mortals, on_servers, store_of, until
from tests.crdt.store.test_cutting import chain, document
from tests.crdt.store.test_overdrawn import rides

MANY = 5_000


def taken_back(hub: HubLedger) -> list[Delta]:
    """What the hub has written to take copies back."""
    raws = hub.blocks_after(hub.replica, 0, 1 << 20).result()
    own = [fact for raw in raws for fact in deltas_of(parse(raw))]
    return [fact for fact in own if fact.kind in (Kind.REVERSAL, Kind.RETRACTION)]


@on_servers
@pytest.mark.parametrize("processes", [1, 3])
def test_invariant_3_a_copy_is_taken_back_where_the_process_that_merged_has_ended(
    url: str, processes: int
) -> None:
    """Before it compared; once, however many others take that over at the same time."""
    with hubs(url, processes) as every:
        adopted(every[0])
        elsewhere(url, lambda store: merged(store, AGAIN, [NOW.certificate]))
        until(lambda: answered(store_of(every[0])))
        for hub in every:
            at_rest(hub)
            assert hub.balance(card(1)).result() == BALANCE_MINOR
        rides_again = [fact for fact in THEIRS if fact.kind is Kind.FARE]  # no opening is taken back
        assert len(taken_back(every[0])) == len(rides_again)
        assert every[0].books().result().balance


@on_servers
def test_invariant_3_a_copy_is_taken_back_where_the_commit_was_not_known_to_be_written(url: str) -> None:
    """The server broke off while it committed, and so the process does not know what it has merged."""
    with hubs(url, 1) as (hub,):
        adopted(hub)
        merged(store_of(hub), AGAIN, [NOW.certificate])
        until(lambda: answered(store_of(hub)))
        assert hub.balance(card(1)).result() == BALANCE_MINOR


def test_invariant_3_a_start_takes_a_copy_back(fleet: Fleet) -> None:
    """Where the only process has ended before it compared."""
    adopted(fleet.hub)
    at_rest(fleet.hub)
    merged(fleet.hub_database, AGAIN, [NOW.certificate])
    fleet.hub_database.close()
    fleet.open_hub()
    at_rest(fleet.hub)
    assert answered(fleet.hub_database)
    assert fleet.hub.balance(card(1)).result() == BALANCE_MINOR


@on_mortals
def test_invariant_3_a_copy_is_taken_back_once_the_server_is_back(mortal: Server) -> None:
    """It went away between the history's step, which came first, and the one that compares."""
    with hubs(mortal.fresh(), 1, patience_s=0.0) as (hub,):
        adopted(hub)
        at_rest(hub)
        until(lambda: hub.lag().result() == 0)
        hold, came = Hold(), set[ReplicaId]()

        def heard(change: Change) -> None:
            came.update(change.replicas)
            if change.history and NOW.key.replica in came:
                hold()

        hub.on_commit(heard)
        hub.merge([block.raw for block in AGAIN], [NOW.certificate]).result()
        hold.wait()
        mortal.stop()
        hold.let_go()
        until(lambda: hub._parts.own._comparing._failed_s is not None)
        mortal.start()
        insist(lambda: hub.balance(card(1)))
        until(lambda: answered(store_of(hub)))
        assert hub.balance(card(1)).result() == BALANCE_MINOR


@on_servers
def test_invariant_3_a_ride_that_a_hub_before_it_was_put_back_has_copied_counts_once(url: str) -> None:
    """Nothing in quarantine tells of it, and whoever merged the terminal's own has ended."""
    earlier = renewed(world.Terminal(world.HUB_KEY, world.HUB), b"O")
    ride = facts((1, Kind.FARE, -70), author=OTHER)
    copy = [block.raw for block in earlier.blocks(as_of(ride, earlier), [])]
    with hubs(url, 1) as (hub,):
        hub.merge(copy, [earlier.certificate]).result()
        at_rest(hub)
        until(lambda: hub.lag().result() == 0)
        elsewhere(url, lambda store: merged(store, OTHER.blocks(ride, []), [earlier.certificate]))
        until(lambda: hub.balance(card(1)).result() == -70)


@on_servers
def test_a_floor_is_applied_where_the_process_that_set_it_has_ended(url: str) -> None:
    """Before all cards were judged by it: who owes is refused."""
    with hubs(url, 1) as (hub,):
        hub.merge(rides(1, 2, 3), world.CERTIFICATES).result()
        elsewhere(url, lambda store: store.write_and_wait(lambda sql: overdrawn.set_floor(sql, 0)))
        until(lambda: hub.overdrawn().result() == 3)


@on_mortals
def test_a_floor_is_applied_once_the_server_is_back(mortal: Server) -> None:
    """It went away between the floor's commit and the first step."""
    with hubs(mortal.fresh(), 1, patience_s=0.0) as (hub,):
        hub.merge(rides(1, 2, 3), world.CERTIFICATES).result()
        until(lambda: hub.lag().result() == 0)
        hold = Hold()
        setting = hub.amend(lambda amendment: amendment.set_floor(0), after=hold)
        hold.wait()
        mortal.stop()
        hold.let_go()
        assert setting.result()
        until(lambda: hub._parts.judging._failed_s is not None)
        mortal.start()
        insist(lambda: hub.balance(card(1)))
        until(lambda: hub.overdrawn().result() == 3)


@on_servers
def test_a_cut_is_finished_by_a_process_that_is_busy(url: str) -> None:
    """Finding that the history grows, it must not take that for somebody who goes on with the cut."""
    revocations = Revocations({ONE.key.replica: 2})
    rides_of = [Delta(OTHER.key.replica, seq, card(9), Kind.FARE, -1, seq) for seq in range(1, MANY + 1)]
    blocks = iter(OTHER.blocks(rides_of, [1] * MANY))

    def listed(connection: Connection) -> None:
        papers.put_document(connection, document(revocations))
        cutting.begin(connection, revocations)

    with hubs(url, 1) as (hub,):
        hub.merge([block.raw for block in chain()], world.CERTIFICATES).result()
        until(lambda: hub.lag().result() == 0)
        elsewhere(url, lambda store: store.write_and_wait(listed))

        def cut_meanwhile() -> bool:
            give(hub, next(blocks))
            return hub.heads().result()[ONE.key.replica].seq == 2

        until(cut_meanwhile)
        until(lambda: answered(store_of(hub)))


def test_merges_of_which_nothing_is_awaited_ask_for_no_comparing(fleet: Fleet) -> None:
    """They cost what they cost, and other processes look at nothing because of them."""
    give(fleet.hub, *chain())
    give(fleet.hub, *chain(OTHER))
    at_rest(fleet.hub)
    assert fleet.hub_database.read_and_wait(comparing.requests) == (0, 0, 0)


def test_work_stands_still_when_its_own_place_does() -> None:
    """Whatever else goes on, and for long enough that nobody can be at it."""
    seen: dict[Work, Stand] = {}
    for at, now_s in enumerate((0.0, STANDSTILL_S / 2, STANDSTILL_S)):
        seen = stands(seen, {Work.HISTORY: at, Work.CUTTING: "here"}, now_s)
        assert set(stuck(seen, now_s)) == ({Work.CUTTING} if now_s == STANDSTILL_S else set())
    assert not stands(seen, {}, STANDSTILL_S)


def test_a_process_accounts_for_requests_without_a_gap() -> None:
    """What it has made itself, and what is answered; not what another one made in between."""
    accounted = Accounted()
    for number in (1, 2, 4, 6):
        accounted.take(number)
    assert accounted.upto == 2
    accounted.take_all(3)
    assert accounted.upto == 4
    accounted.take_all(9)
    accounted.take(10)
    assert accounted.upto == 10


def test_work_that_failed_resumes_after_a_pause(database: Database) -> None:
    """And not before, however often it is told to; work that did not fail is begun where that is wanted."""
    now_s, steps = [0.0], count(1)

    def step(_connection: Connection) -> Step:
        if next(steps) == 1:
            raise StoreFailed("the server is away")
        return Step(frozenset(), more=False)

    done: list[Step] = []
    work = Chore(database, step, done.append, "", clock=lambda: now_s[0])

    def resumed(*, wanted: bool) -> int:
        work.resume(wanted=wanted)
        database.write(lambda _connection: None, rank=Rank.BACKGROUND).result()
        return len(done)

    assert [resumed(wanted=wanted) for wanted in (False, True, True, False)] == [0, 0, 0, 0]
    now_s[0] = PAUSE_S
    assert [resumed(wanted=wanted) for wanted in (False, False, True)] == [1, 1, 2]
