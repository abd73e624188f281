"""Commands about the ledger as a whole: files out of it and into it; what does not count, what is missing."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hub import cli_files, cli_forks
from hub.cli_operate import Command
from hub.cli_text import ask_hub, local_time, say, table
from hub.daywords import numbers, silence
from hub.errors import SetupError
from hub.silent_row import SilentRow


def add(command: Command) -> None:
    """Put these commands into the parser."""
    backup = command("backup", cli_files.backup, "Copy the ledger, encrypted, while the hub runs.")
    backup.add_argument("file", type=Path, help="where to; it must not be there yet")
    ledger = command("ledger", _ledger, "Courier files in and out; what does not count, and what is missing.")
    ledger.add_argument("action", choices=["import", "export", *_ABOUT])
    ledger.add_argument(
        "file",
        type=Path,
        nargs="?",
        help="the courier file; with show and adopt: the hash of the block, with dismiss: the flag, as "
        "`forks` shows them; with give-up: the replica, as `waiting` shows it",
    )
    ledger.add_argument(
        "--others",
        action="store_true",
        help="with adopt: also every other block of the same author that is open",
    )


def what_waiting_means(rows: list[dict[str, Any]]) -> list[str]:
    """What missing entries mean for money and days, and what to do, line by line."""
    lines = ["No balance counts these yet. They come with any terminal or courier file that has them."]
    if any(row["own"] for row in rows):
        lines += [
            "Those of the hub are top-ups, refunds and adjustments that it booked before it was put back.",
            "Wait until all buses have been in before you book one of them again: else both count.",
        ]
    if any(map(_unproven, rows)):
        lines.append("Unproven is the word of another terminal alone: no day waits for it.")
    return lines


def _ledger(options: argparse.Namespace) -> None:
    if options.action in _ABOUT:
        _ABOUT[options.action](options)
        return
    if options.file is None:
        raise SetupError(f"Say which file: `farebox-hub ledger {options.action} FILE`.")
    (cli_files.export if options.action == "export" else cli_files.import_)(options)


def _give_up(options: argparse.Namespace) -> None:
    if options.file is None:
        raise SetupError("Say whose: `farebox-hub ledger give-up REPLICA`, as `waiting` shows it.")
    ask_hub(options, "POST", "/ledger/give-up", {"replica": str(options.file)})
    say("No longer waited for, nor what is unproven of it.")
    say("Should entries of it turn up after all, they are taken and count.")


def _waiting(options: argparse.Namespace) -> None:
    rows = ask_hub(options, "GET", "/ledger/waiting")
    silent = [SilentRow(**one) for one in ask_hub(options, "GET", "/ledger/silent")]
    if rows:
        _missing(rows)
    elif not silent:
        say("Nothing is missing: every entry that anybody has named is here.")
    for one in silent:
        say(f"{one.terminal}: {silence(one, local_time(one.heard_ms))},")
        say(f"  or you give it up: farebox-hub ledger give-up {one.replica}")


def _missing(rows: list[dict[str, Any]]) -> None:
    table(
        ["author", "entries", "named by", "", "since", "replica"],
        [
            [
                row["terminal"],
                numbers(row["first_seq"], row["last_seq"]),
                row["source"],
                _unproven(row),
                local_time(row["since_ms"]),
                row["replica"],
            ]
            for row in rows
        ],
    )
    for line in what_waiting_means(rows):
        say(line)


def _unproven(row: dict[str, Any]) -> str:
    """What of it is the word of another terminal alone."""
    if not row["proven"]:
        return "unproven"
    return f"and up to {row['claimed_seq']:,} unproven" if row["claimed_seq"] else ""


_ABOUT: Final[dict[str, Callable[[argparse.Namespace], None]]] = {
    "forks": cli_forks.forks,
    "show": cli_forks.show,
    "adopt": cli_forks.adopt,
    "dismiss": cli_forks.dismiss,
    "waiting": _waiting,
    "give-up": _give_up,
}
