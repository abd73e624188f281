"""The checker behind `books balance: yes`: it says no when a tap is lost, doubled or in dispute."""

from collections import Counter
from dataclasses import replace

import pytest

from hub.demo.compare import Fact, LedgerView, Witness, balances_of, differences

ADA, EMIL = "04aa", "04ee"
BUS, OTHER = "b1" * 16, "b2" * 16

FACTS = (
    Fact("00" * 16, 1, ADA, "topup", 2000),
    Fact(BUS, 1, ADA, "fare", -250),
    Fact(BUS, 2, EMIL, "opening", 500),
    Fact(BUS, 3, EMIL, "fare", -250),
    Fact(OTHER, 1, EMIL, "opening", 500),
    Fact(OTHER, 2, EMIL, "fare", -180),
)
WITNESSES = (
    Witness("Bus 1", BUS, Counter({(ADA, 250): 1, (EMIL, 250): 1}), Counter()),
    Witness("Bus 2", OTHER, Counter({(EMIL, 180): 1}), Counter()),
)
AGREED = LedgerView("hub", "d1", 0, True, {ADA: 1750, EMIL: 70})
LEDGERS = (AGREED, replace(AGREED, name="Bus 1"), replace(AGREED, name="Bus 2"))


def test_a_round_in_which_all_agree_has_no_differences() -> None:
    assert differences(WITNESSES, FACTS, LEDGERS) == []


def test_an_opening_balance_counts_once_although_two_buses_gave_it() -> None:
    """Invariant 11, worked out by the checker itself."""
    assert balances_of(FACTS)[EMIL] == 500 - 250 - 180


def test_a_lost_acknowledged_tap_is_named() -> None:
    told = Witness("Bus 1", BUS, Counter({(ADA, 250): 2, (EMIL, 250): 1}), Counter())
    (sentence,) = differences([told], FACTS[:4], [])
    assert sentence == f"Bus 1 accepted 2 taps of card {ADA} at 250, and the hub has 1: 1 lost."


def test_a_tap_that_nobody_made_is_named() -> None:
    told = Witness("Bus 1", BUS, Counter({(ADA, 250): 1}), Counter())
    (sentence,) = differences([told], FACTS[:4], [])
    assert "1 taps of card 04ee by Bus 1 that nobody made" in sentence


def test_a_tap_cut_short_by_a_kill_may_be_in_the_ledger_or_not() -> None:
    told = Witness("Bus 1", BUS, Counter({(ADA, 250): 1}), Counter({EMIL: 1}))
    assert differences([told], FACTS[:4], []) == []
    assert differences([told], FACTS[:2], []) == []


def test_a_tap_written_twice_is_named_even_at_another_number() -> None:
    doubled = (*FACTS, Fact(BUS, 4, ADA, "fare", -250))
    assert any("nobody made" in sentence for sentence in differences(WITNESSES, doubled, []))


def test_a_fact_listed_twice_is_named() -> None:
    assert any("2 times" in sentence for sentence in differences(WITNESSES, (*FACTS, FACTS[1]), []))


def test_a_gap_in_a_replica_is_named() -> None:
    without = tuple(fact for fact in FACTS if fact.seq != 2 or fact.replica != BUS)
    assert any("lacks 1 deltas of replica b1b1b1b1" in s for s in differences(WITNESSES, without, []))


def test_a_wrong_fare_is_a_lost_tap_and_one_nobody_made() -> None:
    wrong = tuple(replace(fact, amount_minor=-999) if fact == FACTS[1] else fact for fact in FACTS)
    said = "\n".join(differences(WITNESSES, wrong, []))
    assert "1 lost" in said
    assert "nobody made" in said


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"digest": "d2"}, "The state digests differ: hub d1, Bus 1 d2, Bus 2 d1."),
        ({"held": 3}, "Bus 1 still holds 3 deltas that the hub has not settled."),
        ({"balanced": False}, "The books of Bus 1 do not balance."),
        (
            {"balances": {ADA: 2000, EMIL: 70}},
            f"Bus 1 says 2000 for card {ADA}; the hub's deltas add up to 1750.",
        ),
        ({"balances": {ADA: 1750}}, f"Bus 1 says 0 for card {EMIL}; the hub's deltas add up to 70."),
    ],
)
def test_a_ledger_that_disagrees_is_named_with_what_it_says(change: dict[str, object], sentence: str) -> None:
    apart = (AGREED, replace(AGREED, name="Bus 1", **change), LEDGERS[2])  # type: ignore[arg-type]  # parametrised
    assert differences(WITNESSES, FACTS, apart) == [sentence]


def test_all_ledgers_wrong_in_the_same_way_is_noticed() -> None:
    wrong = [replace(ledger, balances={ADA: 1750, EMIL: 570}) for ledger in LEDGERS]
    assert len(differences(WITNESSES, FACTS, wrong)) == 3
