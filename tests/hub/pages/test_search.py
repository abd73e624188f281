"""Finding cards by the first digits of their UID, over a list that only knows "after this id"."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.pages.cards import just_before

CARDS = st.sampled_from([4, 7, 10, 16]).flatmap(lambda size: st.binary(min_size=size, max_size=size))
PREFIXES = st.text("0123456789ABCDEF", min_size=1, max_size=32)


@given(PREFIXES, CARDS)
def test_exactly_the_ids_with_the_prefix_follow(prefix: str, card: bytes) -> None:
    """No card with the prefix sorts before the place where the list is entered, and no lower one after."""
    uid = card.hex().upper()
    start = just_before(prefix)
    after = start == "" or card > bytes.fromhex(start)
    if uid.startswith(prefix):
        assert after
    elif uid < prefix:
        assert not after or start == ""


@pytest.mark.parametrize(
    ("prefix", "start"),
    [
        ("0", ""),
        ("00", ""),
        ("1", "0" + "F" * 31),
        ("04A", "049" + "F" * 29),
        ("0100", "00FF" + "F" * 28),
        ("F" * 32, "F" * 31 + "E"),
    ],
)
def test_where_the_list_is_entered(prefix: str, start: str) -> None:
    assert just_before(prefix) == start
