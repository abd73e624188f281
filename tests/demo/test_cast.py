"""Who plays in the demo."""

from hardware.cards import PresentedCard, identify
from hub.demo.cast import CARDS, new_uid

NTAG_ATQA = bytes.fromhex("0044")


def taken(uid: str) -> bool:
    """Whether a terminal takes the card's number for one."""
    number = bytes.fromhex(uid)
    return identify(PresentedCard(number, NTAG_ATQA, 0)) == number


def test_every_card_is_one_that_a_terminal_takes() -> None:
    """Issue: "opens the demo page, taps, and sees the number change", also with a card of its own."""
    assert all(taken(card.uid) for card in CARDS)
    for byte in range(256):
        assert taken(new_uid(bytes((byte,)) * 6)), byte


def test_cards_differ_where_what_was_drawn_does() -> None:
    drawn = [bytes(n == place for n in range(6)) for place in range(6)]
    assert len({new_uid(one) for one in drawn}) == len(drawn)
