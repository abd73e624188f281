"""Overdrawn cards go on the hotlist by themselves and come off when they are paid."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt.cursor import beginning
from crdt.errors import MisuseError
from crdt.facts import CardId, Delta, Draft, Kind
from crdt.settlement import HOTLISTED, OVERDRAWN
from crdt.store import overdrawn
from crdt.store.hub import HubLedger
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, card
from tests.crdt.store.stores import NewFleet

ONE, OTHER, _ = world.TERMINALS
PATIENCE_S = 30


@pytest.fixture
def fleet(new_fleet: NewFleet) -> Iterator[Fleet]:
    """A new hub and a terminal."""
    fleet = new_fleet(1)
    fleet.hub.merge([], world.CERTIFICATES).result()
    yield fleet
    fleet.close()


def flags(hub: HubLedger, which: CardId) -> int:
    """A card's flags."""
    row = hub.card(which).result()
    assert row is not None
    return row.flags


def rides(*cards: int, author: world.Terminal = OTHER) -> list[bytes]:
    """A ride for 250 on each of these cards."""
    deltas = [
        Delta(author.key.replica, seq, card(number), Kind.FARE, -250, 1_000)
        for seq, number in enumerate(cards, 1)
    ]
    return [block.raw for block in author.blocks(deltas, [])]


def judged(hub: HubLedger, expected: dict[CardId, bool]) -> None:
    """Wait until the background work has judged the cards so."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 100):
        found = {row.card: bool(row.flags & OVERDRAWN) for row in hub.cards(limit=1000).result()}
        if found == expected:
            return
        pause.wait(0.01)
    raise AssertionError(f"{found} instead of {expected}")


def test_a_card_is_overdrawn_from_the_ride_that_makes_it_so_until_it_is_paid(fleet: Fleet) -> None:
    """In the same change as the balance: no settlement ever says one without the other."""
    hub = fleet.hub
    hub.set_floor(-250).result()
    hub.merge(rides(1, 2, 2)).result()
    assert (flags(hub, card(1)), flags(hub, card(2))) == (0, OVERDRAWN)
    assert hub.overdrawn().result() == 1
    fleet.pull(fleet.terminals[0])
    assert fleet.terminals[0].ledger.view(card(2)).hotlisted
    assert not fleet.terminals[0].ledger.view(card(1)).hotlisted
    assert [fleet.terminals[0].ledger.view(card(number)).until_paid for number in (1, 2)] == [False, True]
    hub.append(card(2), [Draft(Kind.TOPUP, 250)], 5).result()
    assert flags(hub, card(2)) == 0
    fleet.pull(fleet.terminals[0])
    assert not fleet.terminals[0].ledger.view(card(2)).hotlisted


def test_until_there_is_a_floor_nothing_is_overdrawn(fleet: Fleet) -> None:
    fleet.hub.merge(rides(1, 1, 1, 1)).result()
    assert flags(fleet.hub, card(1)) == 0


def test_an_operators_listing_stays_when_a_card_is_paid(fleet: Fleet) -> None:
    """The two reasons to refuse a card do not know of each other."""
    hub = fleet.hub
    hub.set_floor(0).result()
    hub.merge(rides(1)).result()
    assert hub.set_hotlisted(card(1), True).result()
    assert flags(hub, card(1)) == HOTLISTED | OVERDRAWN
    hub.append(card(1), [Draft(Kind.TOPUP, 250)], 5).result()
    assert flags(hub, card(1)) == HOTLISTED
    hub.append(card(1), [Draft(Kind.ADJUSTMENT, -1)], 5).result()
    assert hub.set_hotlisted(card(1), False).result()
    assert not hub.set_hotlisted(card(1), False).result()
    assert flags(hub, card(1)) == OVERDRAWN


def test_overdrawn_cards_are_known_and_counted(fleet: Fleet) -> None:
    """A flag that refuses a card does not make it one that nobody has met; the books do not see it."""
    hub = fleet.hub
    hub.set_floor(0).result()
    hub.merge(rides(1, 2)).result()
    hub.set_hotlisted(card(3), True).result()
    assert hub.totals().result().cards == 2
    assert hub.books().result() == (-500, -500, 0)
    fleet.pull(fleet.terminals[0])
    assert fleet.terminals[0].ledger.view(card(1)).known
    assert fleet.terminals[0].ledger.digest() == hub.digest().result()


def test_another_floor_judges_all_cards_anew_in_the_background(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bounded steps; only cards that change get a new position."""
    monkeypatch.setattr(overdrawn, "STEP_CARDS", 2)
    hub = fleet.hub
    hub.merge(rides(1, 2, 3, 3, 4, 4, 4, 5)).result()
    owes = {card(1): 250, card(2): 250, card(3): 500, card(4): 750, card(5): 250}
    assert hub.set_floor(-250).result()
    assert not hub.set_floor(-250).result()
    judged(hub, {one: owed > 250 for one, owed in owes.items()})
    before = hub.totals().result().position
    hub.set_floor(-500).result()
    judged(hub, {one: owed > 500 for one, owed in owes.items()})
    assert hub.totals().result().position == before + 1
    page = hub.page(b"S" * 16, before, beginning(before)).result()
    assert [row.card for row in page.rows] == [card(3)]


def test_judging_goes_on_after_a_restart(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule is kept, and how far all cards were judged by it."""
    fleet.hub.merge(rides(1, 2, 3)).result()
    with monkeypatch.context() as stopped:
        stopped.setattr(overdrawn, "STEP_CARDS", 0)
        fleet.hub_database.write_and_wait(lambda connection: overdrawn.set_floor(connection, 0))
        fleet.hub_database.close()
    fleet.open_hub()
    judged(fleet.hub, {card(number): True for number in (1, 2, 3)})


def test_a_floor_above_zero_makes_no_sense(fleet: Fleet) -> None:
    with pytest.raises(MisuseError):
        fleet.hub.set_floor(1).result()


@given(
    steps=st.lists(st.tuples(st.integers(1, 3), st.integers(-900, 900).filter(bool)), max_size=12),
    floors=st.lists(st.integers(-1_000, 0), min_size=1, max_size=3),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_card_is_overdrawn_exactly_when_its_balance_is_below_the_floor(
    steps: list[tuple[int, int]], floors: list[int], new_fleet: NewFleet
) -> None:
    with closing(new_fleet(0)) as fleet:
        balances: dict[CardId, int] = {}
        every = len(steps) // len(floors) + 1
        for at, (number, amount) in enumerate(steps):
            if at % every == 0:
                fleet.hub.set_floor(floors[at // every]).result()
            fleet.hub.append(card(number), [Draft(Kind.ADJUSTMENT, amount)], 5).result()
            balances[card(number)] = balances.get(card(number), 0) + amount
        last = floors[(len(steps) - 1) // every] if steps else 0
        judged(fleet.hub, {one: minor < last for one, minor in balances.items()})
