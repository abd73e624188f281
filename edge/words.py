"""What the passenger reads for each verdict. One short line, money in the fleet's currency.

An accepted tap starts with "FARE CURRENCY paid, BALANCE CURRENCY left": the console prints it, and whoever
watches a terminal's output can count on it.
"""

from crdt.fleet import FleetSettings
from edge.decide import Accepted, Note, Reason, Refused, Verdict
from hardware.feedback import Signal

NOT_PAIRED = "Out of service: not paired yet"
STARTING = "Out of service: starting"
STOPPED = "Out of service: stopped"
REVOKED = "Out of service: revoked by the operator, it has to be paired anew"
NO_FARES = "Out of service: waiting for the fares"
NOT_PERMITTED = "Out of service: the fare is beyond what this terminal may take"
STORE_FAILED = "Out of service: the ledger cannot be written"
READER_FAILED = "Out of service: the card reader does not answer"
HOLD_STILL = "Please present the card again"


def words_for(verdict: Verdict, fares: FleetSettings) -> tuple[Signal, str]:
    """The signal and the line of text for a verdict."""
    if isinstance(verdict, Accepted):
        return Signal.ACCEPTED, _accepted(verdict, fares)
    return Signal.REFUSED, _refused(verdict, fares)


def money(amount_minor: int, exponent: int, currency: str) -> str:
    """-150 as "-1.50 EUR"; exact, no float touches it."""
    whole, part = divmod(abs(amount_minor), 10**exponent)
    sign = "-" if amount_minor < 0 else ""
    fraction = f".{part:0{exponent}d}" if exponent else ""
    return f"{sign}{whole}{fraction} {currency}"


_NOTES = {
    Note.REGISTERED: "card registered",
    Note.LOW_BALANCE: "top up soon",
    Note.NEGATIVE_RIDE: "top up before the next ride",
}


def _accepted(verdict: Accepted, fares: FleetSettings) -> str:
    paid, left = _in(verdict.fare_minor, fares), _in(verdict.balance_after_minor, fares)
    notes = [words for note, words in _NOTES.items() if note in verdict.notes]
    return ", ".join([f"{paid} paid", f"{left} left", *notes])


def _refused(verdict: Refused, fares: FleetSettings) -> str:
    match verdict.reason:
        case Reason.HOTLISTED:
            return "Card blocked"
        case Reason.OVERDRAWN:
            owed = f": it owes {_in(-verdict.balance_minor, fares)}" if verdict.balance_minor < 0 else ""
            return f"Card overdrawn{owed}"
        case Reason.UNKNOWN_CARD:
            return "Card not known here"
        case Reason.NO_ALLOWANCE:
            return "New card: please try at a sales point"
        case Reason.PASSBACK:
            return "Card was used a moment ago"
        case Reason.BALANCE_TOO_LOW:
            fare, balance = _in(verdict.fare_minor, fares), _in(verdict.balance_minor, fares)
            return f"Balance too low: {balance}, fare {fare}"


def _in(amount_minor: int, fares: FleetSettings) -> str:
    return money(amount_minor, fares.exponent, fares.currency)
