"""The exposure is a bound: no way of riding offline makes cards owe more, and some way comes close."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.exposure import Group, Rules, Standing, exposure
from crdt.facts import CardId, CardView
from crdt.fleet import REFUSE, FleetSettings
from edge.decide import Accepted, decide

FARE = 250
OPENING = FleetSettings(flat_fare_minor=FARE, opening_balance_minor=500, passback_window_s=60)
POLICY = replace(OPENING, unknown_card=REFUSE)
HOUR_MS = 3_600_000
MONTH_MS = 30 * 24 * HOUR_MS
STRICT = replace(POLICY, negative_ride=False)


def group(policy: FleetSettings = POLICY, offline_ms: int | None = MONTH_MS) -> Group:
    return Group(Rules.of(policy), offline_ms)


def per_card(
    policy: FleetSettings, groups: int, balance_minor: int, offline_ms: int | None = MONTH_MS
) -> int:
    card = Standing(balance_minor, balance_minor)
    return exposure([group(policy, offline_ms)] * groups, [card]).per_card_minor


@pytest.mark.parametrize(
    ("groups", "balance_minor", "loss_minor"),
    [(0, 1000, 0), (1, 1000, FARE), (2, 1000, 1000 + 2 * FARE), (5, 0, 5 * FARE), (5, -1, 0)],
)
def test_in_the_long_run_each_group_spends_the_balance_and_lends_one_ride(
    groups: int, balance_minor: int, loss_minor: int
) -> None:
    assert per_card(POLICY, groups, balance_minor) == loss_minor
    assert per_card(POLICY, groups, balance_minor, None) == loss_minor


def test_a_group_has_time_for_one_ride_in_each_passback_window() -> None:
    assert per_card(POLICY, 5, 1000, 0) == 5 * FARE - 1000
    assert per_card(POLICY, 5, 1000, 119_999) == 10 * FARE - 1000
    without = replace(POLICY, passback_window_s=0)
    assert per_card(without, 5, 1000, 0) == per_card(without, 5, 1000)


def test_without_a_lent_ride_one_group_loses_nothing() -> None:
    assert per_card(STRICT, 1, 1000) == 0
    assert per_card(STRICT, 2, 1000) == 1000


def test_each_group_judges_by_the_rules_it_has() -> None:
    groups = [group(STRICT), group(POLICY), group(replace(POLICY, flat_fare_minor=900))]
    assert exposure(groups, [Standing(0, 0)]).fleet_minor == FARE + 900


def test_a_group_that_hears_of_everything_believes_the_balance() -> None:
    told = group()._replace(in_touch=True)
    assert exposure([told], [Standing(0, 2000)]).fleet_minor == FARE
    assert exposure([told, group()], [Standing(0, 2000)]).fleet_minor == FARE + 2000 + FARE


def test_joined_rules_are_of_each_the_more_generous() -> None:
    dear = replace(STRICT, flat_fare_minor=900, passback_window_s=30)
    joined = Rules.of(OPENING).joined(Rules.of(dear))
    assert joined == Rules.of(dear).joined(Rules.of(OPENING)) == Rules(900, True, 500, 30_000)


def test_a_balance_that_a_group_believes_and_is_spent_can_be_spent_again() -> None:
    assert exposure([group()], [Standing(0, 900)]).fleet_minor == 900 + FARE


def test_the_fleet_is_the_sum_over_its_cards_and_the_dearest_route_counts() -> None:
    dear = replace(POLICY, route_fares={"Airport": 900})
    found = exposure([group(dear)] * 2, [Standing(1000, 1000, cards=3), Standing(0, 0)])
    assert (found.per_card_minor, found.fleet_minor, found.groups) == (2800, 3 * 2800 + 1800, 2)


def test_a_card_nobody_has_met_gets_its_opening_balance_from_each_group_and_keeps_one() -> None:
    """Invariant 11."""
    assert exposure([group(OPENING)] * 3, []).per_new_card_minor == 2 * 500 + 3 * FARE
    for policy in (
        POLICY,
        replace(OPENING, opening_balance_minor=FARE - 1),  # it does not pay the fare: no ride is lent
    ):
        assert exposure([group(policy)] * 3, []).per_new_card_minor == 0


def test_a_card_that_a_group_has_not_heard_of_gets_its_opening_balance_there() -> None:
    assert exposure([group(OPENING)], [Standing(0, 0)]).fleet_minor == 500 + FARE
    assert exposure([group(POLICY)], [Standing(0, 0)]).fleet_minor == FARE


def ride(policy: FleetSettings, believed_minor: int, times_ms: list[int]) -> int:
    """What a group lets one card ride for that is presented at these times."""
    card = CardView(CardId(b"card"), True, believed_minor, False, None)
    for at_ms in times_ms:
        verdict = decide(card, policy, "", at_ms)
        if isinstance(verdict, Accepted):
            card = card._replace(balance_minor=verdict.balance_after_minor, last_fare_at_ms=at_ms)
    return believed_minor - card.balance_minor


@given(
    st.integers(-500, 2000),
    st.integers(0, 1000),
    st.booleans(),
    st.sampled_from([0, 1, 60]),
    st.lists(st.lists(st.integers(0, 200_000), max_size=12), max_size=5),
)
def test_no_way_of_riding_owes_more(
    balance_minor: int, more_minor: int, lends: bool, window_s: int, groups: list[list[int]]
) -> None:
    """However often a card is presented to however many groups, whatever each believes: terminals decide."""
    policy = replace(POLICY, negative_ride=lends, passback_window_s=window_s)
    believed_minor = balance_minor + more_minor
    spent_minor = sum(ride(policy, believed_minor, sorted(times)) for times in groups)
    owed_minor = max(0, spent_minor - balance_minor) - max(0, -balance_minor)
    bound = exposure(
        [group(policy, max(times, default=0) - min(times, default=0)) for times in groups],
        [Standing(balance_minor, believed_minor)],
    )
    assert owed_minor <= bound.fleet_minor == bound.per_card_minor
