"""Invariants 3, 5 and 6: of a ride that several identities say one counts, whoever else is cut off or comes.

Copies of a terminal's storage that do not know of each other may each write again what the storage held.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.errors import RefusalCode
from crdt.facts import Delta, Draft, Kind
from crdt.revocations import Revocations
from crdt.store import said_again
from crdt.store.adopting import Adopter
from crdt.store.days import QUARTER_MS, Day
from crdt.store.resolutions import ADOPTED, UNDONE
from crdt.store.said_again import AT_ONCE
from tests.crdt.store.branches import COMMON, MINE, ONE, OTHER, as_of, caught_up, facts, renewed
from tests.crdt.store.depots import HUB_EVENTS, TWICE, Depot
from tests.crdt.store.fleet import Fleet, card
from tests.crdt.store.quarantined import at_rest, in_quarantine
from tests.crdt.store.sharing import hubs, on_servers
from tests.crdt.store.test_adopting_put_back import balances
from tests.crdt.store.test_adopting_revoked import by_terminals, rides_of

BEGUN: Final = [*COMMON, *MINE]
RIDES: Final = ((1, Kind.FARE, -70), (3, Kind.FARE, 0), (4, Kind.FARE, -30))
HELD: Final = facts(*RIDES, (4, Kind.OPENING, 500), first=4)
LATER: Final = renewed(ONE, b"3")
FIRST, SECOND, THIRD = (author.blocks(as_of(HELD, author), [2]) for author in (TWICE, OTHER, LATER))
FURTHER: Final = [LATER.certificate]
ONCE: Final = balances([*BEGUN, *HELD])
NOBODY: Final = Revocations()
FIRST_ENDED: Final = Revocations({TWICE.key.replica: 0})
SECOND_ENDED: Final = Revocations({OTHER.key.replica: 1})
BOTH_ENDED: Final = Revocations({TWICE.key.replica: 0, OTHER.key.replica: 0})


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    """A hub that has nothing of the copies."""
    with closing(Depot(tmp_path)) as depot:
        yield depot


def give_both(depot: Depot) -> None:
    """Two copies say the same."""
    depot.give(FIRST)
    depot.give(SECOND)


def of_copies(depot: Depot) -> list[Delta]:
    """What the hub has written because several say the same."""
    return [fact for fact in depot.own_facts() if fact.kind in (Kind.DUPLICATE, Kind.REINSTATED)]


def test_a_ride_that_two_copies_say_counts_once_and_the_operator_is_told(depot: Depot) -> None:
    """Money and rides of the day, free ones too; each of their authors is flagged."""
    give_both(depot)
    assert depot.believes() == ONCE
    assert depot.rides() == 5
    flags = depot.hub.flags().result()
    names = {author.key.replica: other.certificate.name for author, other in ((TWICE, OTHER), (OTHER, TWICE))}
    assert {(flag.replica, flag.code) for flag in flags} == dict.fromkeys(names, RefusalCode.RESTORED).items()
    assert all(f"in the chain of {names[flag.replica]} (" in flag.sentence for flag in flags)
    depot.restart()
    assert depot.believes() == ONCE
    assert len(of_copies(depot)) == 3


def test_a_third_copy_changes_nothing_but_what_is_taken_back(depot: Depot) -> None:
    """Whoever comes late."""
    give_both(depot)
    depot.rest()
    depot.give(THIRD, FURTHER)
    assert depot.believes() == ONCE
    assert depot.rides() == 5
    assert [fact.kind for fact in of_copies(depot)] == [Kind.DUPLICATE] * 6


def test_when_one_of_them_is_cut_off_the_other_one_counts(depot: Depot) -> None:
    """And when both are, neither, though the hub has written of it; and once more when they are back."""
    give_both(depot)
    depot.rest()
    for listed, counted in [
        (FIRST_ENDED, [*BEGUN, *HELD]),
        (SECOND_ENDED, [*BEGUN, *HELD]),
        (NOBODY, [*BEGUN, *HELD]),
        (BOTH_ENDED, BEGUN),
        (NOBODY, [*BEGUN, *HELD]),
        (BOTH_ENDED, BEGUN),
        (SECOND_ENDED, [*BEGUN, *HELD]),
    ]:
        depot.revoke(listed)
        depot.rest()
        depot.give([*FIRST, *SECOND])
        assert depot.believes() == balances(counted)
        assert depot.rides() == sum(fact.kind is Kind.FARE for fact in counted)


def test_an_identity_that_must_not_write_leaves_it_to_the_next(depot: Depot) -> None:
    """Its marks were put back with the database: it finds out by what others bring, and writes nothing."""
    depot.sell()
    depot.go_back(noticed=False)
    depot.sell()
    depot.bring_back()
    assert depot.hub.restored
    give_both(depot)
    depot.rest()
    assert not of_copies(depot)
    depot.restart()
    assert depot.believes() | {9: 0} == ONCE


@pytest.mark.parametrize("lists", [(), (FIRST_ENDED,), (FIRST_ENDED, NOBODY)])
def test_a_hub_that_ends_before_it_has_looked_looks_when_it_starts(
    depot: Depot, monkeypatch: pytest.MonkeyPatch, lists: tuple[Revocations, ...]
) -> None:
    """ "In the same transaction: whatever ends before, none is missed". Also of what leaves the history."""

    def cut(*_arguments: object) -> None:
        raise RuntimeError("the power was cut")

    depot.give(FIRST)
    depot.rest()
    with monkeypatch.context() as broken:
        broken.setattr(Adopter, "compare", cut)
        depot.give(SECOND)
        caught_up(depot.hub)
        assert depot.noted()
        depot.close()
    depot.open()
    assert depot.believes() == ONCE
    for revocations in lists:
        with monkeypatch.context() as broken:
            broken.setattr(Adopter, "compare", cut)
            depot.revoke(revocations)
            depot.rest()
            assert depot.noted()
            depot.close()
        depot.open()
        assert depot.believes() == ONCE
    assert not depot.noted()


def test_a_copy_of_whom_nobody_knows_says_what_was_adopted_from_another(depot: Depot) -> None:
    """The hub was never put back, and the two have nothing to do with each other by its papers."""
    replaced = Revocations().with_replaced({ONE.key.replica: 3})
    depot.revoke(replaced)
    depot.give(ONE.blocks([*BEGUN, *HELD], [3]))
    depot.adopt()
    assert depot.believes() == ONCE
    depot.give(SECOND)
    depot.rest()
    assert {entry.resolution for entry in in_quarantine(depot.hub).result()} <= {ADOPTED, UNDONE}
    assert depot.believes() == ONCE
    assert depot.rides() == 5
    depot.revoke(replaced.with_cut_off(OTHER.key.replica, 0))
    assert depot.believes() == ONCE
    assert depot.rides() == 5


def test_one_author_that_says_it_twice_is_not_taken_for_a_copy(depot: Depot) -> None:
    """No reader takes two equal rides, but nothing else forbids them; another one's are."""
    twice = as_of([HELD[0], HELD[0]], TWICE)
    depot.give(TWICE.blocks(twice, []))
    depot.rest()
    depot.give(OTHER.blocks(as_of([HELD[0]], OTHER), []))
    depot.rest()
    assert depot.hub.balance(card(1)).result() == balances(BEGUN)[1] - 140
    assert len(of_copies(depot)) == 1


