"""Plain words for what the hub knows: how a terminal is, where a ledger entry was written, how long ago."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hub.evidence import SilentRow, WaitingRow
from hub.overview import TapRow, TerminalRow

Tone = Literal["good", "waiting", "bad", "quiet"]
"""How a state looks; the words beside it always say the same, so that colour is never the only sign."""

NAMES_SHOWN = 3
_DOUBT_MS = 60_000  # what is less is not worth a word
_UNCHECKED_MS = 365 * 86_400_000  # a terminal whose clock nothing has confirmed yet states a century
_URGENCY: dict[Tone, int] = {"bad": 0, "waiting": 1, "good": 2, "quiet": 3}


@dataclass(frozen=True, slots=True)
class State:
    """A terminal's state in words, and the tone they are shown in."""

    tone: Tone
    text: str
    detail: str = ""


def terminal_state(row: TerminalRow, now_ms: int) -> State:
    """What an operator wants to know first: are its taps here, and if not, is it talking to us."""
    if row.revoked:
        return State("quiet", "revoked")
    if row.last_seen_ms is None:
        return State("waiting", "paired, not seen yet")
    held = row.held or 0
    if not row.online:
        since = f"not seen for {span(now_ms - row.last_seen_ms)}"
        return State("bad", since, f"{count(held, 'tap')} held then" if held else "")
    if held:
        return State("waiting", f"{count(held, 'tap')} held")
    if row.silent:
        return State(
            "waiting", "taps in, as far as anybody knows", "an earlier identity's last ones are unknown"
        )
    return State("good", "all taps in")


def by_urgency(row: TerminalRow, now_ms: int) -> tuple[int, str]:
    """Sort key: the terminals somebody should look at first, and each group in the order of names."""
    return _URGENCY[terminal_state(row, now_ms).tone], row.name.casefold()


def place(row: TapRow) -> str:
    """Where an entry was written, in one line: "Bus 12, front door, route 7"."""
    return f"{row.terminal}, route {row.route}" if row.route else row.terminal


def span(duration_ms: int) -> str:
    """A duration in its largest whole unit: "40 s", "12 min", "3 h", "2 days"."""
    seconds = max(0, duration_ms) // 1000
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86400} days"


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


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 tap", "12 taps", and "3 entries" where the plural is given."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def names(each: Sequence[str]) -> str:
    """Names in a sentence, the first ones only: "hub", "hub and Bus 1", "hub, Bus 1, Bus 2 and 4 more"."""
    more = len(each) - NAMES_SHOWN
    shown = [*each[:NAMES_SHOWN], *([f"{more} more"] if more > 0 else [])]
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))
