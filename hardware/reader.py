"""What a terminal needs from a card reader, and when a card has come or gone.

The real reader is `hardware.pn532`; the fake beside it is the chip in `hardware.emulator`, which the same
driver talks to.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hardware.cards import PresentedCard
from hardware.errors import CardError

GONE_AFTER_S = 0.5
"""A card that is not seen for so long has left: a hand shakes, and one missed look is not a second tap."""
REST_S = 0.05
"""Pause between looks while a card lies on the reader, so that it costs little."""


@dataclass(frozen=True, slots=True)
class FirmwareVersion:
    """The four bytes of the PN532's GetFirmwareVersion: 32 01 06 07 for every PN532 sold."""

    ic: int
    version: int
    revision: int
    support: int

    def __str__(self) -> str:
        return f"PN5{self.ic:02X} v{self.version}.{self.revision}"


class Reader(Protocol):
    """A contactless reader, used by one thread at a time."""

    def open(self) -> FirmwareVersion:
        """Take the device and wake the reader. Raises a ReaderError that says what to do."""

    def poll(self, timeout_s: float) -> PresentedCard | None:
        """The card in the field, as soon as there is one, or None after about `timeout_s`.

        One that stays is returned by every poll. A fault is mended within the call, which then returns None.
        Raises ReaderLost when nothing helped (call again later: it tries again), CardError when the card
        answered nonsense.
        """

    def transceive(self, command: bytes, timeout_s: float) -> bytes:
        """Send `command` (1..262 bytes) to the card of the last poll and return its answer.

        `timeout_s` is for the whole answer, in however many parts it comes.

        Raises CardGone, CardRefused or CardGarbled when the card fails, ReaderFault when the reader does.
        """

    def close(self) -> None:
        """Switch the field off and give the device back. Never raises; closing twice is fine."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A card was put on the reader."""

    card: PresentedCard


@dataclass(frozen=True, slots=True)
class Removed:
    """The card was taken away."""

    card: PresentedCard


Event = Arrived | Removed


class Presence:
    """Turns looks at the field into events. No I/O and no clock: both are arguments.

    Each card arrives when it is first seen and is removed when it has not been seen for a while. Two cards in
    one wallet, seen in turns, so arrive once each.
    """

    def __init__(self, gone_after_s: float = GONE_AFTER_S) -> None:
        self._gone_after_s = gone_after_s
        # Never many: whoever is not seen again leaves within gone_after_s.
        self._seen: dict[bytes, tuple[PresentedCard, float]] = {}

    @property
    def cards(self) -> tuple[PresentedCard, ...]:
        """The cards that have arrived and not been removed."""
        return tuple(card for card, _ in self._seen.values())

    def observe(self, seen: PresentedCard | None, now_s: float) -> list[Event]:
        """The events that one look at the field brings, in order: removals, then at most one arrival."""
        known = seen is not None and _name(seen) in self._seen
        if seen is not None and known:
            self._seen[_name(seen)] = (seen, now_s)
        gone = [name for name, (_, at_s) in self._seen.items() if now_s - at_s >= self._gone_after_s]
        events: list[Event] = [Removed(self._seen.pop(name)[0]) for name in gone]
        if seen is not None and not known:
            self._seen[_name(seen)] = (seen, now_s)
            events.append(Arrived(seen))
        return events


class Watcher:
    """Looks at a reader again and again; each step returns what changed."""

    def __init__(
        self,
        reader: Reader,
        *,
        presence: Presence | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        rest: Callable[[float], object] = time.sleep,
    ) -> None:
        self._reader = reader
        self._presence = presence or Presence()
        self._clock_s = clock_s
        self._rest = rest
        self._lying = False
        self._nonsense_s: float | None = None

    def step(self, timeout_s: float) -> list[Event]:
        """Look once, for about `timeout_s` at most.

        Raises what `Reader.poll` raises, and forgets nothing by it. A card that stays and goes on answering
        nonsense raises CardError once, as one that stays arrives once.
        """
        if self._lying:
            self._rest(REST_S)
        self._lying = False
        try:
            seen = self._reader.poll(timeout_s)
        except CardError:
            self._lying = True
            before_s, self._nonsense_s = self._nonsense_s, self._clock_s()
            if before_s is None or self._nonsense_s - before_s >= GONE_AFTER_S:
                raise
            seen = None
        else:
            self._lying = seen is not None
        return self._presence.observe(seen, self._clock_s())


def _name(card: PresentedCard) -> bytes:
    # A phone that lies on the reader makes up a new UID at each look: one arrival, not many.
    return bytes((card.uid[0], card.sak)) if card.uid_is_random else card.uid
