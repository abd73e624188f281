"""Who plays in the demo: three buses, a few cards, and the fares they meet."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hub.fleettext import format_money


@dataclass(frozen=True, slots=True)
class BusRole:
    """One terminal of the demo; `key` names its directory and its place on the page."""

    key: str
    name: str
    door: str
    route: str
    fare_minor: int

    @property
    def terminal(self) -> str:
        """What the hub calls the terminal."""
        return f"{self.name}, {self.door}"


@dataclass(frozen=True, slots=True)
class CardRole:
    """One card; `uid` is 14 hex digits, `topup_minor` what the depot sells it at the start (0: never met)."""

    uid: str
    name: str
    topup_minor: int


EXPONENT: Final = 2
FLAT_FARE_MINOR: Final = 250

BUSES: Final = (
    BusRole("bus-1", "Bus 1", "front door", "12", FLAT_FARE_MINOR),
    BusRole("bus-2", "Bus 2", "front door", "7", 180),
    BusRole("bus-3", "Bus 3", "rear door", "Airport", 420),
)

CARDS: Final = (
    CardRole("04A1B2C3D4E501", "Ada", 2000),
    CardRole("04A1B2C3D4E502", "Ben", 1500),
    CardRole("04A1B2C3D4E503", "Chidi", 1000),
    CardRole("04A1B2C3D4E504", "Dora", 300),
)

NEW_CARD_NAMES: Final = ("Emil", "Fay", "Goran", "Hana", "Iris", "Jun", "Kofi", "Lena")

OPENING_MINOR: Final = 500
"""What a terminal gives a card that no ledger has met."""

PASSBACK_S: Final = 3
"""Short, so that a visitor meets the rule once and is not held up by it."""


def new_uid(drawn: bytes) -> str:
    """The `uid` of one more card, as NXP numbers them, from 6 random bytes.

    Its fourth byte is no cascade tag (ISO/IEC 14443-3, 6.5.4): a terminal takes such a card for a forged one.
    """
    return bytes((0x04, *drawn[:2], drawn[2] & 0x7F, *drawn[3:])).hex().upper()


def fleet_changes(passback_s: int) -> Mapping[str, str]:
    """The demo's fares and policy, as texts by the names that `FleetDesk.change` takes."""
    routes = [bus for bus in BUSES if bus.fare_minor != FLAT_FARE_MINOR]
    return MappingProxyType(
        {
            "flat_fare": _decimal(FLAT_FARE_MINOR),
            "route_fares": "\n".join(f"{bus.route}={_decimal(bus.fare_minor)}" for bus in routes),
            "opening_balance": _decimal(OPENING_MINOR),
            "low_balance": _decimal(300),
            "unknown_card": "register",
            "negative_ride": "yes",
            "passback_window_s": str(passback_s),
        }
    )


def money(amount_minor: int) -> str:
    """-1250 -> "−12.50", with a real minus sign."""
    return _decimal(amount_minor).replace("-", "−")


def _decimal(amount_minor: int) -> str:
    return format_money(amount_minor, EXPONENT)
