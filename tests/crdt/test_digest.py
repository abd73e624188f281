"""The state digest tells any two different states apart, and is fed in one order only (invariant 2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.digest import StateDigest, state_digest
from crdt.errors import MisuseError
from crdt.facts import MAX_AMOUNT_MINOR, CardId, CardState, ReplicaId
from crdt.frontier import Head
from tests.crdt.world import any_card

heads = st.dictionaries(
    st.binary(min_size=16, max_size=16).map(ReplicaId),
    st.builds(Head, st.integers(1, 3), st.binary(min_size=32, max_size=32)),
    max_size=3,
)
cards = st.dictionaries(
    any_card, st.builds(CardState, st.integers(-3, 3), st.integers(0, MAX_AMOUNT_MINOR)), max_size=3
)
Heads = dict[ReplicaId, Head]
Cards = dict[CardId, CardState]


def digest_of(heads: Heads, cards: Cards) -> bytes:
    return state_digest(sorted(heads.items()), sorted(cards.items()))


@given(heads, cards, heads, cards)
def test_digests_are_equal_exactly_for_equal_states(h1: Heads, c1: Cards, h2: Heads, c2: Cards) -> None:
    def told(cards: Cards) -> Cards:
        return {card: state for card, state in cards.items() if state != CardState()}

    same = h1 == h2 and told(c1) == told(c2)
    assert (digest_of(h1, c1) == digest_of(h2, c2)) is same
    assert digest_of(h1, c1) == digest_of(h1, told(c1))


def test_what_is_out_of_order_is_a_mistake_of_ours() -> None:
    """A store that forgot its ORDER BY must not get a digest."""
    card, replica = CardId(bytes(4)), ReplicaId(bytes(16))
    digest = StateDigest()
    digest.card(card, CardState(1))
    with pytest.raises(MisuseError):
        digest.card(card, CardState(1))
    with pytest.raises(MisuseError):
        digest.head(replica, Head(1, bytes(32)))
