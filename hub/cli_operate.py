"""Commands of every day: pair a terminal, cards and their money, terminals, fares."""

import argparse
import secrets
import time
from collections.abc import Callable
from typing import Any

from crdt.facts import Kind
from hub import cli_settings
from hub.cli_text import ask_hub, in_address, local_time, money_text, say, table
from hub.errors import SetupError
from hub.kindwords import kind_word
from hub.terminal_row import TerminalRow
from hub.terminalwords import by_urgency, remarks, terminal_state

Command = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]


def add(command: Command) -> None:
    """Put these commands into the parser."""
    command("invite", _invite, "Print a one-time code that pairs one terminal.")
    cards = command("cards", _cards, "List cards, show one with its history, block or unblock it.")
    cards.add_argument("action", nargs="?", choices=["list", "show", "block", "unblock"], default="list")
    cards.add_argument("card", nargs="?", default="", help="the card's id in hex; with list: where to start")
    topup = command("topup", _topup, "Put money on a card.")
    topup.add_argument("card", help="the card's id in hex")
    topup.add_argument("amount", help="such as 12.50")
    topup.add_argument("--request", default="", help="an id of your own; the same id books once only")
    terminals = command(
        "terminals", _terminals, "List terminals, show or set one, revoke it, accept its own."
    )
    actions = ["list", "show", "set", "revoke", "accept"]
    terminals.add_argument("action", nargs="?", choices=actions, default="list")
    terminals.add_argument("terminal", nargs="?", default="", help="its name or id")
    terminals.add_argument("changes", nargs="*", metavar="NAME=TEXT", help="such as route=12 door=rear")
    terminals.add_argument(
        "--cut-off",
        type=int,
        default=None,
        metavar="SEQ",
        help="the last entry that counts; without it all that the hub has now",
    )
    fleet = command("fleet", _fleet, "Show or change fares and policy.")
    fleet.add_argument("action", nargs="?", choices=["show", "set"], default="show")
    example = 'flat_fare=2.50, "route_fares=7=1.80,Airport=4.20", ...'
    fleet.add_argument("changes", nargs="*", metavar="NAME=VALUE", help=example)


def _invite(options: argparse.Namespace) -> None:
    invite = ask_hub(options, "POST", "/invite", {})
    minutes = max(1, round((invite["expires_at_ms"] / 1000 - time.time()) / 60))
    say(invite["code"])
    say(f"Good for one terminal and {minutes} minutes: `farebox-tech pair {invite['code']}` on the bus.")


def _cards(options: argparse.Namespace) -> None:
    if options.action == "list":
        money = money_text(options)
        rows = ask_hub(options, "GET", f"/cards?after={in_address(options.card)}")
        table(
            ["card", "balance", ""],
            [[row["card"], money(row["balance_minor"]), ", ".join(_refused(row))] for row in rows],
        )
        return
    if not options.card:
        raise SetupError(f"Say which card: `farebox-hub cards {options.action} CARD`, its id in hex.")
    target = f"/cards/{in_address(options.card)}"
    if options.action == "show":
        _show_card(ask_hub(options, "GET", target), money_text(options))
    else:
        ask_hub(options, "POST", f"{target}/{options.action}", {})
        say(f"{options.card} is {options.action}ed; terminals hear of it with their next sync.")
        if "overdrawn" in _refused(ask_hub(options, "GET", target)):
            say("It is overdrawn: terminals refuse it until a top-up has paid that, blocked or not.")


def _show_card(card: dict[str, Any], money: Callable[[int], str]) -> None:
    known = "" if card["known"] else "  (no ledger entry mentions it)"
    blocked = "".join(f"  {word.upper()}" for word in _refused(card))
    say(f"{card['card']}  {money(card['balance_minor'])}{blocked}{known}")
    rows = [
        [
            local_time(row["at_ms"]),
            kind_word(Kind[row["kind"].upper()]),
            money(row["amount_minor"]),
            row["terminal"],
            row["route"],
        ]
        for row in card["history"]
    ]
    table(["time", "what", "amount", "where", "route"], rows)


def _refused(card: dict[str, Any]) -> list[str]:
    """Why terminals refuse a card: by an operator's word, and by themselves until it is paid."""
    return [word for word in ("blocked", "overdrawn") if card[word]]


