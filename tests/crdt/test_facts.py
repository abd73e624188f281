"""Facts: money is integers only (invariant 3), each kind has its sign, and the opening rule adds up (11)."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.errors import MisuseError
from crdt.facts import (
    MAX_AMOUNT_MINOR,
    MAX_SEQ,
    NEW_CARD,
    Books,
    CardId,
    CardState,
    Context,
    Delta,
    Draft,
    Kind,
    ReplicaId,
    amount_fits,
)
from tests.crdt.world import money

DELTA = Delta(ReplicaId(bytes(16)), 1, CardId(bytes(7)), Kind.FARE, -250, 1000)


@pytest.mark.parametrize("value", [1.0, 2.5, True, "1", None])
@pytest.mark.parametrize("field", ["amount_minor", "seq", "at_ms"])
def test_invariant_3_no_float_bool_or_text_passes_for_a_number(field: str, value: Any) -> None:
    with pytest.raises(MisuseError):
        replace(DELTA, kind=Kind.ADJUSTMENT, **{field: value})
    with pytest.raises(MisuseError):
        Draft(Kind.TOPUP, value)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Kind.FARE, [0, -1, -MAX_AMOUNT_MINOR], [1, -MAX_AMOUNT_MINOR - 1]),
        (Kind.TOPUP, [1, MAX_AMOUNT_MINOR], [0, -1, MAX_AMOUNT_MINOR + 1]),
        (Kind.OPENING, [0, 1], [-1, MAX_AMOUNT_MINOR + 1]),
        (Kind.REFUND, [1], [0, -1]),
        (Kind.ADJUSTMENT, [1, -1], [0]),
        (Kind.REVERSAL, [0, 1, MAX_AMOUNT_MINOR], [-1, MAX_AMOUNT_MINOR + 1]),
        (Kind.RETRACTION, [1, -1], [0]),
        (Kind.DUPLICATE, [0, 1, MAX_AMOUNT_MINOR], [-1, MAX_AMOUNT_MINOR + 1]),
        (Kind.REINSTATED, [0, -1, -MAX_AMOUNT_MINOR], [1, -MAX_AMOUNT_MINOR - 1]),
    ],
)
def test_each_kind_has_its_sign(kind: Kind, good: list[int], bad: list[int]) -> None:
    for amount in good:
        assert amount_fits(kind, amount)
        assert Draft(kind, amount).amount_minor == amount
    for amount in bad:
        assert not amount_fits(kind, amount)
        with pytest.raises(MisuseError):
            Draft(kind, amount)


@pytest.mark.parametrize(
    "change",
    [
        {"replica": b"short"},
        {"seq": 0},
        {"seq": MAX_SEQ + 1},
        {"card": bytes(3)},
        {"card": bytes(17)},
        {"card": bytearray(7)},
        {"kind": 1},
        {"at_ms": -1},
        {"at_ms": 2**48},
    ],
)
def test_a_delta_out_of_range_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(MisuseError):
        replace(DELTA, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"route": "x" * 65},
        {"trip": "ü" * 33},
        {"stop": "a\nb"},
        {"stop": "\x9f"},
        {"route": "\ud800"},
        {"clock_epoch": -1},
        {"clock_epoch": 2**32},
        {"clock_error_ms": 2**48},
        {"clock_error_ms": 1.5},
    ],
)
def test_a_context_out_of_range_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(MisuseError):
        Context(**change)


@given(st.lists(money(), max_size=20), st.integers(0, 20))
def test_invariant_11_card_states_of_disjoint_parts_combine_to_the_state_of_the_whole(
    facts: list[tuple[Kind, int]], cut: int
) -> None:
    """The sum over all non-openings plus the largest opening, however the facts are split."""

    def state(part: list[tuple[Kind, int]]) -> CardState:
        total = NEW_CARD
        for kind, amount in part:
            total = total.plus(kind, amount)
        return total

    whole = state(facts)
    assert state(facts[:cut]).combined(state(facts[cut:])) == whole
    assert state(facts[cut:]).combined(state(facts[:cut])) == whole
    openings = [amount for kind, amount in facts if kind is Kind.OPENING]
    others = [amount for kind, amount in facts if kind is not Kind.OPENING]
    assert whole.balance_minor == sum(others) + max(openings, default=0)


def test_books_that_do_not_balance_say_so() -> None:
    assert Books(10, 7, 3).balance
    assert not Books(10, 7, 2).balance
