"""The rate limit that guards logins and pairing: exact, per address, bounded."""

from hub.ratelimit import MAX_ADDRESSES, RateLimit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_so_many_in_a_window_and_then_a_wait() -> None:
    clock = Clock()
    limit = RateLimit(2, 10.0, clock)
    for at in (0.0, 4.0):
        clock.now = at
        assert limit.wait_s("a") == 0
        limit.count("a")
    clock.now = 5.0
    assert limit.wait_s("a") == 5
    assert limit.wait_s("b") == 0
    clock.now = 10.0
    assert limit.wait_s("a") == 0


def test_counting_on_while_refused_does_not_grow_anything_and_moves_the_window() -> None:
    clock = Clock()
    limit = RateLimit(2, 10.0, clock)
    for at in range(9):
        clock.now = float(at)
        limit.count("a")
    assert limit.wait_s("a") == 9
    clock.now = 17.0
    assert limit.wait_s("a") == 0


def test_a_success_starts_over() -> None:
    limit = RateLimit(1, 10.0, Clock())
    limit.count("a")
    assert limit.wait_s("a") > 0
    limit.forget("a")
    assert limit.wait_s("a") == 0


def test_addresses_are_forgotten_oldest_first() -> None:
    limit = RateLimit(1, 10.0, Clock())
    for number in range(MAX_ADDRESSES + 1):
        limit.count(str(number))
    assert limit.wait_s("0") == 0
    assert limit.wait_s("1") > 0
