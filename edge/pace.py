"""How often somebody may ask: a bucket of tokens, filled at a steady rate."""

from collections.abc import Callable, Hashable
from functools import partial

MAX_ASKERS = 1_024
"""Of whom the bucket is remembered; who is forgotten starts with a full one."""


class Bucket:
    """`burst` requests at once, and `per_s` a second for long."""

    def __init__(self, burst: float, per_s: float, elapsed_s: Callable[[], float]) -> None:
        self._burst = burst
        self._per_s = per_s
        self._elapsed_s = elapsed_s
        self._left, self._at_s = burst, elapsed_s()

    def admits(self) -> bool:
        """Whether one more request is not too often; counts it when it is not."""
        now_s = self._elapsed_s()
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        admitted = self._left >= 1
        if admitted:
            self._left -= 1
        return admitted


class Pace:
    """The same of each who asks."""

    def __init__(self, burst: float, per_s: float, elapsed_s: Callable[[], float]) -> None:
        """See Bucket."""
        self._new = partial(Bucket, burst, per_s, elapsed_s)
        self._buckets: dict[Hashable, Bucket] = {}  # whoever has been silent longest first

    def admits(self, asker: Hashable) -> bool:
        """Whether one more request of this asker is not too often; counts it when it is not."""
        bucket = self._buckets.pop(asker, None) or self._new()
        if len(self._buckets) >= MAX_ASKERS:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[asker] = bucket
        return bucket.admits()
