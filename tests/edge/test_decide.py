"""The fare decision: each rule of the issue by name, and the laws behind them as properties."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from crdt.facts import NEW_CARD, CardId, CardState, CardView, Draft, Kind
from crdt.fleet import FleetSettings
from edge.decide import Accepted, Note, Reason, Refused, Verdict, decide

NOW = 1_780_000_000_000
CARD = CardId(bytes.fromhex("04A1B2C3D4E5F6"))
FLEET = FleetSettings(route_fares={"night": 400, "free": 0})


def view(
    balance_minor: int = 2_000,
    *,
    known: bool = True,
    hotlisted: bool = False,
    last_fare_at_ms: int | None = None,
) -> CardView:
    return CardView(CARD, known, balance_minor, hotlisted, last_fare_at_ms)


def accepted(verdict: Verdict) -> Accepted:
    assert isinstance(verdict, Accepted)
    return verdict


def refused(verdict: Verdict) -> Reason:
    assert isinstance(verdict, Refused)
    return verdict.reason


def test_the_flat_fare_is_taken() -> None:
    verdict = accepted(decide(view(2_000), FLEET, "12", NOW))
    assert verdict == Accepted((Draft(Kind.FARE, -250),), 250, 1_750)


def test_a_route_overrides_the_flat_fare() -> None:
    assert accepted(decide(view(), FLEET, "night", NOW)).fare_minor == 400


def test_a_free_route_writes_the_ride_and_asks_for_no_money() -> None:
    verdict = accepted(decide(view(-100), FLEET, "free", NOW))
    assert verdict.drafts == (Draft(Kind.FARE, 0),)
    assert Note.NEGATIVE_RIDE not in verdict.notes


def test_a_low_balance_is_told() -> None:
    assert accepted(decide(view(749), FLEET, "12", NOW)).notes == {Note.LOW_BALANCE}
    assert accepted(decide(view(750), FLEET, "12", NOW)).notes == frozenset()


def test_one_ride_into_the_negative_and_no_second() -> None:
    first = accepted(decide(view(100), FLEET, "12", NOW))
    assert (first.balance_after_minor, first.notes) == (-150, frozenset({Note.NEGATIVE_RIDE}))
    assert refused(decide(view(-150), FLEET, "12", NOW)) is Reason.BALANCE_TOO_LOW


def test_no_ride_into_the_negative_where_the_policy_forbids_it() -> None:
    strict = dataclasses.replace(FLEET, negative_ride=False)
    assert refused(decide(view(249), strict, "12", NOW)) is Reason.BALANCE_TOO_LOW
    assert accepted(decide(view(250), strict, "12", NOW)).balance_after_minor == 0


def test_an_unknown_card_is_registered_with_the_opening_balance_and_pays_in_one_go() -> None:
    generous = dataclasses.replace(FLEET, opening_balance_minor=1_000)
    verdict = accepted(decide(view(0, known=False), generous, "12", NOW))
    assert verdict.drafts == (Draft(Kind.OPENING, 1_000), Draft(Kind.FARE, -250))
    assert (verdict.balance_after_minor, verdict.notes) == (750, frozenset({Note.REGISTERED}))


def test_an_unknown_card_is_refused_where_the_policy_says_so() -> None:
    closed = dataclasses.replace(FLEET, unknown_card="refuse")
    assert refused(decide(view(0, known=False), closed, "12", NOW)) is Reason.UNKNOWN_CARD


def test_an_unknown_card_that_cannot_pay_is_not_registered() -> None:
    """Nor is it lent a ride: else any contactless card out of a drawer would be a free one."""
    empty = dataclasses.replace(FLEET, opening_balance_minor=0)
    assert empty.negative_ride
    assert refused(decide(view(0, known=False), empty, "12", NOW)) is Reason.BALANCE_TOO_LOW


def test_a_hotlisted_card_is_refused_whatever_it_holds() -> None:
    assert refused(decide(view(9_999, hotlisted=True), FLEET, "12", NOW)) is Reason.HOTLISTED


def test_passback_within_the_window_and_not_after() -> None:
    assert refused(decide(view(last_fare_at_ms=NOW - 59_999), FLEET, "12", NOW)) is Reason.PASSBACK
    accepted(decide(view(last_fare_at_ms=NOW - 60_000), FLEET, "12", NOW))


def test_passback_counts_a_fare_of_a_clock_slightly_ahead_but_not_of_one_far_ahead() -> None:
    """Invariant 9: another terminal's wrong clock must not lock a passenger out for years."""
    assert refused(decide(view(last_fare_at_ms=NOW + 10_000), FLEET, "12", NOW)) is Reason.PASSBACK
    accepted(decide(view(last_fare_at_ms=NOW + 10**9), FLEET, "12", NOW))


