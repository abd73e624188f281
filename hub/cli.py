"""The command line, `farebox-hub`: every error is one sentence on standard error and exit status 1."""

import argparse
import getpass
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from crdt.errors import StoreError
from hub import app, founding, settings
from hub.control_client import ask
from hub.errors import HubError, SetupError
from hub.fleettext import format_money

PASSWORD_VARIABLE = "FAREBOX_OPERATOR_PASSWORD"  # noqa: S105  (the variable's name)
MAX_PASSWORD_FILE_BYTES = 4096


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["demo"]:
        return _demo(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        run: Callable[[argparse.Namespace], None] = options.run
        run(options)
    except (HubError, StoreError) as error:
        sys.stderr.write(f"farebox-hub: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _demo(arguments: list[str]) -> int:
    # Imported only when asked for: a production hub has no use for three buses and a stage.
    from hub.demo import main as demo

    return demo(arguments)


Command = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]


def _parser() -> argparse.ArgumentParser:
    places = founding.default_places(os.geteuid(), Path.home())
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--settings", type=Path, default=places.settings, help="the settings file (default: %(default)s)"
    )
    parser = argparse.ArgumentParser(prog="farebox-hub", description="The Farebox hub in the depot.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], None], help_text: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[shared], help=help_text, description=help_text)
        added.set_defaults(run=run)
        return added

    init = command("init", _init, "Found a fleet: settings, keys, ledger and the operator's password.")
    init.add_argument("--state-directory", type=Path, default=places.state_directory)
    init.add_argument("--key-file", type=Path, default=places.key_file)
    init.add_argument("--port", type=int, default=None, help="HTTPS port, if not 8443")
    _add_password(init)
    command("run", _run, "Serve terminals and operators until stopped.")
    _add_operations(command)
    # Listed here for --help; `main` hands its arguments on.
    commands.add_parser("demo", help="A hub and three buses on this machine, to play with.", add_help=False)
    return parser


def _add_operations(command: Command) -> None:
    """The commands that ask the running hub."""
    command("invite", _invite, "Print a one-time code that pairs one terminal.")
    cards = command("cards", _cards, "List cards, show one with its history, block or unblock it.")
    cards.add_argument("action", nargs="?", choices=["list", "show", "block", "unblock"], default="list")
    cards.add_argument("card", nargs="?", default="", help="the card's id in hex; with list: where to start")
    topup = command("topup", _topup, "Put money on a card.")
    topup.add_argument("card", help="the card's id in hex")
    topup.add_argument("amount", help="such as 12.50")
    topup.add_argument("--request", default="", help="an id of your own; the same id books once only")
    terminals = command("terminals", _terminals, "List terminals, or revoke one.")
    terminals.add_argument("action", nargs="?", choices=["list", "revoke"], default="list")
    terminals.add_argument("terminal", nargs="?", default="", help="its name or id")
    fleet = command("fleet", _fleet, "Show or change fares and policy.")
    fleet.add_argument("action", nargs="?", choices=["show", "set"], default="show")
    example = 'flat_fare=2.50, "route_fares=7=1.80,Airport=4.20", ...'
    fleet.add_argument("changes", nargs="*", metavar="NAME=VALUE", help=example)
    _add_password(command("password", _password, "Set a new operator's password."))


def _add_password(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-file",
        type=Path,
        default=None,
        help=f"a file whose first line is the password; or set {PASSWORD_VARIABLE}; else it is asked for",
    )


def _init(options: argparse.Namespace) -> None:
    places = founding.Places(options.settings, options.state_directory, options.key_file)
    chosen = founding.write_settings(places, options.port)
    authority = founding.found(chosen, _read_password(options), os.environ)
    root = founding.write_root(places, authority)
    _say(f"The fleet {authority.fleet.hex()} is founded.")
    _say(f"  settings  {options.settings}")
    _say(f"  ledger    {chosen.database}")
    _say(f"  key       {chosen.key_file}  (keep a copy elsewhere: without it nobody reads the ledger)")
    _say(f"  root      {root}  (browsers that import it trust the hub without a warning)")
    default = founding.default_places(os.geteuid(), Path.home()).settings
    option = "" if places.settings == default else f" --settings {places.settings}"
    _say(f"Next: `farebox-hub run{option}`, then open https://localhost:{chosen.port}/ and sign in.")
    _say(f"`farebox-hub invite{option}` prints a code that pairs a terminal.")


def _run(options: argparse.Namespace) -> None:
    app.run(settings.load(options.settings), os.environ, _say)


def _invite(options: argparse.Namespace) -> None:
    invite = _ask(options, "POST", "/invite", {})
    minutes = max(1, round((invite["expires_at_ms"] / 1000 - time.time()) / 60))
    _say(invite["code"])
    _say(f"Good for one terminal and {minutes} minutes: `farebox-tech pair {invite['code']}` on the bus.")


def _cards(options: argparse.Namespace) -> None:
    if options.action == "list":
        money = _money(options)
        rows = _ask(options, "GET", f"/cards?after={quote(options.card, safe='')}")
        _table(
            ["card", "balance", ""],
            [
                [row["card"], money(row["balance_minor"]), "blocked" if row["hotlisted"] else ""]
                for row in rows
            ],
        )
        return
    if not options.card:
        raise SetupError(f"Say which card: `farebox-hub cards {options.action} CARD`, its id in hex.")
    target = f"/cards/{quote(options.card, safe='')}"
    if options.action == "show":
        _show_card(_ask(options, "GET", target), _money(options))
    else:
        _ask(options, "POST", f"{target}/{options.action}", {})
        _say(f"{options.card} is {options.action}ed; terminals hear of it with their next sync.")


def _show_card(card: dict[str, Any], money: Callable[[int], str]) -> None:
    known = "" if card["known"] else "  (no ledger entry mentions it)"
    blocked = "  BLOCKED" if card["hotlisted"] else ""
    _say(f"{card['card']}  {money(card['balance_minor'])}{blocked}{known}")
    rows = [
        [_local_time(row["at_ms"]), row["kind"], money(row["amount_minor"]), row["terminal"], row["route"]]
        for row in card["history"]
    ]
    _table(["time", "what", "amount", "where", "route"], rows)


def _topup(options: argparse.Namespace) -> None:
    request = options.request or secrets.token_hex(16)
    body = {"card": options.card, "amount": options.amount, "request": request}
    booking = _ask(options, "POST", "/topup", body)
    money = _money(options)
    done = "had been booked before; nothing was added" if booking["repeated"] else "booked"
    amount, balance = money(booking["amount_minor"]), money(booking["balance_minor"])
    _say(f"{amount} on {booking['card']} {done}. Balance {balance}.")


def _terminals(options: argparse.Namespace) -> None:
    if options.action == "revoke":
        if not options.terminal:
            raise SetupError("Say which terminal: `farebox-hub terminals revoke NAME`.")
        name = _ask(options, "POST", "/terminals/revoke", {"terminal": options.terminal})["name"]
        _say(f"{name} is revoked. Its taps up to now stay; pairing it again brings it back.")
        return
    rows = [
        [row["name"], _standing(row), _seen(row), _number(row["held"]), str(row["head_seq"]), row["terminal"]]
        for row in _ask(options, "GET", "/terminals")
    ]
    _table(["name", "state", "last seen", "held", "head", "id"], rows)


def _fleet(options: argparse.Namespace) -> None:
    if options.action == "set":
        changes = dict(_change(text) for text in options.changes)
        view = _ask(options, "POST", "/fleet", changes)
    else:
        view = _ask(options, "GET", "/fleet")
    for name, value in view["values"].items():
        _say(f"{name} = {', '.join(value.splitlines())}")
    _say(f"(version {view['version']})")


def _password(options: argparse.Namespace) -> None:
    _ask(options, "POST", "/password", {"password": _read_password(options)})
    _say("The operator's password is changed; everybody has to sign in again.")


def _change(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SetupError(f"{text!r} is not a change. Write NAME=VALUE, such as flat_fare=2.50.")
    return name.strip(), value.replace(",", "\n") if name.strip() == "route_fares" else value


def _read_password(options: argparse.Namespace) -> str:
    if options.password_file is not None:
        try:
            with options.password_file.open(encoding="utf-8") as file:
                return str(file.readline(MAX_PASSWORD_FILE_BYTES)).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(f"The password file {options.password_file} cannot be read: {error}.") from error
    if given := os.environ.get(PASSWORD_VARIABLE):
        return given
    if not sys.stdin.isatty():
        raise SetupError(
            f"There is no terminal to ask for a password. Use --password-file or {PASSWORD_VARIABLE}."
        )
    first = getpass.getpass("Password for the operator: ")
    if getpass.getpass("Once more: ") != first:
        raise SetupError("The two passwords differ. Run the command again.")
    return first


def _ask(options: argparse.Namespace, method: str, target: str, body: dict[str, Any] | None = None) -> Any:
    return ask(settings.load(options.settings).control_socket, method, target, body)


def _money(options: argparse.Namespace) -> Callable[[int], str]:
    fleet = _ask(options, "GET", "/fleet")
    return lambda amount_minor: f"{format_money(amount_minor, fleet['exponent'])} {fleet['currency']}"


def _standing(row: dict[str, Any]) -> str:
    return "revoked" if row["revoked"] else "online" if row["online"] else "offline"


def _seen(row: dict[str, Any]) -> str:
    return "never" if row["last_seen_ms"] is None else _local_time(row["last_seen_ms"])


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _local_time(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))


def _table(titles: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in [titles, *rows]:
        _say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
