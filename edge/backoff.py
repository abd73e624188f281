"""How long to wait after a failure: longer each time, bounded, never in step with the other buses."""

from collections.abc import Callable


class Backoff:
    """Delays between half and the whole of min_s, 2 min_s, 4 min_s ... max_s.

    A whole depot that loses and finds its network at the same moment comes back spread out. `random` gives a
    float in [0, 1).
    """

    def __init__(self, min_s: float, max_s: float, random: Callable[[], float]) -> None:
        self._min_s = min_s
        self._max_s = max_s
        self._random = random
        self._whole_s = min_s

    def reset(self) -> None:
        """It worked: the next failure starts at min_s again."""
        self._whole_s = self._min_s

    def next_s(self) -> float:
        """It failed: how many seconds to wait before the next attempt."""
        whole = self._whole_s
        self._whole_s = min(whole * 2, self._max_s)
        return whole * (1 + self._random()) / 2

    def asked_s(self, wait_s: float) -> float:
        """The hub said when to come again: how many seconds to wait, up to a tenth and a second more.

        Never less than min_s, and whatever it said, it counts as max_s at most.
        """
        whole = max(self._min_s, min(wait_s, self._max_s))
        return whole + self._random() * (1 + whole / 10)