def test_a_window_of_zero_turns_passback_off() -> None:
    lax = dataclasses.replace(FLEET, passback_window_s=0)
    accepted(decide(view(last_fare_at_ms=NOW), lax, "12", NOW))


MONEY = st.integers(-100_000, 100_000)
PRICES = st.integers(0, 5_000)
FLEETS = st.builds(
    FleetSettings,
    flat_fare_minor=PRICES,
    route_fares=st.dictionaries(st.sampled_from(["a", "b"]), PRICES),
    unknown_card=st.sampled_from(["register", "refuse"]),
    opening_balance_minor=PRICES,
    low_balance_minor=PRICES,
    negative_ride=st.booleans(),
    passback_window_s=st.integers(0, 600),
)
KNOWN = st.builds(
    CardView,
    st.just(CARD),
    st.just(True),
    MONEY,
    st.booleans(),
    st.one_of(st.none(), st.integers(NOW - 10**6, NOW + 10**6)),
)
UNKNOWN = st.builds(CardView, st.just(CARD), st.just(False), st.just(0), st.booleans(), st.none())
VIEWS = st.one_of(KNOWN, UNKNOWN)


@given(VIEWS, FLEETS, st.sampled_from(["a", "b", ""]))
def test_law_the_balance_after_is_what_the_ledger_will_say(
    card: CardView, fleet: FleetSettings, route: str
) -> None:
    """Invariant 3: drafts, fare and announced balance are one arithmetic, the ledger's."""
    verdict = decide(card, fleet, route, NOW)
    if isinstance(verdict, Refused):
        return
    state = CardState(card.balance_minor, 0) if card.known else NEW_CARD
    for draft in verdict.drafts:
        state = state.plus(draft.kind, draft.amount_minor)
    assert state.balance_minor == verdict.balance_after_minor
    assert sum(-d.amount_minor for d in verdict.drafts if d.kind is Kind.FARE) == verdict.fare_minor


@given(VIEWS, FLEETS)
def test_law_a_ride_is_one_fare_and_an_opening_only_for_a_new_card(
    card: CardView, fleet: FleetSettings
) -> None:
    """Invariant 11: a known card is never given an opening balance."""
    verdict = decide(card, fleet, "", NOW)
    if isinstance(verdict, Accepted):
        kinds = [draft.kind for draft in verdict.drafts]
        assert kinds == ([Kind.FARE] if card.known else [Kind.OPENING, Kind.FARE])
        assert (Note.REGISTERED in verdict.notes) is (not card.known)


@given(VIEWS, FLEETS)
def test_law_nobody_goes_deeper_into_debt_than_one_ride(card: CardView, fleet: FleetSettings) -> None:
    """The exposure per card: one fare, and only where the policy lends it."""
    verdict = decide(card, fleet, "", NOW)
    if isinstance(verdict, Accepted) and verdict.fare_minor > 0:
        lent = verdict.fare_minor if fleet.negative_ride and card.known else 0
        assert verdict.balance_after_minor >= -lent


@given(VIEWS, FLEETS)
def test_law_a_hotlisted_card_never_rides_and_more_money_never_hurts(
    card: CardView, fleet: FleetSettings
) -> None:
    verdict = decide(card, fleet, "", NOW)
    if card.hotlisted:
        assert isinstance(verdict, Refused)
    elif isinstance(verdict, Accepted) and card.known:
        richer = card._replace(balance_minor=card.balance_minor + 1)
        assert isinstance(decide(richer, fleet, "", NOW), Accepted)


@given(KNOWN, FLEETS)
def test_law_the_same_card_again_at_once_is_passback(card: CardView, fleet: FleetSettings) -> None:
    """Presenting twice never pays twice within the window."""
    verdict = decide(card, fleet, "", NOW)
    if isinstance(verdict, Accepted) and fleet.passback_window_s > 0:
        again = card._replace(balance_minor=verdict.balance_after_minor, last_fare_at_ms=NOW)
        assert refused(decide(again, fleet, "", NOW + 1)) is Reason.PASSBACK


@given(VIEWS, FLEETS, st.integers(-1_000, 100_000))
def test_law_an_opening_is_within_what_the_terminal_may_give(
    card: CardView, fleet: FleetSettings, credit_left: int
) -> None:
    """Invariant 10; and it changes nothing for a card that is known."""
    verdict = decide(card, fleet, "", NOW, credit_left)
    if isinstance(verdict, Accepted):
        given_minor = sum(draft.amount_minor for draft in verdict.drafts if draft.amount_minor > 0)
        assert given_minor <= max(0, credit_left)
    if card.known:
        assert verdict == decide(card, fleet, "", NOW)
