"""Invariants 3 and 5: what was adopted counts once, however often the hub is put back in between."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.block import Block, seal
from crdt.facts import NEW_CARD, Delta, Kind
from crdt.revocations import Revocations
from crdt.store.content import Content
from crdt.store.resolutions import ADOPTED, OPEN, PART, UNDONE, UNRESOLVED
from tests.crdt import world
from tests.crdt.store.branches import COMMON, MINE, ONE, THEIRS, as_of, facts, renewed
from tests.crdt.store.depots import CARDS, HUB_EVENTS, TWICE, Depot
from tests.crdt.store.fleet import added_up, card
from tests.crdt.store.quarantined import in_quarantine

THRICE = renewed(ONE, b"T")  # and one more of its identities
AGAIN = TWICE.blocks(as_of(THEIRS, TWICE), [1])
OTHERS = [*THEIRS[:1], *facts((2, Kind.FARE, -9), (4, Kind.FARE, 0), first=4)]  # begins as THEIRS does
BRANCH = ONE.blocks(COMMON + THEIRS, [4])
OTHER_BRANCH = [seal(ONE.key, world.FLEET, [*COMMON[1:], *OTHERS], b"p" * 32)]


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    """A hub that holds the branch that counts."""
    with closing(Depot(tmp_path)) as depot:
        yield depot


def balances(counted: Iterable[Delta]) -> dict[int, int]:
    """What the test's cards have when each content counts once, whoever wrote it."""
    distinct = {Content.of(delta): delta for delta in counted}
    states = added_up(distinct.values())
    return {number: states.get(card(number), NEW_CARD).balance_minor for number in CARDS}


def rides(counted: Iterable[Delta]) -> int:
    """How many there are when each counts once."""
    return len({Content.of(delta) for delta in counted if delta.kind is Kind.FARE})


def resolutions(depot: Depot) -> set[str]:
    """What became of what is in quarantine."""
    return {entry.resolution for entry in in_quarantine(depot.hub).result()}


ONCE = balances(COMMON + MINE + THEIRS)


@pytest.mark.parametrize("evidence_first", [True, False])
@pytest.mark.parametrize("adopted_again", [True, False])
def test_what_a_lost_adoption_booked_is_taken_back_when_the_terminal_writes_it(
    depot: Depot, adopted_again: bool, evidence_first: bool
) -> None:
    """The adopting block comes back from others: that says that the entry is adopted."""
    depot.give(BRANCH)
    depot.adopt()
    depot.go_back(noticed=True)
    if evidence_first or adopted_again:
        depot.give(BRANCH)
    if adopted_again:
        depot.adopt()
    depot.bring_back()
    depot.rest()
    depot.give(BRANCH)
    assert depot.believes() == ONCE
    assert resolutions(depot) == {ADOPTED}
    depot.give(AGAIN)
    assert depot.believes() == ONCE
    assert resolutions(depot) == {UNDONE}


@pytest.mark.parametrize("back_first", [True, False])
def test_what_was_taken_back_before_the_hub_was_put_back_is_not_taken_back_twice(
    depot: Depot, back_first: bool
) -> None:
    """The copy is of after the adoption; what the terminal wrote again, and the taking back, are lost."""
    depot.give(BRANCH)
    depot.adopt()
    depot.keep()
    depot.give(AGAIN)
    depot.rest()
    depot.go_back(noticed=True)
    steps: list[Callable[[], None]] = [depot.bring_back, lambda: depot.give(AGAIN)]
    for step in steps if back_first else steps[::-1]:
        step()
        assert depot.believes() == ONCE
    assert resolutions(depot) == {UNDONE}


def test_what_was_adopted_with_a_branch_that_is_not_here_is_taken_back_too(depot: Depot) -> None:
    """Of the branch that is here the hub has a part, and the operator still has to decide about the rest."""
    depot.give(OTHER_BRANCH)
    depot.adopt()
    depot.go_back(noticed=True)
    depot.give(BRANCH)
    depot.bring_back()
    assert depot.believes() == balances([*COMMON, *MINE, *OTHERS])
    assert resolutions(depot) == {PART, OPEN}
    depot.give(AGAIN)
    assert depot.believes() == balances([*COMMON, *MINE, *THEIRS, *OTHERS])


def test_what_the_hub_took_back_in_a_branch_that_it_lost_is_not_adopted(depot: Depot) -> None:
    """It is about what another block says, known or not; nor does the hub write and take it back for ever."""
    depot.give(BRANCH)
    depot.adopt()
    depot.give(AGAIN)
    depot.rest()
    depot.go_back(noticed=False)
    depot.sell()
    depot.bring_back()
    depot.restart()
    depot.give(BRANCH)
    lost = [entry for entry in in_quarantine(depot.hub).result() if entry.replica == world.HUB.replica]
    depot.hub.adopt([lost[-1].hash]).result()  # by mistake: before anything that it is about is known
    assert depot.believes() == balances([*COMMON, *MINE, *depot.sold])
    for _ in range(2):
        depot.adopt()
        assert depot.believes() == balances([*COMMON, *MINE, *THEIRS, *depot.sold])
        assert not resolutions(depot) & UNRESOLVED
        depot.give(AGAIN)
    assert depot.believes() == balances([*COMMON, *MINE, *THEIRS, *depot.sold])


