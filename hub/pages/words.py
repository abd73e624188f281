"""Plain words for what the hub knows: where an entry was written, how sure its time is, whose are missing."""

from collections.abc import Sequence

from hub.evidence import WaitingRow
from hub.figures import span
from hub.overview import TapRow
from hub.silent_row import SilentRow

NAMES_SHOWN = 3
_DOUBT_MS = 60_000  # what is less is not worth a word
_UNCHECKED_MS = 365 * 86_400_000  # a terminal whose clock nothing has confirmed yet states a century


def place(row: TapRow) -> str:
    """Where an entry was written, in one line: "Bus 12, front door, route 7"."""
    return f"{row.terminal}, route {row.route}" if row.route else row.terminal


def doubt(error_ms: int) -> str:
    """How far a time may be from the truth: "± 3 h", "clock not checked", or nothing."""
    if error_ms < _DOUBT_MS:
        return ""
    return "clock not checked" if error_ms >= _UNCHECKED_MS else f"± {span(error_ms)}"


def authors(rows: Sequence[WaitingRow]) -> str:
    """Of whom something is missing, in a sentence: "the hub itself, Bus 1 and 4 more"."""
    return names(list(dict.fromkeys("the hub itself" if row.own else row.terminal for row in rows)))


def terminals(rows: Sequence[SilentRow]) -> str:
    """The terminals that these were, in a sentence."""
    return names(list(dict.fromkeys(row.terminal for row in rows)))


def names(each: Sequence[str]) -> str:
    """Names in a sentence, the first ones only: "hub", "hub and Bus 1", "hub, Bus 1, Bus 2 and 4 more"."""
    more = len(each) - NAMES_SHOWN
    shown = [*each[:NAMES_SHOWN], *([f"{more} more"] if more > 0 else [])]
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))
