"""Commands about blocks that do not count: what they are, what they say, and deciding about them."""

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

from crdt.facts import Kind
from crdt.store.resolutions import ADOPTED
from hub.cli_text import ask_hub, in_address, local_time, money_text, say, table
from hub.daywords import numbers
from hub.errors import SetupError
from hub.kindwords import kind_word

_WHAT_TO_DO: Final = {
    "fork": (
        "fork: the author signed two blocks with these numbers, as after its storage was copied or put back.",
        "  The terminal writes them again by itself when it comes. Only if it never will, book what the",
        "  ledger lacks of them: farebox-hub ledger adopt BLOCK",
    ),
    "replaced": (
        "replaced: an identity that had ended wrote this, of a terminal whose storage was put back. What the",
        "  terminal has lost of it is booked by: farebox-hub ledger adopt BLOCK",
    ),
    "lost": (
        "lost: this hub booked them itself, before it was put back. Compare with the receipts: what was",
        "  booked again by hand counts already. The others: farebox-hub ledger adopt BLOCK",
    ),
    "revoked": (
        "revoked: written after the author's cut-off. Honest taps that came late count after",
        "  farebox-hub terminals accept NAME; a thief's are left here as evidence.",
    ),
}


def what_forks_mean(rows: list[dict[str, Any]]) -> list[str]:
    """What the open ones of these blocks mean for money, and what to do, line by line."""
    open_rows = [row for row in rows if not row["resolution"]]
    if not open_rows:
        return []
    whys = {_why(row) for row in open_rows}
    return [
        "No balance counts the open ones. What one says: farebox-hub ledger show BLOCK",
        *(line for why, lines in _WHAT_TO_DO.items() if why in whys for line in lines),
    ]


def forks(options: argparse.Namespace) -> None:
    """Blocks in quarantine, and flags."""
    found, money = _every_fork(options), money_text(options)
    if not found["blocks"] and not found["flags"]:
        say("No block is in quarantine and no author is flagged.")
        return
    if found["blocks"]:
        _blocks(found["blocks"], money)
    for flag in found["flags"]:
        say(f"{local_time(flag['at_ms'])}  {flag['terminal']}: {flag['sentence'].rstrip('.')};")
        say(f"  once seen to: farebox-hub ledger dismiss {flag['replica']}/{flag['code']}")


def show(options: argparse.Namespace) -> None:
    """The entries of the block that was named."""
    if options.file is None:
        raise SetupError("Say which block: `farebox-hub ledger show BLOCK`, its hash as `forks` shows it.")
    money = money_text(options)
    rows = [
        [
            str(row["seq"]),
            local_time(row["at_ms"]),
            kind_word(Kind[row["kind"].upper()]),
            money(row["amount_minor"]),
            row["card"],
            row["route"],
        ]
        for row in _entries(options)
    ]
    table(["entry", "time", "what", "amount", "card", "route"], rows)


def adopt(options: argparse.Namespace) -> None:
    """Have the hub book what the block that was named says."""
    if options.file is None:
        raise SetupError("Say which block: `farebox-hub ledger adopt BLOCK`, its hash as `forks` shows it.")
    asked = {"block": str(options.file), "others": options.others}
    done = ask_hub(options, "POST", "/ledger/adopt", asked)
    say(f"Booked by the hub now, as the ledger lacked them: {done['entries']:,} of the entries.")
    say("Should their terminal come after all and write them again, the hub takes its own back.")


def dismiss(options: argparse.Namespace) -> None:
    """Take off the flag that was named."""
    if options.file is None:
        raise SetupError("Say which flag: `farebox-hub ledger dismiss FLAG`, as `forks` shows it.")
    replica, _, code = str(options.file).partition("/")
    ask_hub(options, "POST", "/ledger/dismiss", {"replica": replica, "code": code})
    say("The flag is taken off. No entry counts more or less for it; it comes back should it happen again.")


def _blocks(rows: list[dict[str, Any]], money: Callable[[int], str]) -> None:
    table(
        ["author", "entries", "amount", "why", "became", "block"],
        [
            [
                row["terminal"],
                numbers(row["first_seq"], row["last_seq"]),
                money(row["amount_minor"]),
                _why(row),
                _became(row),
                row["block"],
            ]
            for row in rows
        ],
    )
    for line in what_forks_mean(rows):
        say(line)


def _why(row: dict[str, Any]) -> str:
    if row["revoked"]:
        return "revoked"
    return "replaced" if row["replaced"] else "lost" if row["own"] else "fork"


def _became(row: dict[str, Any]) -> str:
    if not row["resolution"]:
        return "open"
    return "booked by the hub" if row["resolution"] == ADOPTED else "in the ledger"


def _every_fork(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Blocks and flags of all pages."""
    every: dict[str, list[dict[str, Any]]] = {"blocks": [], "flags": []}
    for page in itertools.count(1):
        found = ask_hub(options, "GET", f"/ledger/forks?page={page}")
        for name, rows in every.items():
            rows += found[name]
        if not found["more"]:
            break
    return every


def _entries(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Of all pages."""
    for page in itertools.count(1):
        found = ask_hub(options, "GET", f"/ledger/blocks/{in_address(str(options.file))}?page={page}")
        yield from found["entries"]
        if not found["more"]:
            return
