"""Names take turns at being looked at, whoever makes up others (invariant 8)."""

from hypothesis import given
from hypothesis import strategies as st

from edge.turns import Turns

names = st.sets(st.sampled_from("abcdefghijklmnop"), max_size=8).map(list)


@given(st.integers(1, 5), names, st.lists(st.tuples(names, st.integers(0, 8)), min_size=18, max_size=18))
def test_a_name_that_stays_has_its_turn_whoever_comes_and_goes(
    most: int, first: list[str], later: list[tuple[list[str], int]]
) -> None:
    """Who was there before it comes before it, and nobody else."""
    turns: Turns[str] = Turns()
    turns.next(first, most)
    for looks, (others, at) in enumerate(later, 1):
        if "hub" in turns.next([*others[:at], "hub", *others[at:]], most):
            assert looks <= 1 + len({*first, *later[0][0]}) // most
            return
    raise AssertionError("it is never looked at")


@given(st.integers(1, 5), st.lists(names, max_size=9))
def test_as_many_as_may_be_are_looked_at_and_nobody_else(most: int, looks: list[list[str]]) -> None:
    turns: Turns[str] = Turns()
    for there in looks:
        chosen = turns.next(there, most)
        assert len(chosen) == min(most, len(there)) == len(set(chosen))
        assert set(chosen) <= set(there)
