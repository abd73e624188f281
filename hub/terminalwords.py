"""How a terminal is, in words, on the pages and on the command line: its state, and what is odd about it."""

from dataclasses import dataclass
from typing import Literal

from hub.figures import count, span
from hub.terminal_row import TerminalRow

Tone = Literal["good", "waiting", "bad", "quiet"]
"""How a state looks; the words beside it always say the same, so that colour is never the only sign."""


@dataclass(frozen=True, slots=True)
class State:
    """A terminal's state in words, and the tone they are shown in."""

    tone: Tone
    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a terminal that somebody should know."""

    text: str
    """Ends with the word before the moment that it is about."""
    at_ms: int
    advice: str
    """What it means, and what to do."""


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
    if row.silent or row.put_back:
        unknown = "an earlier identity's last ones are unknown" if row.silent else ""
        return State("waiting", "taps in, as far as anybody knows", unknown)
    return State("good", "all taps in")


def by_urgency(row: TerminalRow, now_ms: int) -> tuple[int, str]:
    """Sort key: the terminals somebody should look at first, and each group in the order of names."""
    return _URGENCY[terminal_state(row, now_ms).tone], row.name.casefold()


def remarks(row: TerminalRow) -> list[Remark]:
    """What is odd about it now; nothing, nearly always."""
    every = recalled(row), old_copy(row), earlier_certificate(row)
    return [remark for remark in every if remark is not None]


def recalled(row: TerminalRow) -> Remark | None:
    """That it was revoked at a time that the hub has forgotten."""
    if row.recalled_ms is None:
        return None
    text = "it was revoked before this hub was put back, and stopped again"
    return Remark(text, row.recalled_ms, _RECALLED)


def old_copy(row: TerminalRow) -> Remark | None:
    """That its storage was put back."""
    if row.restored_ms is None or not row.put_back or row.revoked:
        return None
    return Remark("its storage was put back from an old copy, noticed", row.restored_ms, _OLD_COPY)


def earlier_certificate(row: TerminalRow) -> Remark | None:
    """That somebody else calls by a certificate of it."""
    if row.earlier_ms is None:
        return None
    text = "another computer calls under this name with an earlier certificate, last"
    return Remark(text, row.earlier_ms, _EARLIER_CERTIFICATE)


_URGENCY: dict[Tone, int] = {"bad": 0, "waiting": 1, "good": 2, "quiet": 3}
_RECALLED = (
    "The hub had lost the list that says so, and it came back. What the terminal wrote under an identity that"
    " it got meanwhile waits in quarantine. Pair it again if it is to go on."
)
_OLD_COPY = (
    "Its taps are safe: it gets a new identity by itself at its next contact, and writes again what the hub"
    " lacks. If this stays here, look at the terminal."
)
_EARLIER_CERTIFICATE = (
    "It is refused. If it is another bus, pair that one under a name of its own: its taps come with it. If it"
    " is this one with an old copy of its storage, pair it again."
)
