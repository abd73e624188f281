"""The fleet's settings as text and back, exactly: for forms and the command line.

Names and forms (amounts are decimals in the fleet's currency, like "2.50"):

    currency "EUR" | exponent "2" | flat_fare "2.50" | route_fares "7=1.80\\nAirport=4.20" (a line a route)
    unknown_card "register" or "refuse" | opening_balance "0.00" | low_balance "5.00"
    negative_ride "yes" or "no" | passback_window_s "60"
    timezone "Europe/Berlin" | day_starts_at_h "3" | retention_days "35"
"""

import re
from collections.abc import Callable, Mapping
from zoneinfo import ZoneInfo

from crdt.facts import MAX_AMOUNT_MINOR
from crdt.fleet import MAX_ROUTE_FARES, FleetSettings
from hub.errors import RequestRefused

_AMOUNT = re.compile(r"([0-9]{1,13})(?:\.([0-9]{1,9}))?", re.ASCII)


def parse_money(text: str, exponent: int) -> int:
    """Minor units of a decimal ("12.5", 2 -> 1250), exactly; RequestRefused for anything else.

    Not negative, no thousands separators, no more decimals than the currency has.
    """
    match = _AMOUNT.fullmatch(text.strip())
    example = format_money(12 * 10**exponent, exponent)
    if match is None:
        raise RequestRefused(
            "amount", f"{text[:40]!r} is not an amount. Write it in digits, such as {example}."
        )
    whole, decimals = str(match[1]), str(match[2] or "")
    if len(decimals) > exponent:
        raise RequestRefused("amount", f"{text[:40]!r} has too many decimals; the currency has {exponent}.")
    amount_minor = int(whole + decimals.ljust(exponent, "0"))
    if amount_minor > MAX_AMOUNT_MINOR:
        most = format_money(MAX_AMOUNT_MINOR, exponent)
        raise RequestRefused("amount", f"{text[:40]!r} is more than one entry may be ({most}).")
    return amount_minor


def format_money(amount_minor: int, exponent: int) -> str:
    """-1250, 2 -> "-12.50". For amounts that are not negative, the inverse of `parse_money`."""
    sign = "-" if amount_minor < 0 else ""
    digits = str(abs(amount_minor)).rjust(exponent + 1, "0")
    return sign + (f"{digits[:-exponent]}.{digits[-exponent:]}" if exponent else digits)


def as_text(settings: FleetSettings) -> dict[str, str]:
    """Every setting as text."""
    exponent = settings.exponent
    fares = sorted(settings.route_fares.items())
    return {
        "currency": settings.currency,
        "exponent": str(exponent),
        "flat_fare": format_money(settings.flat_fare_minor, exponent),
        "route_fares": "\n".join(f"{route}={format_money(fare, exponent)}" for route, fare in fares),
        "unknown_card": settings.unknown_card,
        "opening_balance": format_money(settings.opening_balance_minor, exponent),
        "low_balance": format_money(settings.low_balance_minor, exponent),
        "negative_ride": "yes" if settings.negative_ride else "no",
        "passback_window_s": str(settings.passback_window_s),
        "timezone": settings.timezone,
        "day_starts_at_h": str(settings.day_starts_at_h),
        "retention_days": str(settings.retention_days),
    }


def from_text(changes: Mapping[str, str], exponent: int) -> dict[str, object]:
    """The changes as FleetSettings takes them; RequestRefused when a name or a form is wrong.

    `exponent` is the one that the amounts are written in: the new one where `changes` brings one.
    """
    known = list(_READERS)
    found: dict[str, object] = {}
    for name, text in changes.items():
        if name not in _READERS:
            raise RequestRefused(
                "setting", f"There is no fleet setting {name[:40]!r}. Known: {', '.join(known)}."
            )
        field, read = _READERS[name]
        try:
            found[field] = read(text.strip(), exponent)
        except RequestRefused as refused:
            raise RequestRefused("setting", f"{name}: {refused}") from None
    return found


def _route_fares(text: str, exponent: int) -> dict[str, int]:
    fares: dict[str, int] = {}
    for line in text.splitlines():
        route, equals, amount = line.rpartition("=")
        if not line.strip():
            continue
        if not equals or not route.strip() or route.strip() in fares:
            raise RequestRefused("setting", f"{line[:80]!r} is not a new route and its fare, such as 7=1.80.")
        fares[route.strip()] = parse_money(amount, exponent)
    if len(fares) > MAX_ROUTE_FARES:
        raise RequestRefused("setting", f"At most {MAX_ROUTE_FARES} routes may have a fare of their own.")
    return fares


def _yes_or_no(text: str, _exponent: int) -> bool:
    if text not in ("yes", "no"):
        raise RequestRefused("setting", "write yes or no.")
    return text == "yes"


def _whole(text: str, _exponent: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise RequestRefused("setting", "write a whole number.")
    return int(text)


def _zone(text: str, _exponent: int) -> str:
    try:
        return ZoneInfo(text).key
    except (KeyError, ValueError, OSError):  # unknown; no name at all; the name of a directory
        sentence = f"{text[:64]!r} is no time zone here. Write one like Europe/Berlin or UTC."
        raise RequestRefused("setting", sentence) from None


def _same(text: str, _exponent: int) -> str:
    return text


_READERS: Mapping[str, tuple[str, Callable[[str, int], object]]] = {
    "currency": ("currency", _same),
    "exponent": ("exponent", _whole),
    "flat_fare": ("flat_fare_minor", parse_money),
    "route_fares": ("route_fares", _route_fares),
    "unknown_card": ("unknown_card", _same),
    "opening_balance": ("opening_balance_minor", parse_money),
    "low_balance": ("low_balance_minor", parse_money),
    "negative_ride": ("negative_ride", _yes_or_no),
    "passback_window_s": ("passback_window_s", _whole),
    "timezone": ("timezone", _zone),
    "day_starts_at_h": ("day_starts_at_h", _whole),
    "retention_days": ("retention_days", _whole),
}
