"""What a terminal keeps in memory for its view: sums as the facts add up, and the last fares, bounded."""

from hypothesis import given
from hypothesis import strategies as st

from crdt.facts import NEW_CARD, CardId, CardState, Kind
from crdt.store.held import RECENT_FARES, Held, RecentFares

CARDS = [CardId(bytes([number]) * 7) for number in range(3)]
FACTS = st.lists(
    st.tuples(
        st.sampled_from(CARDS),
        st.one_of(
            st.tuples(st.just(Kind.FARE), st.integers(-500, 0)),
            st.tuples(st.just(Kind.OPENING), st.integers(0, 500)),
            st.tuples(st.just(Kind.REFUND), st.integers(1, 500)),
        ),
    )
)


@given(FACTS)
def test_invariant_3_what_is_held_is_the_sum_of_its_facts(
    facts: list[tuple[CardId, tuple[Kind, int]]],
) -> None:
    """The sums kept for the tap are what `CardState` makes of the same facts; the largest opening counts."""
    held = Held()
    states: dict[CardId, CardState] = {}
    for card, (kind, amount_minor) in facts:
        held.add(card, int(kind), amount_minor)
        states[card] = states.get(card, NEW_CARD).plus(kind, amount_minor)
    assert {card: held.state(card) for card in held.sums} == states
    assert (held.count, held.sum_minor) == (len(facts), sum(amount for _, (_, amount) in facts))
    assert held.openings_minor == sum(amount for _, (kind, amount) in facts if kind is Kind.OPENING)


def test_the_last_fares_are_remembered_and_no_more_than_twice_as_many() -> None:
    """For passback; a card that paid again counts by its last fare."""
    fares = RecentFares()
    cards = [CardId(number.to_bytes(7, "big")) for number in range(4 * RECENT_FARES)]
    regular = CardId(b"regular")
    for at_ms, card in enumerate(cards):
        fares.add(regular, at_ms)
        fares.add(card, at_ms)
        assert len(fares.at_ms) <= 2 * RECENT_FARES
    assert fares.at_ms[regular] == len(cards) - 1
    assert all(card in fares.at_ms for card in cards[1 - RECENT_FARES :])
