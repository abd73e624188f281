"""What the passenger reads: why, and what would help."""

import pytest

from edge.decide import Reason, Refused
from edge.words import words_for
from hardware.feedback import Signal
from tests.edge.test_decide import FLEET


@pytest.mark.parametrize(
    ("balance_minor", "text"), [(500, "Card blocked"), (-400, "Card blocked: it owes 4.00 EUR")]
)
def test_who_rode_too_far_into_the_negative_reads_what_to_pay(balance_minor: int, text: str) -> None:
    """Issue: overdrawn cards "come off when paid": the passenger is the one to know."""
    assert words_for(Refused(Reason.HOTLISTED, 250, balance_minor), FLEET) == (Signal.REFUSED, text)
