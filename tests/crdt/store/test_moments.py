"""Invariants 3 and 5: the hub sells nothing twice of one moment and card; content tells its facts apart."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt.block import parse
from crdt.errors import MisuseError
from crdt.facts import MAX_AT_MS, CardId, Delta, Draft, Kind
from crdt.revocations import Revocations
from crdt.store.hub import HubLedger
from crdt.store.resolutions import ADOPTED
from tests.crdt import world
from tests.crdt.store.depots import EVERYTHING, SOLD_ON, Depot
from tests.crdt.store.fleet import Fleet, card, deltas_of
from tests.crdt.store.quarantined import in_quarantine
from tests.crdt.store.sharing import hubs, on_servers
from tests.crdt.store.stores import NewFleet

TOPUP = Draft(Kind.TOPUP, 1000)
AT_MS = 5_000


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    """A hub whose database goes back."""
    with closing(Depot(tmp_path)) as depot:
        yield depot


def sold(hub: HubLedger) -> list[Delta]:
    """What the hub has written, in order."""
    raws = hub.blocks_after(hub.replica, 0, EVERYTHING).result()
    return [delta for raw in raws for delta in deltas_of(parse(raw))]


def test_two_equal_sales_of_one_millisecond_that_are_lost_are_both_adopted(depot: Depot) -> None:
    """They are two customers' money; and one order may sell the same twice."""
    depot.hub.append(SOLD_ON, [TOPUP], AT_MS).result()
    depot.hub.append(SOLD_ON, [TOPUP, TOPUP], AT_MS).result()
    depot.go_back(noticed=False)
    depot.sell()
    depot.bring_back()
    depot.restart()
    depot.adopt()
    assert depot.hub.balance(SOLD_ON).result() == 4_000
    assert {entry.resolution for entry in in_quarantine(depot.hub).result()} == {ADOPTED}


def test_what_was_adopted_is_of_a_moment_of_its_own_too(depot: Depot) -> None:
    """A clock that was set back sells at the time of a sale that was lost: both count."""
    depot.hub.append(SOLD_ON, [TOPUP], AT_MS).result()
    depot.go_back(noticed=False)
    depot.sell()
    depot.bring_back()
    depot.restart()
    depot.adopt()
    depot.hub.append(SOLD_ON, [TOPUP], AT_MS).result()
    depot.bring_back()
    depot.restart()
    assert depot.believes()[9] == 3_000


orders = st.tuples(st.integers(1, 2), st.integers(AT_MS, AT_MS + 6), st.integers(1, 4))


@given(wanted=st.lists(orders, max_size=12))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_two_facts_of_a_card_are_of_one_moment(
    wanted: list[tuple[int, int, int]], new_fleet: NewFleet
) -> None:
    """Whatever the clock says; and where nothing is there, they are of the moment that was asked for."""
    taken: set[tuple[CardId, int]] = set()
    with closing(new_fleet(0)) as fleet:
        for number, at_ms, count in wanted:
            fleet.hub.append(card(number), [TOPUP] * count, at_ms).result()
            new = [(delta.card, delta.at_ms) for delta in sold(fleet.hub)[-count:]]
            asked = [(card(number), at_ms + place) for place in range(count)]
            assert taken.isdisjoint(new)
            assert new[0] >= asked[0]
            assert new == asked or not taken.isdisjoint(asked)
            taken.update(new)
        assert len(taken) == len(sold(fleet.hub))


@on_servers
def test_processes_that_share_a_database_never_sell_in_one_moment(url: str) -> None:
    """Each asks for the same one."""
    with hubs(url, 2) as both, ThreadPoolExecutor(4) as threads:
        booked = [threads.submit(hub.append, card(1), [TOPUP], AT_MS) for hub in both * 10]
        for one in booked:
            one.result().result()
        times = [delta.at_ms for delta in sold(both[0])]
    assert sorted(times) == list(range(AT_MS, AT_MS + 20))


def test_a_moment_beyond_what_a_fact_may_have_is_refused(fleet: Fleet) -> None:
    """Nothing is booked then."""
    for at_ms in (-1, MAX_AT_MS + 1, 1 << 80):
        with pytest.raises(MisuseError):
            fleet.hub.append(card(1), [TOPUP], at_ms).result()
    with pytest.raises(MisuseError):
        fleet.hub.append(card(1), [TOPUP, TOPUP], MAX_AT_MS).result()
    assert world.HUB.replica not in fleet.hub.heads().result()


def test_what_is_accepted_of_an_earlier_hub_that_was_revoked_is_of_a_moment_too(depot: Depot) -> None:
    """Its block was in quarantine; sold at its moment, another sale is of the next."""
    depot.hub.append(SOLD_ON, [TOPUP], AT_MS).result()
    first = depot.hub.replica
    depot.go_back(noticed=True)
    depot.revoke(Revocations({first: 0}))
    depot.bring_back()
    assert depot.hub.balance(SOLD_ON).result() == 0
    depot.revoke(Revocations({first: 1}))
    assert depot.hub.balance(SOLD_ON).result() == TOPUP.amount_minor
    depot.hub.append(SOLD_ON, [TOPUP], AT_MS).result()
    assert [delta.at_ms for delta in sold(depot.hub)] == [AT_MS + 1]


def test_a_sale_of_a_hub_that_was_put_back_keeps_its_moment_when_it_comes_back(depot: Depot) -> None:
    """The next identity sells the same at the same millisecond, and loses that: it is another sale."""
    depot.hub.append(SOLD_ON, [TOPUP], AT_MS).result()
    depot.go_back(noticed=True)
    depot.bring_back()
    depot.keep()
    depot.hub.append(SOLD_ON, [TOPUP], AT_MS).result()
    depot.go_back(noticed=False)
    depot.hub.append(card(1), [TOPUP], AT_MS).result()
    depot.bring_back()
    depot.restart()
    depot.adopt()
    assert depot.hub.balance(SOLD_ON).result() == 2 * TOPUP.amount_minor