def _topup(options: argparse.Namespace) -> None:
    request = options.request or secrets.token_hex(16)
    body = {"card": options.card, "amount": options.amount, "request": request}
    booking = ask_hub(options, "POST", "/topup", body)
    money = money_text(options)
    done = "had been booked before; nothing was added" if booking["repeated"] else "booked"
    amount, balance = money(booking["amount_minor"]), money(booking["balance_minor"])
    say(f"{amount} on {booking['card']} {done}. Balance {balance}.")
    if not booking["repeated"]:
        say("Terminals know it after their next contact with the hub, within half a minute when online.")


def _terminals(options: argparse.Namespace) -> None:
    other = {"show": cli_settings.show, "set": cli_settings.change, "revoke": _stop, "accept": _stop}
    if options.action != "list":
        other[options.action](options)
        return
    clock_ms = time.time_ns() // 1_000_000
    rows = [TerminalRow(**row) for row in ask_hub(options, "GET", "/terminals")]
    if not rows:
        say("No terminal is paired yet: `farebox-hub invite` prints a code.")
        return
    rows.sort(key=lambda row: by_urgency(row, clock_ms))
    titles = ["name", "route", "state", "last seen", "held taps", "last entry", "id"]
    table(titles, [_terminal(row, clock_ms) for row in rows])
    for row in rows:
        for remark in remarks(row):
            say(f"{row.name}: {remark.text} {local_time(remark.at_ms)}. {remark.advice}")


def _stop(options: argparse.Namespace) -> None:
    """Revoke a terminal, or accept what it wrote after it was revoked."""
    if not options.terminal:
        raise SetupError(f"Say which terminal: `farebox-hub terminals {options.action} NAME`.")
    body = {"terminal": options.terminal, "cut_off": options.cut_off}
    done = ask_hub(options, "POST", f"/terminals/{options.action}", body)
    if options.action == "accept":
        say(f"What {done['name']} wrote counts up to:")
    else:
        say(f"{done['name']} is revoked, and every terminal hears of it. What it wrote counts up to:")
    for replica, seq in done["cut_offs"].items():
        say(f"  entry {seq:,} of {replica}" if seq else f"  nothing of {replica}")
    _say_what_is_to_come(options, done["name"])
    say("Later entries that still turn up lie in quarantine and change no balance. To count them after all:")
    say(f"`farebox-hub terminals accept {done['name']!r}`. Pairing it again brings the terminal back.")


def _say_what_is_to_come(options: argparse.Namespace, name: str) -> None:
    """A cut-off beyond what the hub holds trusts whoever has the terminal; a slip of a digit does, too."""
    rows = ask_hub(options, "GET", "/terminals")
    held_seq = next((row["head_seq"] for row in rows if row["name"] == name), 0)
    if options.cut_off is not None and options.cut_off > held_seq:
        say(f"The hub holds {held_seq} of the last one. Later ones up to {options.cut_off} count as they")
        say("come, whoever has the terminal now. If they should not, give the cut-off again, lower.")


def _fleet(options: argparse.Namespace) -> None:
    if options.action == "set":
        changes = dict(_change(text) for text in options.changes)
        if not changes:
            raise SetupError("Say what to set: `farebox-hub fleet set flat_fare=2.50`.")
        view = ask_hub(options, "POST", "/fleet", changes)
    else:
        view = ask_hub(options, "GET", "/fleet")
    for name, value in view["values"].items():
        say(f"{name} = {', '.join(value.splitlines())}")
    say(f"(version {view['version']})")


def _change(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SetupError(f"{text!r} is not a change. Write NAME=VALUE, such as flat_fare=2.50.")
    return name.strip(), value.replace(",", "\n") if name.strip() == "route_fares" else value


def _terminal(row: TerminalRow, clock_ms: int) -> list[str]:
    """Its line in the list."""
    state = terminal_state(row, clock_ms)
    return [
        row.name,
        row.route or "-",
        f"{state.text} ({state.detail})" if state.detail else state.text,
        "never" if row.last_seen_ms is None else local_time(row.last_seen_ms),
        "?" if row.held is None else f"{row.held:,}",
        f"{row.head_seq:,}",
        row.terminal,
    ]
