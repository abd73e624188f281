"""Reads what a terminal prints for its passengers: the console form of its light and its text."""

import re
from dataclasses import dataclass
from typing import Final

from .cast import EXPONENT
from .state import Display, Light

_LINE: Final = re.compile(r"\[.{7}\] ([a-z-]+)(?:: (.*))?")
_PAID: Final = re.compile(rf"([0-9]+)\.([0-9]{{{EXPONENT}}}) [A-Z]{{3}} paid, (.*)")
_LIGHTS: Final = {
    "ready": Light.READY,
    "accepted": Light.ACCEPTED,
    "accepted-concession": Light.ACCEPTED,
    "refused": Light.REFUSED,
    "try-again": Light.READY,
    "out-of-service": Light.OFF,
}
READY: Final = Display(Light.READY, "Ready", "Hold your card here")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a terminal showed. `fare_minor` is what an accepted card paid, None for everything else."""

    display: Display
    fare_minor: int | None = None

    @property
    def accepted(self) -> bool:
        """Whether the passenger was let in, which is a promise that the tap is on disk."""
        return self.display.light is Light.ACCEPTED

    @property
    def is_verdict(self) -> bool:
        """Whether it answers a card, and gives way to what the terminal shows between cards."""
        return self.display.light in {Light.ACCEPTED, Light.REFUSED}


def read_line(line: str) -> Shown | None:
    """What a line of the terminal's output shows, or None when it shows nothing."""
    match = _LINE.fullmatch(line)
    if match is None or match[1] not in _LIGHTS:
        return None
    light, text = _LIGHTS[match[1]], match[2] or ""
    if light is Light.ACCEPTED:
        return _accepted(text)
    if light is Light.READY and not text:
        return Shown(READY)
    main, _, more = text.partition(": ")
    return Shown(Display(light, main or "Refused", more))


def _accepted(text: str) -> Shown:
    """ "2.50 EUR paid, 17.50 EUR left, top up soon": the terminal promises this form."""
    paid = _PAID.fullmatch(text)
    if paid is None:
        return Shown(Display(Light.ACCEPTED, text))
    fare_minor = int(paid[1]) * 10**EXPONENT + int(paid[2])
    return Shown(Display(Light.ACCEPTED, text.partition(", ")[0], paid[3]), fare_minor)
