"""One of the terminals that a connection of the benchmark stands for: its taps, and when it speaks."""

import random
from dataclasses import dataclass, field
from typing import Final

from crdt.cursor import Cursor

LATE_S: Final = 2.0  # after which a terminal that was to speak has not been heard


@dataclass(frozen=True)
class Command:
    """Load for some seconds, by so many terminals that share the connections.

    Times in seconds. `tap_s`: of one terminal, from one tap to the next on the average. `heartbeat_s`: its
    longest silence. `collect_s`, at most that: how long it collects taps before it speaks of them.
    """

    seconds: float
    terminals: int
    tap_s: float
    heartbeat_s: float
    collect_s: float


@dataclass
class Seat:
    """A terminal. Times in seconds, by the player's clock."""

    position: int  # of the settlement that it has installed
    next_tap_s: float
    collects_until_s: float = 0.0
    silent_until_s: float = 0.0  # at the latest
    open: list[float] = field(default_factory=list)  # when the taps were made that are not sealed
    staged: tuple[int, Cursor] | None = None  # of a settlement that is not whole: base, and how far

    @property
    def due_s(self) -> float:
        """When it speaks next: of a tap as soon as it may, else after its longest silence."""
        tap_s = self.open[0] if self.open else self.next_tap_s
        return min(max(tap_s, self.collects_until_s), self.silent_until_s)

    def tap(self, until_s: float, command: Command, source: random.Random) -> None:
        """The taps that were made up to then."""
        while self.next_tap_s <= until_s:
            self.open.append(self.next_tap_s)
            self.next_tap_s += source.expovariate(1 / command.tap_s)

    def spoke(self, now_s: float, command: Command) -> None:
        """The hub has answered."""
        self.collects_until_s = now_s + command.collect_s
        self.silent_until_s = now_s + command.heartbeat_s

    def was_refused(self, now_s: float, wait_s: float) -> None:
        """The hub had no time: it comes again then."""
        self.collects_until_s = self.silent_until_s = now_s + wait_s
