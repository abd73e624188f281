"""What a tap costs and whether it is accepted. Pure: values in, a verdict out.

The order of the questions is the policy: hotlist, unknown card, passback, money.
"""

from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from crdt.facts import MAX_ALLOWANCE_MINOR, CardView, Draft, Kind
from crdt.fleet import MAX_ROUTE_FARES, REFUSE, FleetSettings


class Reason(StrEnum):
    """Why a card is refused. The values go to the log and to the status page."""

    HOTLISTED = "hotlisted"
    OVERDRAWN = "overdrawn"
    UNKNOWN_CARD = "unknown card"
    PASSBACK = "passback"
    BALANCE_TOO_LOW = "balance too low"
    NO_ALLOWANCE = "allowance spent"


class Note(StrEnum):
    """What the passenger of an accepted tap should be told."""

    REGISTERED = "registered"
    LOW_BALANCE = "low balance"
    NEGATIVE_RIDE = "negative ride"


NO_NOTES: Final[frozenset[Note]] = frozenset()


class Accepted(NamedTuple):
    """Let the passenger in, once `drafts` are durable. Amounts are in minor units."""

    drafts: tuple[Draft, ...]
    fare_minor: int
    balance_after_minor: int
    notes: frozenset[Note] = NO_NOTES


class Refused(NamedTuple):
    """Do not; nothing is written. `fare_minor` is what the ride would have cost."""

    reason: Reason
    fare_minor: int
    balance_minor: int


Verdict = Accepted | Refused


def decide(
    card: CardView,
    settings: FleetSettings,
    route: str,
    now_ms: int,
    credit_left_minor: int = MAX_ALLOWANCE_MINOR,
) -> Verdict:
    """Judge one presentation of `card` at `now_ms` (terminal time) on `route`.

    `credit_left_minor`: what the terminal may still give in opening balances, by its certificate.
    """
    fare = settings.fare_minor(route)
    balance = card.balance_minor
    if card.hotlisted:
        return Refused(Reason.OVERDRAWN if card.until_paid else Reason.HOTLISTED, fare, balance)
    opening: tuple[Draft, ...] = ()
    if not card.known:
        if settings.unknown_card == REFUSE:
            return Refused(Reason.UNKNOWN_CARD, fare, balance)
        if settings.opening_balance_minor > max(0, credit_left_minor):
            return Refused(Reason.NO_ALLOWANCE, fare, balance)
        opening = (Draft(Kind.OPENING, settings.opening_balance_minor),)
        balance += settings.opening_balance_minor
    if card.last_fare_at_ms is not None and _too_soon(card.last_fare_at_ms, settings, now_ms):
        return Refused(Reason.PASSBACK, fare, balance)
    if balance < fare and not _lent(balance, fare, settings, known=card.known):
        return Refused(Reason.BALANCE_TOO_LOW, fare, card.balance_minor)
    after = balance - fare
    notes = _warning(fare, after) if after < settings.low_balance_minor else NO_NOTES
    return Accepted(opening + _ride(fare), fare, after, notes | {Note.REGISTERED} if opening else notes)


@lru_cache(maxsize=MAX_ROUTE_FARES + 1)
def _ride(fare_minor: int) -> tuple[Draft, ...]:
    """Kept, because a fleet has few fares, and checking one again would cost half of a decision."""
    return (Draft(Kind.FARE, -fare_minor),)


def _too_soon(last_fare_at_ms: int, settings: FleetSettings, now_ms: int) -> bool:
    """A fare of another terminal may carry a time after ours; as close, it is as much the same boarding."""
    return abs(now_ms - last_fare_at_ms) < settings.passback_window_s * 1000


def _lent(balance_minor: int, fare_minor: int, settings: FleetSettings, *, known: bool) -> bool:
    """A free ride needs no money; and where the policy lends one ride, whoever is not in debt yet gets it.

    Not a card that nobody has met: else any contactless card out of a drawer were a free ride.
    """
    return fare_minor == 0 or (known and settings.negative_ride and balance_minor >= 0)


def _warning(fare_minor: int, after_minor: int) -> frozenset[Note]:
    return frozenset({Note.NEGATIVE_RIDE if after_minor < 0 < fare_minor else Note.LOW_BALANCE})
