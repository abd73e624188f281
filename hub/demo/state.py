"""What the demo knows at one instant: what each ledger says, and what each bus shows. Values only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from .cast import BusRole


class Power(StrEnum):
    """Whether a terminal's process is there."""

    ON = "on"
    OFF = "off"
    STARTING = "starting"


class Light(StrEnum):
    """What a terminal's light shows: amber, green, red, or nothing."""

    READY = "ready"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Held:
    """What a terminal holds of one card: the sum of fares and the like, and an opening balance it gave."""

    sum_minor: int
    opening_minor: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One ledger's account of itself; amounts in minor units, the digest in hex."""

    digest: str
    held: int
    """How many entries the hub has not settled."""
    written: int
    """Of a terminal, how many entries it has written; of the hub, how many it knows."""
    balanced: bool
    balances: Mapping[str, int]
    """Of the cards it has met, by uid."""
    held_of: Mapping[str, Held] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    """The cards it was asked about."""


@dataclass(frozen=True, slots=True)
class Display:
    """What a terminal's face shows."""

    light: Light
    main: str
    more: str = ""


@dataclass(frozen=True, slots=True)
class BusState:
    """One bus. `reading` is the last one there was, also while the power is off; None before the first."""

    role: BusRole
    power: Power
    cut: bool
    display: Display
    reading: Reading | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of what happened; `at` is local time, HH:MM:SS."""

    at: str
    text: str


@dataclass(frozen=True, slots=True)
class State:
    """The whole demo. `cards` is (uid, name) in the order of the page, `log` newest first."""

    hub: Reading | None
    buses: Sequence[BusState]
    cards: Sequence[tuple[str, str]]
    log: Sequence[Entry]
    steps_done: frozenset[str] = frozenset()

    @property
    def agree(self) -> bool:
        """Whether all ledgers are there and have the same digest."""
        readings = [self.hub, *(bus.reading for bus in self.buses)]
        digests = {reading.digest for reading in readings if reading is not None}
        return len(digests) == 1 and None not in readings and all(bus.power is Power.ON for bus in self.buses)
