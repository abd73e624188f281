"""A rate limit per address: at most so many events in a sliding window, in bounded memory.

An IPv6 host may take any of the 2^64 addresses of its network (RFC 4291 §2.5.4), so a /64 counts as one.
"""

import ipaddress
import math
from collections import OrderedDict, deque
from collections.abc import Callable

MAX_ADDRESSES = 10_000  # remembered at a time; the longest silent ones are forgotten first


class RateLimit:
    """Counts events per address. `monotonic` gives seconds that never go back."""

    def __init__(self, most: int, window_s: float, monotonic: Callable[[], float]) -> None:
        self._most = most
        self._window_s = window_s
        self._monotonic = monotonic
        self._events: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """Whole seconds until the address may go on; 0 when it may now."""
        events = self._events.get(_counted_as(address))
        now = self._monotonic()
        while events and events[0] <= now - self._window_s:
            events.popleft()
        if events is None or len(events) < self._most:
            return 0
        return math.ceil(events[0] + self._window_s - now)

    def count(self, address: str) -> None:
        """One more event of the address; only the latest ones matter and are kept."""
        counted = _counted_as(address)
        events = self._events.setdefault(counted, deque(maxlen=self._most))
        events.append(self._monotonic())
        self._events.move_to_end(counted)
        if len(self._events) > MAX_ADDRESSES:
            self._events.popitem(last=False)

    def forget(self, address: str) -> None:
        """Start over for the address."""
        self._events.pop(_counted_as(address), None)


def _counted_as(address: str) -> str:
    """What an address counts as: itself for IPv4 (mapped into IPv6 too), its /64 network for IPv6."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
