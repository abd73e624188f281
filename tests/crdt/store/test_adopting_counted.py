"""Invariants 3, 5 and 6: a ride that an earlier hub adopted counts once, also where its block counts by now.

The hub was put back, and forgot why the block did not count: which branch was first, or whom it had ended.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.facts import Draft, Kind
from crdt.revocations import Revocations
from crdt.store.coincidences import AT_ONCE, Coincidences
from crdt.store.content import Content
from crdt.store.moments import Moment
from crdt.store.resolutions import ADOPTED, OPEN
from tests.crdt import world
from tests.crdt.store.branches import COMMON, MINE, ONE, OTHER, as_of, caught_up, facts, renewed
from tests.crdt.store.depots import HUB_EVENTS, Depot
from tests.crdt.store.fleet import Fleet, card
from tests.crdt.store.quarantined import at_rest
from tests.crdt.store.sharing import hubs, on_servers
from tests.crdt.store.test_adopting_put_back import balances, give_all, resolutions
from tests.crdt.store.test_adopting_revoked import AGAIN, by_terminals, counted, rides_of

FIRST: Final = facts((2, Kind.FARE, -9), author=OTHER)
SECOND: Final = facts((1, Kind.FARE, -70), (3, Kind.FARE, 0), (4, Kind.OPENING, 500), author=OTHER)
CHAIN, BRANCH = OTHER.blocks(FIRST, []), OTHER.blocks(SECOND, [])
LATE: Final = facts((1, Kind.FARE, -5), (4, Kind.FARE, 0), first=4)
LONG: Final = ONE.blocks([*COMMON, *MINE, *LATE], [3])
REPLACED: Final = Revocations().with_replaced({ONE.key.replica: 3})
BEGUN: Final = [*COMMON, *MINE]
MANY_STEPS: Final = 100


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    """A hub that has nothing of the other terminal, and a copy of that."""
    with closing(Depot(tmp_path)) as depot:
        yield depot


def adopt_branch(depot: Depot) -> None:
    """One branch counts, the other is adopted; and all of that is lost."""
    depot.give(CHAIN)
    depot.give(BRANCH)
    depot.adopt()
    assert depot.believes() == balances([*BEGUN, *FIRST, *SECOND])
    depot.go_back(noticed=True)


def adopt_late(depot: Depot) -> None:
    """What an ended identity wrote last is adopted; and all of that is lost, with the list that ended it."""
    depot.revoke(REPLACED)
    depot.give(LONG)
    depot.adopt()
    assert depot.believes() == balances([*BEGUN, *LATE])
    depot.go_back(noticed=True)


@pytest.mark.parametrize("order", list(permutations(["branch", "chain", "copies"])))
def test_the_branch_that_was_adopted_is_the_first_to_come_again(depot: Depot, order: tuple[str, ...]) -> None:
    """Then it is what counts, the other is evidence, and nothing in quarantine says what the hub has copied.

    In whichever order they come: wherever the one that had counted is first, the copies stand.
    """
    adopt_branch(depot)
    steps: dict[str, Callable[[], None]] = {
        "branch": lambda: depot.give(BRANCH),
        "chain": lambda: depot.give(CHAIN),
        "copies": depot.bring_back,
    }
    for step in order:
        steps[step]()
        depot.rest()
    branch_counts = order.index("branch") < order.index("chain")
    counted = [*BEGUN, *SECOND, *([] if branch_counts else FIRST)]
    assert depot.believes() == balances(counted)
    assert depot.rides() == sum(delta.kind is Kind.FARE for delta in counted)
    assert resolutions(depot) == {OPEN if branch_counts else ADOPTED}
    depot.restart()
    assert depot.believes() == balances(counted)
    depot.adopt()
    assert depot.believes() == balances([*BEGUN, *FIRST, *SECOND])


@pytest.mark.parametrize("copies_first", [True, False])
def test_until_the_list_comes_again_the_late_block_counts_and_the_copy_does_not(
    depot: Depot, copies_first: bool
) -> None:
    """With the list the block leaves, and what was taken back for it counts again: an adoption stands."""
    once = balances([*BEGUN, *LATE])
    adopt_late(depot)
    steps: list[Callable[[], None]] = [depot.bring_back, lambda: depot.give(LONG)]
    for step in steps if copies_first else steps[::-1]:
        step()
        assert depot.believes()[1] == once[1]
    assert depot.believes() == once
    assert depot.rides() == 4
    for _ in range(2):
        depot.revoke(REPLACED)
        assert depot.believes() == once
        assert resolutions(depot) == {ADOPTED}
        assert depot.rides() == 4
        depot.revoke(Revocations({ONE.key.replica: 5}))
        assert depot.believes() == once
        assert depot.rides() == 4


def test_a_hub_that_finds_out_by_the_copies_that_it_was_put_back_looks_when_it_starts(depot: Depot) -> None:
    """Its marks were put back too, and under its old identity it may take nothing back."""
    depot.give(CHAIN)
    depot.give(BRANCH)
    depot.adopt()
    depot.go_back(noticed=False)
    depot.give(BRANCH)
    depot.bring_back()
    assert depot.hub.restored
    depot.restart()
    assert depot.believes() == balances([*BEGUN, *SECOND])


def parts_of(fleet: Fleet, coincidences: Coincidences) -> list[set[Moment]]:
    """What is looked at from where it came to, in parts."""
    parts: list[set[Moment]] = []
    for _ in range(MANY_STEPS):
        part = fleet.hub_database.read_and_wait(
            lambda connection: coincidences.part(connection, fleet.hub.replica)
        )
        coincidences.settle(part)
        if not part.more:
            return parts
        parts.append(set(part.moments))
    raise AssertionError("it does not rest")


def test_what_is_looked_at_at_once_is_bounded(fleet: Fleet) -> None:
    """Invariant 8: moments of the hub's at a start, and then what came, each once. Then there is nothing."""
    earlier = renewed(world.Terminal(world.HUB_KEY, world.HUB), b"O")
    rides = facts(*((number, Kind.FARE, -1) for number in range(1, AT_ONCE + 9)), author=OTHER)
    moments = {Moment(ride.card, ride.at_ms) for ride in rides}
    copies = earlier.blocks(as_of(rides, earlier), [250] * 5)
    fleet.hub.merge([block.raw for block in copies], [earlier.certificate]).result()
    caught_up(fleet.hub)
    coincidences = Coincidences()
    parts = parts_of(fleet, coincidences)
    assert [len(part) for part in parts] == [AT_ONCE, 8]
    assert set().union(*parts) == moments
    fleet.hub.merge([block.raw for block in OTHER.blocks(rides, [250] * 5)], [OTHER.certificate]).result()
    at_rest(fleet.hub)
    caught_up(fleet.hub)
    parts = parts_of(fleet, coincidences)
    assert [len(part) for part in parts[:2]] == [AT_ONCE, 8]
    assert set().union(*parts) == moments
    assert parts_of(fleet, coincidences) == []
    assert fleet.hub.balance(card(1)).result() == -1


