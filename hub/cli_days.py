"""Commands about days of service: the report of one, and closing it."""

import argparse
from typing import Any

from hub.cli_operate import Command
from hub.cli_text import ask_hub, in_address, local_time, money_text, say, table
from hub.day_page import GapRow, TerminalDay
from hub.daywords import completeness, silence
from hub.silent_row import SilentRow


def add(command: Command) -> None:
    """Put these commands into the parser."""
    report = command("report", _report, "Say of each terminal whether its taps of a day are all here.")
    report.add_argument(
        "day",
        nargs="?",
        default="yesterday",
        help="2026-11-21, today or yesterday (default: yesterday, the last one that has ended)",
    )
    day = command("day", _close, "Close a day: its figures are fixed, and restated by adjustments only.")
    day.add_argument("action", choices=["close"])
    day.add_argument("day", help="2026-11-21 or yesterday")


def _report(options: argparse.Namespace) -> None:
    _show(options, ask_hub(options, "GET", f"/days/{in_address(options.day)}"))


def _close(options: argparse.Namespace) -> None:
    _show(options, ask_hub(options, "POST", f"/days/{in_address(options.day)}/close", {}))


def _show(options: argparse.Namespace, page: dict[str, Any]) -> None:
    money = money_text(options)
    still = "open" if page["ended"] else "not ended yet"
    closed = still if page["closed_ms"] is None else f"closed {local_time(page['closed_ms'])}"
    say(f"{page['day']}: {page['limits']}, {closed}")
    if not page["terminals"]:
        say("No terminal has taps on this day, and every one has said so.")
        return
    table(
        ["terminal", "taps", "fares", "restated", ""],
        [
            [
                row.name,
                f"{row.closed_taps:,}",
                money(-row.closed_fares_minor),
                money(-row.restated_fares_minor) if _changed(row) else "",
                completeness(row),
            ]
            for row in map(_row, page["terminals"])
        ],
    )
    for silent in [one for row in page["terminals"] for one in _row(row).silent]:
        say(f"  {silent.terminal}: {silence(silent, local_time(silent.heard_ms))},")
        say(f"    or you give it up: farebox-hub ledger give-up {silent.replica}")
    for one in page["adjustments"]:
        change = f"taps {one['taps']:+,}, fares {money(-one['fares_minor'])}"
        say(f"  learnt {local_time(one['learnt_ms'])}: {one['name']} {change}")


def _row(values: dict[str, Any]) -> TerminalDay:
    rows = {
        "gaps": [GapRow(**gap) for gap in values["gaps"]],
        "silent": [SilentRow(**one) for one in values["silent"]],
    }
    return TerminalDay(**{**values, **rows})


def _changed(row: TerminalDay) -> bool:
    return (row.restated_taps, row.restated_fares_minor) != (row.closed_taps, row.closed_fares_minor)
