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


def test_a_network_of_one_host_counts_as_one_address() -> None:
    """Else a single machine has 2^64 addresses to guess passwords from."""
    limit = RateLimit(2, 10.0, Clock())
    limit.count("2001:db8:1:2::1")
    limit.count("2001:db8:1:2:ffff:ffff:ffff:ffff%eth0")
    assert limit.wait_s("2001:db8:1:2::77") > 0
    assert limit.wait_s("2001:db8:1:3::1") == 0
    limit.forget("2001:db8:1:2:3::")
    assert limit.wait_s("2001:db8:1:2::1") == 0


def test_an_ipv4_address_is_the_same_on_a_socket_for_both() -> None:
    limit = RateLimit(1, 10.0, Clock())
    limit.count("::ffff:192.0.2.1")
    assert limit.wait_s("192.0.2.1") > 0
    assert limit.wait_s("::ffff:192.0.2.2") == 0


def test_addresses_are_forgotten_oldest_first() -> None:
    limit = RateLimit(1, 10.0, Clock())
    for number in range(MAX_ADDRESSES + 1):
        limit.count(str(number))
    assert limit.wait_s("0") == 0
    assert limit.wait_s("1") > 0
