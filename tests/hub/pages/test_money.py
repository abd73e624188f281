"""Amounts on pages: exact, and every wrong one is answered by a sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.facts import MAX_AMOUNT_MINOR
from hub.pages import money
from hub.pages.forms import FieldError

EXPONENTS = st.integers(0, 4)
AMOUNTS = st.integers(0, MAX_AMOUNT_MINOR)


@pytest.mark.parametrize(
    ("amount_minor", "exponent", "shown"),
    [
        (0, 2, "0.00"),
        (5, 2, "0.05"),
        (-250, 2, "−2.50"),
        (123456789, 2, "1\u202f234\u202f567.89"),
        (-7, 0, "−7"),
        (1500, 3, "1.500"),
    ],
)
def test_amount_as_shown(amount_minor: int, exponent: int, shown: str) -> None:
    assert money.plain(amount_minor, exponent) == shown


def test_changes_carry_their_sign() -> None:
    assert [money.plain(minor, 2, signed=True) for minor in (2000, 0, -250)] == ["+20.00", "0.00", "−2.50"]


@given(AMOUNTS, EXPONENTS)
def test_what_a_field_shows_is_read_back_exactly(amount_minor: int, exponent: int) -> None:
    """Invariant 3: no float touches money, in either direction, at any size and exponent."""
    text = money.typed(amount_minor, exponent)
    assert money.parse(text, exponent, 0, MAX_AMOUNT_MINOR) == amount_minor
    assert money.parse(text.replace(".", ","), exponent, 0, MAX_AMOUNT_MINOR) == amount_minor


@pytest.mark.parametrize(
    "text", ["", "abc", "-5", "1e3", "1.2.3", "1 000", "nan", "٣", "0x10", "+5", "5.", ".5"]
)
def test_no_amount_is_answered_by_an_example(text: str) -> None:
    with pytest.raises(FieldError, match=r"for example 10\.00"):
        money.parse(text, 2, 1, 10_000)


@given(st.text(max_size=30), EXPONENTS)
def test_any_text_is_an_amount_or_a_sentence(text: str, exponent: int) -> None:
    """Invariant 8: whatever is typed, the answer is a number within the bounds or a typed refusal."""
    try:
        assert 1 <= money.parse(text, exponent, 1, 500) <= 500
    except FieldError as error:
        assert str(error).endswith(".")


def test_thousands_separator_is_not_taken_for_a_decimal_point() -> None:
    """ "1,000" could mean a thousand or one: with two decimals it is neither, and is refused."""
    with pytest.raises(FieldError, match="at most 2 decimals"):
        money.parse("1,000", 2, 1, 10_000_000)


def test_amount_out_of_bounds_names_the_bounds() -> None:
    with pytest.raises(FieldError, match=r"from 0\.01 to 100\.00"):
        money.parse("100.01", 2, 1, 10_000)
