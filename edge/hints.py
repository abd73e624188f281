"""When an address that the LAN announces is worth an attempt before its time.

A hub that has moved is to be found at once; and whoever is on the LAN announces as many as he likes.
"""

from collections.abc import Callable

from edge.pace import Pace

AT_ONCE = 3
"""Attempts that new addresses may bring forward one after the other: a hub's are announced bit by bit."""
EVERY_S = 10.0
"""After those, how often they may."""


class Hints:
    """Which attempts new addresses bring forward. `elapsed_s`: a clock that only goes forward."""

    def __init__(self, elapsed_s: Callable[[], float]) -> None:
        self._pace = Pace(AT_ONCE, 1 / EVERY_S, elapsed_s)
        self._untried = False

    def heard(self, *, new: bool) -> bool:
        """The LAN was looked at; whether to try now. `new`: there is an address that was not there before.

        One that comes too soon is tried when it is time, at a later look, if not in another attempt.
        """
        self._untried = self._untried or new
        if not self._untried or not self._pace.admits("the LAN"):
            return False
        self._untried = False
        return True

    def trying(self) -> None:
        """An attempt begins, at all addresses heard so far."""
        self._untried = False
