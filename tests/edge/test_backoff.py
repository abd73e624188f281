"""Waiting after failures: bounded, growing, jittered, with randomness as a parameter (issue: uplink)."""

from hypothesis import given
from hypothesis import strategies as st

from edge.backoff import Backoff
from edge.https import KEPT_S
from edge.settings import SETTINGS
from hub.settings import HubSettings
from hub.turns import LONGEST_S


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


@given(
    st.floats(0.05, 3_600),
    st.floats(1, 100),
    st.integers(0, 10**9),
    st.floats(0, 1, exclude_max=True),
)
def test_a_wait_that_the_hub_asks_for_is_kept_spread_and_bounded(
    least: float, ratio: float, asked_s: int, draw: float
) -> None:
    """Neither earlier than the hub says nor for ever, whatever it says; and not all in the same second."""
    most = least * ratio
    waited_s = Backoff(least, most, random=lambda: draw).asked_s(asked_s)
    assert min(asked_s, most) <= waited_s <= 1 + 1.1 * most
    assert Backoff(1, 60, random=lambda: 0.0).asked_s(30) == 30
    assert Backoff(1, 60, random=lambda: 0.5).asked_s(30) == 32


def test_a_wait_that_the_hub_asks_for_leaves_the_own_ones_as_they_were() -> None:
    backoff = Backoff(1, 60, random=lambda: 1.0)
    backoff.asked_s(60)
    assert backoff.next_s() == 1


def test_a_connection_outlasts_heartbeats_and_the_waits_that_a_hub_asks_for() -> None:
    """A handshake costs a hub as much as an exchange: neither side closes what the other is about to use."""
    (heartbeat_s,) = [setting.default for setting in SETTINGS if setting.name == "uplink.heartbeat_s"]
    asked = Backoff(1, 60, random=lambda: 1.0).asked_s(LONGEST_S)
    assert isinstance(heartbeat_s, float)
    assert heartbeat_s < asked < KEPT_S < HubSettings().idle_timeout_s
