"""The fleet's settings: fares and the rules of a tap. The values; documents.py holds how they travel."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Final

from crdt.errors import Malformed
from crdt.facts import MAX_AMOUNT_MINOR, text_fits

REGISTER: Final = "register"
REFUSE: Final = "refuse"
MAX_ROUTE_FARES: Final = 2_000
MAX_PASSBACK_S: Final = 86_400
MAX_RETENTION_DAYS: Final = 3_650
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}", re.ASCII)


class SettingRefused(Malformed):
    """A fleet setting is not acceptable; the sentence names it and says what is expected."""


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """Everything a terminal must know to judge a tap. Raises SettingRefused when a value makes no sense."""

    currency: str = "EUR"  # ISO 4217 letters
    exponent: int = 2  # digits after the point: 250 minor units with exponent 2 are 2.50
    flat_fare_minor: int = 250
    route_fares: Mapping[str, int] = field(default_factory=dict)  # route id -> fare in minor units
    unknown_card: str = REGISTER  # "register" (with the opening balance) or "refuse"
    opening_balance_minor: int = 0  # what a card gets when a terminal meets it first
    low_balance_minor: int = 500  # below this after the ride, the passenger is told
    negative_ride: bool = True  # one ride may take a known card's balance below zero
    passback_window_s: int = 60  # the same card again within this time does not pay, and is not let through
    timezone: str = "UTC"  # IANA name, of the operator's days: "Europe/Berlin"
    day_starts_at_h: int = 3  # a day of service goes from this hour to the same one next morning
    retention_days: int = 35  # how long terminals keep what the hub has settled

    def __post_init__(self) -> None:
        """Check every value; keep `route_fares` as a read-only copy."""
        _check_currency(self.currency, self.exponent)
        for name in ("flat_fare_minor", "opening_balance_minor", "low_balance_minor"):
            _check_amount(name, getattr(self, name))
        _check_routes(self.route_fares)
        if self.unknown_card not in (REGISTER, REFUSE):
            raise SettingRefused('unknown_card must be "register" or "refuse"')
        if type(self.negative_ride) is not bool:
            raise SettingRefused("negative_ride must be true or false")
        _check_whole("passback_window_s", self.passback_window_s, 0, MAX_PASSBACK_S, "seconds")
        _check_whole("day_starts_at_h", self.day_starts_at_h, 0, 23, "hours")
        _check_whole("retention_days", self.retention_days, 1, MAX_RETENTION_DAYS, "days")
        if not isinstance(self.timezone, str) or not _ZONE.fullmatch(self.timezone):
            raise SettingRefused("timezone must be the name of a time zone, like Europe/Berlin or UTC")
        object.__setattr__(self, "route_fares", MappingProxyType(dict(self.route_fares)))

    def fare_minor(self, route: str) -> int:
        """What a ride on `route` costs: the route's own fare, or the flat fare."""
        return self.route_fares.get(route, self.flat_fare_minor)

    @property
    def floor_minor(self) -> int:
        """The lowest balance that one terminal lets a card come to; at most 0."""
        dearest = max(self.flat_fare_minor, *self.route_fares.values(), 0)
        return -dearest if self.negative_ride else 0


SETTING_NAMES: Final = tuple(setting.name for setting in fields(FleetSettings))


def _check_currency(currency: object, exponent: object) -> None:
    if not (isinstance(currency, str) and len(currency) == 3 and currency.isascii() and currency.isupper()):
        raise SettingRefused("currency must be three capital letters, like EUR")
    if type(exponent) is not int or not 0 <= exponent <= 4:
        raise SettingRefused("exponent must be a whole number from 0 to 4 (2 where 100 cents are a euro)")


def _check_amount(name: str, amount: object) -> None:
    if type(amount) is not int or not 0 <= amount <= MAX_AMOUNT_MINOR:
        raise SettingRefused(f"{name} must be a whole number of minor units from 0 to {MAX_AMOUNT_MINOR}")


def _check_whole(name: str, value: object, lowest: int, highest: int, unit: str) -> None:
    if type(value) is not int or not lowest <= value <= highest:
        raise SettingRefused(f"{name} must be a whole number of {unit} from {lowest} to {highest}")


def _check_routes(fares: object) -> None:
    if not isinstance(fares, Mapping):
        raise SettingRefused("route_fares must map route ids to fares")
    if len(fares) > MAX_ROUTE_FARES:
        raise SettingRefused(f"route_fares must name at most {MAX_ROUTE_FARES} routes")
    for route, amount in fares.items():
        if not isinstance(route, str) or not route or not text_fits(route):
            raise SettingRefused("a route in route_fares must be 1 to 64 bytes of text")
        _check_amount(f"route_fares[{route!r}]", amount)
