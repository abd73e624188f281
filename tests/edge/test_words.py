"""What the passenger reads: why, and what would help."""

import pytest

from edge.decide import Reason, Refused
from edge.words import words_for
from hardware.feedback import Signal
from tests.edge.test_decide import FLEET


@pytest.mark.parametrize(
    ("reason", "balance_minor", "text"),
    [
        (Reason.HOTLISTED, 500, "Card blocked"),
        (Reason.HOTLISTED, -400, "Card blocked"),
        (Reason.OVERDRAWN, -400, "Card overdrawn: it owes 4.00 EUR"),
        (Reason.OVERDRAWN, 0, "Card overdrawn"),
    ],
)
def test_who_rode_too_far_into_the_negative_reads_what_to_pay(
    reason: Reason, balance_minor: int, text: str
) -> None:
    """Issue: overdrawn cards "come off when paid": the passenger is the one to know. Where somebody has
    blocked the card, paying is no help."""
    assert words_for(Refused(reason, 250, balance_minor), FLEET) == (Signal.REFUSED, text)