@on_servers
@pytest.mark.parametrize("copies_first", [True, False])
def test_a_database_server_is_asked_the_same(url: str, copies_first: bool) -> None:
    """Each process of a hub looks, one after the other: what the first has taken back the other leaves."""
    earlier = renewed(world.Terminal(world.HUB_KEY, world.HUB), b"O")
    copies = earlier.blocks(as_of(SECOND, earlier), [])
    brought = [(copies, [earlier.certificate]), (BRANCH, [OTHER.certificate])]
    with hubs(url, 2) as (one, other):
        for blocks, certificates in brought if copies_first else brought[::-1]:
            other.merge([block.raw for block in blocks], certificates).result()
            at_rest(other)
        one.append(card(9), [Draft(Kind.TOPUP, 1)], 1).result()
        at_rest(one)
        found = [one.balance(card(number)).result() for number in (1, 3, 4)]
        assert found == [-70, 0, 500]
        assert one.books().result().balance


EVENTS: Final[Mapping[str, Callable[[Depot], None]]] = {
    "the chain comes": lambda depot: depot.give(CHAIN),
    "the branch comes": lambda depot: depot.give(BRANCH),
    "the late block comes": lambda depot: depot.give(LONG),
    "the operator adopts": Depot.adopt_what_may_be,
    "the terminal is replaced": lambda depot: depot.revoke(REPLACED),
    "its end is forgotten": lambda depot: depot.revoke(Revocations()),
    "the terminal writes again": lambda depot: depot.give(AGAIN),
    **HUB_EVENTS,
}


def times(depot: Depot) -> Counter[Content]:
    """How often each ride counts, whoever wrote it."""
    return rides_of([*by_terminals(depot), *depot.own_facts()])


@given(events=st.lists(st.sampled_from(sorted(EVENTS)), max_size=14))
@settings(max_examples=25, deadline=None)
def test_in_whichever_order_and_at_every_rest_each_ride_that_anybody_wrote_counts_once(
    events: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As its terminal's, or else as the hub's, as soon as that has looked at what came: also where a terminal
    has written it under two identities that count, because the list was lost."""
    with closing(Depot(tmp_path_factory.mktemp("depot"))) as depot:
        for event in events:
            EVENTS[event](depot)
            depot.rest()
            found, own = times(depot), depot.own_facts()
            said = {Content.of(one) for one in [*by_terminals(depot), *own] if one.kind is Kind.FARE}
            assert depot.hub.restored or (+found, -found) == (Counter(said), Counter())
        depot.note()
        depot.restart()
        give_all(depot, [*CHAIN, *BRANCH, *LONG])
        once = depot.believes()
        assert once == counted(depot)
        written = depot.own_facts()
        depot.restart()
        give_all(depot, [*CHAIN, *BRANCH, *LONG])
        assert (depot.believes(), depot.own_facts()) == (once, written)
