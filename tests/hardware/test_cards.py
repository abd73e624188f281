"""Which card numbers may name an account, and what the reader's words about a card are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.cards import PresentedCard, Unusable, identify, parse_target
from hardware.errors import CardGarbled


def _card(uid: str, sak: int = 0x00) -> PresentedCard:
    return PresentedCard(bytes.fromhex(uid), b"\x00\x04", sak)


@pytest.mark.parametrize(
    "uid", ["DEADBEEF", "0FADBEEF", "04A1B2C3D4E5F6", "08A1B2C3D4E5F6", "0102030405060708090A"]
)
def test_fixed_numbers_are_identities(uid: str) -> None:
    assert identify(_card(uid)) == bytes.fromhex(uid)


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (_card("08A1B2C3"), "makes up a new number"),
        (_card("88A1B2C3"), "cascade tag"),
        (_card("04A1B288D4E5F6"), "cascade tag"),
        (_card("04A1B2C3D4E588F6F6F6"), "cascade tag"),
        (_card("8804A1B2C3D4E5F6"), "this card sent 8"),
        (_card(""), "this card sent 0"),
        (_card("00"), "this card sent 1"),
        (_card("04" * 12), "this card sent 12"),
        (_card("04A1B2C3", sak=0x04), "whole number"),
        (_card("00000000"), "blank"),
        (_card("FFFFFFFFFFFFFF"), "blank"),
    ],
)
def test_others_are_refused_as_a_value_with_a_reason(card: PresentedCard, reason: str) -> None:
    found = identify(card)
    assert isinstance(found, Unusable)
    assert reason in found.reason


@given(
    st.builds(PresentedCard, st.binary(max_size=12), st.binary(min_size=2, max_size=2), st.integers(0, 255))
)
def test_every_card_is_judged_and_an_identity_is_a_card_id(card: PresentedCard) -> None:
    """Invariant 8; the ledger takes card numbers of 4, 7 and 10 bytes."""
    found = identify(card)
    assert isinstance(found, Unusable) or (found == card.uid and len(found) in (4, 7, 10))


def test_no_target_is_no_card() -> None:
    assert parse_target(b"\x00") is None


def test_a_target_with_an_ats() -> None:
    answer = bytes.fromhex("01 01 0344 20 07 04112233445566 067577810280")
    assert parse_target(answer) == PresentedCard(
        bytes.fromhex("04112233445566"), b"\x03\x44", 0x20, bytes.fromhex("067577810280")
    )


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "01",
        "02 01 0004 08 04 DEADBEEF",  # two targets were never asked for
        "01 01 0004 08 04 DEADBE",
        "01 01 0004 08 FF DEADBEEF",
        "01 01 0344 20 04 DEADBEEF 0675",
        "01 01 0344 20 04 DEADBEEF 00",
    ],
)
def test_nonsense_about_a_card_is_a_typed_refusal(answer: str) -> None:
    with pytest.raises(CardGarbled):
        parse_target(bytes.fromhex(answer))


@given(st.binary(max_size=300))
def test_a_hostile_card_answer_is_a_card_or_a_typed_refusal(answer: bytes) -> None:
    """Invariant 8: untrusted bytes from a card."""
    try:
        card = parse_target(answer)
    except CardGarbled:
        return
    assert card is None or isinstance(identify(card), bytes | Unusable)