def test_what_differs_in_anything_is_not_the_same_ride(depot: Depot) -> None:
    """Of one card and moment: another fare, or another kind."""
    depot.give(OTHER.blocks(facts((1, Kind.FARE, -70), author=OTHER), []))
    depot.give(TWICE.blocks(facts((1, Kind.FARE, -71), (2, Kind.OPENING, 9), author=TWICE), []))
    depot.rest()
    assert not of_copies(depot)
    assert not depot.hub.flags().result()


def test_a_closed_day_is_restated(depot: Depot) -> None:
    """A copy that comes late adds a ride, and what is taken back is the same day's."""
    day = Day(0, QUARTER_MS, 1)
    depot.give(FIRST)
    depot.rest()
    closed = depot.hub.close_day(day, 1).result()
    depot.give(SECOND)
    depot.rest()
    report = depot.hub.report(day).result()
    assert report.figures == closed.figures
    adjusted = [one.figures for one in report.adjustments]
    assert adjusted
    assert [sum(column) for column in zip(*adjusted, strict=True)][1:3] == [0, 0]  # rides, and what they took


def test_what_is_looked_at_at_once_is_bounded_and_nothing_is_left(fleet: Fleet) -> None:
    """Invariant 8: a month that came twice."""
    rides = facts(*((number, Kind.FARE, -1) for number in range(1, AT_ONCE + 9)), author=OTHER)
    for author in (OTHER, TWICE):
        raws = [block.raw for block in author.blocks(as_of(rides, author), [250] * 5)]
        fleet.hub.merge(raws, [OTHER.certificate, TWICE.certificate]).result()
    at_rest(fleet.hub)
    assert not fleet.hub_database.read_and_wait(said_again.are_noted)
    assert {fleet.hub.balance(card(number)).result() for number in range(1, AT_ONCE + 9)} == {-1}


@on_servers
def test_processes_that_share_a_database_take_back_once(url: str) -> None:
    """Whichever of them wrote the history, and looked."""
    with hubs(url, 2) as (one, other):
        for hub, blocks in ((one, FIRST), (other, SECOND), (one, THIRD)):
            certificates = [TWICE.certificate, OTHER.certificate, *FURTHER]
            hub.merge([block.raw for block in blocks], certificates).result()
        for hub in (one, other):
            at_rest(hub)
        one.append(card(9), [Draft(Kind.TOPUP, 1)], 1).result()
        at_rest(one)
        assert [one.balance(card(number)).result() for number in (1, 3, 4)] == [-70, 0, 470]
        assert one.books().result().balance


EVENTS: Final[Mapping[str, Callable[[Depot], None]]] = {
    "the first copy comes": lambda depot: depot.give(FIRST),
    "half of it comes": lambda depot: depot.give(FIRST[:1]),
    "the second copy comes": lambda depot: depot.give(SECOND),
    "the first is ended": lambda depot: depot.revoke(FIRST_ENDED),
    "the second is ended": lambda depot: depot.revoke(SECOND_ENDED),
    "both are": lambda depot: depot.revoke(BOTH_ENDED),
    "nobody is": lambda depot: depot.revoke(NOBODY),
    **HUB_EVENTS,
}


@given(events=st.lists(st.sampled_from(sorted(EVENTS)), max_size=14))
@settings(max_examples=25, deadline=None)
def test_in_whichever_order_and_at_every_rest_each_ride_counts_as_often_as_it_is_said(
    events: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Once where anybody says it whose word counts, and else not at all."""
    with closing(Depot(tmp_path_factory.mktemp("depot"))) as depot:
        for event in events:
            EVENTS[event](depot)
            depot.rest()
            said = rides_of(by_terminals(depot))
            found = rides_of([*by_terminals(depot), *depot.own_facts()])
            assert depot.hub.restored or +found == dict.fromkeys(said, 1)
            assert depot.hub.restored or not -found
        depot.note()
        depot.restart()
        depot.revoke(NOBODY)
        for _ in range(2):
            depot.give([*FIRST, *SECOND])
            depot.bring_back()
            depot.restart()
            assert depot.believes() | {9: 0} == ONCE