def test_what_is_taken_back_is_of_the_day_and_the_place_that_had_it_twice(depot: Depot) -> None:
    """For reports: the exact mirror of what it takes back."""
    depot.give(BRANCH)
    depot.adopt()
    copies = depot.own_facts()
    depot.give(AGAIN)
    depot.rest()
    back = depot.own_facts()[len(copies) :]
    moving = [copy for copy in copies if copy.kind is not Kind.OPENING]
    assert {Content.of(delta) for delta in back} == {Content.of(copy).back for copy in moving}
    assert {delta.kind for delta in back} == {Kind.REVERSAL}


def test_an_accepted_block_that_an_earlier_identity_of_the_hub_had_adopted_counts_once(depot: Depot) -> None:
    """It had come after its terminal was replaced; the copy knows of a revocation only, which is lifted."""
    late = ONE.blocks([*COMMON, *MINE, *facts((1, Kind.FARE, -5), first=4)], [3])[1:]
    depot.revoke(Revocations().with_replaced({ONE.key.replica: 3}))
    depot.give(late)
    depot.adopt()
    depot.go_back(noticed=True)
    depot.revoke(Revocations({ONE.key.replica: 3}))
    depot.give(late)
    depot.bring_back()
    depot.rest()
    assert resolutions(depot) == {ADOPTED}
    depot.revoke(Revocations({ONE.key.replica: 4}))
    assert depot.believes() == balances([*COMMON, *MINE, *facts((1, Kind.FARE, -5), first=4)])
    assert resolutions(depot) == {UNDONE}


def test_a_sale_counts_once_where_the_end_of_its_late_block_was_not_copied_and_is_lost(depot: Depot) -> None:
    """An identity of the terminal had written the end before the adoption, another writes the sale."""
    sale, ride = facts((1, Kind.TOPUP, 900), (1, Kind.FARE, -5), first=4)
    late = ONE.blocks([*COMMON, *MINE, sale, ride], [3])
    end = THRICE.blocks(as_of([ride], THRICE), [])
    replaced = Revocations().with_replaced({ONE.key.replica: 3})
    depot.revoke(replaced)
    depot.give(late, [THRICE.certificate])
    depot.give(end)
    depot.adopt()
    depot.go_back(noticed=True)
    depot.revoke(replaced)
    depot.give(late, [THRICE.certificate])
    depot.bring_back()
    depot.give(TWICE.blocks(as_of([sale], TWICE), []))
    assert depot.believes() == balances([*COMMON, *MINE, sale])
    depot.give(end)
    assert depot.believes() == balances([*COMMON, *MINE, sale, ride])


EVENTS: Final[Mapping[str, Callable[[Depot], None]]] = {
    "a branch comes": lambda depot: depot.give(BRANCH),
    "another branch comes": lambda depot: depot.give(OTHER_BRANCH),
    "the operator adopts": Depot.adopt,
    **HUB_EVENTS,
}
WRITES_AGAIN = "the terminal writes again"


@given(
    events=st.lists(st.sampled_from([*EVENTS, WRITES_AGAIN, WRITES_AGAIN]), max_size=14),
    again=st.lists(st.sampled_from([*THEIRS, *OTHERS[1:]]), unique=True),
    sizes=st.lists(st.integers(1, 3), max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_whatever_comes_in_whichever_order_each_fact_counts_once(
    events: list[str], again: list[Delta], sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As far as the terminal has written it again, or any identity of the hub has adopted it.

    Also as a ride of the day, free or not.
    """
    rewritten = TWICE.blocks(as_of(again, TWICE), sizes)
    coming = iter(range(1, len(rewritten) + 1))
    with closing(Depot(tmp_path_factory.mktemp("depot"))) as depot:
        for event in events:
            if event == WRITES_AGAIN:
                depot.give(rewritten[: next(coming, len(rewritten))])
            else:
                EVENTS[event](depot)
        depot.note()
        depot.restart()
        everything = [*BRANCH, *OTHER_BRANCH, *rewritten]
        give_all(depot, everything)
        assert depot.believes() == balances([*COMMON, *MINE, *again, *depot.counted()])
        assert depot.rides() == rides([*COMMON, *MINE, *again, *depot.counted()])
        depot.adopt()
        once = depot.believes()
        assert once == balances([*COMMON, *MINE, *THEIRS, *OTHERS, *depot.sold])
        assert depot.rides() == rides([*COMMON, *MINE, *THEIRS, *OTHERS])
        assert not resolutions(depot) & UNRESOLVED
        written = len(depot.own_facts())
        depot.restart()
        give_all(depot, everything)
        assert depot.believes() == once
        assert len(depot.own_facts()) == written


def give_all(depot: Depot, blocks: Sequence[Block]) -> None:
    """All that was ever signed comes once more; the hub goes on as a new identity where it has to."""
    depot.give(blocks)
    depot.bring_back()
    if depot.hub.restored:
        depot.restart()
    depot.rest()
