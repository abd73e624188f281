"""Waiting after failures: bounded, growing, jittered, with randomness as a parameter (issue: uplink)."""

from hypothesis import given
from hypothesis import strategies as st

from edge.backoff import Backoff


def test_it_doubles_up_to_the_bound_and_starts_again_after_a_success() -> None:
    backoff = Backoff(1, 10, random=lambda: 1.0)
    assert [backoff.next_s() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    backoff.reset()
    assert backoff.next_s() == 1


def test_two_buses_do_not_come_back_in_step() -> None:
    early, late = Backoff(1, 60, random=lambda: 0.0), Backoff(1, 60, random=lambda: 0.9)
    assert [early.next_s(), early.next_s()] != [late.next_s(), late.next_s()]


@given(
    st.floats(0.05, 3_600),
    st.floats(1, 100),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=80),
)
def test_every_wait_lies_between_half_the_first_and_the_bound(
    least: float, ratio: float, randoms: list[float]
) -> None:
    draws = iter(randoms)
    backoff = Backoff(least, least * ratio, random=lambda: next(draws))
    for _ in randoms:
        assert least / 2 <= backoff.next_s() <= least * ratio
