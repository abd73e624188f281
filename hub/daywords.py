"""A day's completeness as a sentence: what is here, what is missing, what nobody knows yet."""

from hub.day_page import TerminalDay
from hub.silent_row import SilentRow


def completeness(row: TerminalDay) -> str:
    """ "taps 1-4,312 complete", or what is missing of them."""
    if row.state == "behind":
        return "still being counted; look again in a moment"
    taps = "no taps" if not row.taps else "tap 1" if row.taps == 1 else f"taps 1\u2013{row.taps:,}"
    if row.state == "complete":
        return f"{taps} complete" if row.taps else "no taps, complete"
    if row.silent:
        return f"{taps} so far; later ones of an earlier identity are unknown"
    if row.state == "open":
        return f"{taps} so far; it has not said yet whether there are more"
    missing = [f"{entries(gap.first_seq, gap.last_seq)} after tap {gap.after_tap:,}" for gap in row.gaps]
    if row.contested:
        missing.append(f"{row.contested:,} in quarantine")
    return f"{taps} here; missing: " + ", ".join(missing)


def silence(row: SilentRow, heard: str) -> str:
    """What is known of a former identity, and what ends the waiting. `heard`: the time, in words."""
    last = f"was last heard {heard}" if row.heard_ms else "was never heard"
    ends = f"ended at entry {row.last_seq:,}" if row.last_seq else "has no entry here"
    return f"identity {row.replica} {ends} and {last}: what it wrote later is unknown until it comes"


def entries(first_seq: int, last_seq: int) -> str:
    """Numbers of an author's chain: "entry 4", "entries 3-4"."""
    return f"{'entry' if first_seq == last_seq else 'entries'} {numbers(first_seq, last_seq)}"


def numbers(first_seq: int, last_seq: int) -> str:
    """The same in a table whose title says what they are."""
    return f"{first_seq:,}" if first_seq == last_seq else f"{first_seq:,}\u2013{last_seq:,}"
