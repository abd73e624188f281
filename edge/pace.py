"""How often somebody may ask: a bucket of tokens each, filled at a steady rate."""

from collections.abc import Callable, Hashable

MAX_ASKERS = 1_024
"""Of whom the bucket is remembered; who is forgotten starts with a full one."""


class Pace:
    """`burst` requests at once, and `per_s` a second for long."""

    def __init__(self, burst: float, per_s: float, elapsed_s: Callable[[], float]) -> None:
        self._burst = burst
        self._per_s = per_s
        self._elapsed_s = elapsed_s
        self._buckets: dict[Hashable, tuple[float, float]] = {}

    def admits(self, asker: Hashable) -> bool:
        """Whether one more request is not too often; counts it when it is not."""
        now_s = self._elapsed_s()
        left, at_s = self._buckets.pop(asker, (self._burst, now_s))
        left = min(self._burst, left + (now_s - at_s) * self._per_s)
        admitted = left >= 1
        if len(self._buckets) >= MAX_ASKERS:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[asker] = (left - 1 if admitted else left, now_s)
        return admitted
