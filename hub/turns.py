"""Whose turn it is: so many exchanges at a time, and for everybody else a time at which there is room.

A hub that is asked for more than it can do has to go on doing as much as it can. So whoever finds no room is
told so before anything is read or looked up, and when to come again: the turns lie as far apart as the hub
takes for an exchange. Half of the places are kept for those whose turn has come, so that everybody gets in;
and as others may have the rest, the hub is not idle when somebody lets a turn go by.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from hub.errors import RequestRefused

AT_A_TIME: Final = 2  # exchanges of a terminal: it needs one, and one that it has given up
LONGEST_S: Final = 60  # to the next request: connections are kept open for longer by default
SOON_S: Final = 1  # to the next request of one whose turn it is
MEMORY_S: Final = 10.0  # of work, over which the pace is taken
FIRST_PACE: Final = 50.0  # exchanges a second, before one was seen


class Pace:
    """How many exchanges a second the hub can answer: those that it did, by the time in which it had any."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds that only grow."""
        self._clock = clock
        self._answering = 0
        self._since_s = 0.0
        self._worked_s = 1.0
        self._answered = FIRST_PACE

    @property
    def between_s(self) -> float:
        """From one answer to the next, in seconds; at most one."""
        return self._worked_s / max(self._answered, self._worked_s)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """An exchange was received and is being answered."""
        self._work()
        self._answering += 1
        try:
            yield
        finally:
            self._work()
            self._answering -= 1
            self._answered += 1

    def _work(self) -> None:
        """Count the time since the last change, and less of what was long ago."""
        now_s = self._clock()
        worked_s = now_s - self._since_s if self._answering else 0.0
        self._since_s = now_s
        kept = math.exp(-worked_s / MEMORY_S)
        self._worked_s = self._worked_s * kept + worked_s
        self._answered *= kept


class Turn:
    """What one exchange was let in for."""

    def __init__(self, turns: "Turns", who: str, place: Hashable) -> None:
        """`place`: where it is to go on, for one that was let in because of that; None for any other."""
        self._turns = turns
        self._who = who
        self._place = place

    def goes_on(self, after: Hashable, until: Hashable) -> None:
        """What it has begun takes another exchange: for that it is let in as one whose turn has come.

        Else a settlement of several pages would never be whole where each page has to wait for a turn.
        `after` and `until`: from where to where this page goes. One that was let in to go on has to have
        done so: who begins again waits for another turn, or it would always have one.
        """
        if self._place in (None, after):
            self._turns.let_go_on(self._who, until)


class Turns:
    """Bounds the exchanges in progress, in all and per terminal, and with them the memory they hold."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        """`most`: exchanges at a time. `clock`: seconds that only grow."""
        self._most = most
        self._clock = clock
        self._taken: Counter[str] = Counter()
        self._turns: dict[str, float] = {}  # of those who were told to come again, or are to go on
        self._places: dict[str, Hashable] = {}  # where these are to go on
        self._last_s = -math.inf  # the last of these
        self.pace = Pace(clock)

    @contextmanager
    def taken(self, who: str) -> Iterator[Turn]:
        """A place for one exchange; RequestRefused when there is none."""
        now_s = self._clock()
        if self._taken[who] >= AT_A_TIME or self._taken.total() >= self._room(who, now_s):
            raise RequestRefused(
                "busy",
                "The hub has as many exchanges as it takes on; come again.",
                HTTPStatus.SERVICE_UNAVAILABLE,
                retry_after_s=self._wait_s(who, now_s),
            )
        self._turns.pop(who, None)
        self._taken[who] += 1
        try:
            yield Turn(self, who, self._places.pop(who, None))
        finally:
            self._taken[who] -= 1
            if not self._taken[who]:
                del self._taken[who]

    def let_go_on(self, who: str, place: Hashable) -> None:
        """Its turn is now, to go on from this place; see `Turn`."""
        self._turns[who] = self._clock()
        self._places[who] = place

    def _room(self, who: str, now_s: float) -> int:
        """How many exchanges may be in progress for this one to begin."""
        if self._last_s + LONGEST_S < now_s:  # whoever was told to come again is late by now
            self._turns.clear()
            self._places.clear()
        is_due = self._turns.get(who, math.inf) <= now_s
        return self._most if is_due or not self._turns else max(1, self._most // 2)

    def _wait_s(self, who: str, now_s: float) -> int:
        """Whole seconds until its turn, at most LONGEST_S; it keeps the turn that it was given."""
        turn_s = self._turns.get(who)
        if turn_s is None:
            self._last_s = max(self._last_s, now_s) + self.pace.between_s
            turn_s = self._turns[who] = self._last_s
        return min(LONGEST_S, max(SOON_S, math.ceil(turn_s - now_s)))
