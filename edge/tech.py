"""farebox-tech: what a technician asks of the terminal that runs on this machine, over its control socket."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edge.clock import UNKNOWN_ERROR_MS
from edge.courier_words import exported_all, imported_all, tell_export, tell_import
from edge.errors import INTERRUPTED, ControlError, EdgeError
from edge.local import Json, ask
from edge.settings import load_settings
from edge.tech_courier import SETTLEMENT, export_file, import_file
from edge.tech_output import say, write_anything
from edge.tech_settings import change_settings, show, tell_settings
from edge.words import money

DEFAULT_SETTINGS = Path("/etc/farebox/edge.toml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 refused or not running, 130 stopped by Ctrl-C."""
    write_anything()
    options = _parser().parse_args(arguments)
    try:
        path = options.socket or load_settings(options.settings).control_socket
        answer = options.ask(path, options)
        say(json.dumps(answer, indent=2) + "\n" if options.json else _told(path, options, answer))
    except EdgeError as error:
        sys.stderr.write(f"farebox-tech: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"farebox-tech: {_STOPPED}\n")
        return INTERRUPTED
    return 0 if options.good(answer) else 1


def _told(path: Path, options: argparse.Namespace, answer: Json) -> str:
    try:
        return str(options.tell(answer))
    except (KeyError, TypeError) as error:
        raise ControlError(
            f"What answers at {path} is not a terminal of this version. Name the terminal's own settings with"
            " --settings, or start it again if it was updated."
        ) from error


_STOPPED = (
    "Stopped. The terminal goes on, and may have done it all the same: `farebox-tech status` tells. No file"
    " is left half written, and what was imported before stays."
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="farebox-tech", description=__doc__.partition(": ")[2])
    parser.set_defaults(settings=DEFAULT_SETTINGS, socket=None, json=False)
    _add_shared(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_own_commands(commands)
    _add_settings_commands(commands)
    _add_ledger_commands(commands)
    return parser


def _add_shared(parser: argparse.ArgumentParser) -> None:
    """What may stand before the command or after it: what is not said in one place leaves the other alone."""
    unsaid = argparse.SUPPRESS
    which = f"the terminal's settings file (default: {DEFAULT_SETTINGS})"
    where = "its control socket, instead of looking in the settings"
    parser.add_argument("--settings", type=Path, default=unsaid, help=which)
    parser.add_argument("--socket", type=Path, default=unsaid, help=where)
    parser.add_argument(
        "--json", action="store_true", default=unsaid, help="print the terminal's answer as it is"
    )


def _add_own_commands(commands: Any) -> None:
    """About the terminal itself and whom it reaches."""
    pair = _command(commands, "pair", "pair the terminal with a hub by a one-time code", _pair, tell_status)
    pair.add_argument("code", help="as `farebox-hub invite` shows it")
    pair.add_argument("--hub", default="", help="the hub's address, where it is not found by itself")
    _command(commands, "status", "how the terminal does", _status, tell_status)
    _command(
        commands, "sync", "talk to the hub now", _sync, tell_status, good=lambda said: bool(said["online"])
    )
    _command(commands, "peers", "other terminals it talks to without a hub", _peers, _tell_peers)


def _add_settings_commands(commands: Any) -> None:
    _command(commands, "show", "what is set of the terminal, and what has effect", show, tell_settings)
    change = _command(commands, "set", "set it, also without a hub", change_settings, tell_settings)
    change.add_argument(
        "changes", nargs="+", metavar="NAME=TEXT", help='such as route=12 door=rear notes="new reader"'
    )


def _add_ledger_commands(commands: Any) -> None:
    """About what it holds."""
    card = _command(commands, "card", "what the terminal believes of a card", _card, tell_card)
    card.add_argument("uid", help="the card's number, in hex")
    export = _command(
        commands, "export", "write all it holds into a courier file", export_file, tell_export, exported_all
    )
    export.add_argument("file", type=Path, help="the file to write, on a stick for example")
    export.add_argument(
        "--since",
        default="",
        metavar="FILE",
        help=f'leave out what an earlier courier file says its terminal held; "{SETTLEMENT}" leaves out what'
        " the hub has signed for",
    )
    bring = _command(
        commands, "import", "take the blocks of a courier file", import_file, tell_import, imported_all
    )
    bring.add_argument("file", type=Path, help="the courier file")


def _command(
    commands: Any,
    name: str,
    help_text: str,
    asks: Callable[[Path, argparse.Namespace], Json],
    tells: Callable[[Json], str],
    good: Callable[[Json], bool] = lambda _said: True,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text)
    parser.set_defaults(ask=asks, tell=tells, good=good)
    _add_shared(parser)
    return parser


def _pair(path: Path, options: argparse.Namespace) -> Json:
    return ask(path, "POST", "/pair", {"code": options.code, "hub": options.hub})


def _status(path: Path, _options: argparse.Namespace) -> Json:
    return ask(path, "GET", "/status")


def _sync(path: Path, _options: argparse.Namespace) -> Json:
    return ask(path, "POST", "/sync")


def _card(path: Path, options: argparse.Namespace) -> Json:
    return ask(path, "GET", f"/cards/{quote(options.uid, safe='', errors='replace')}")


def _peers(path: Path, _options: argparse.Namespace) -> Json:
    return ask(path, "GET", "/peers")


def _tell_peers(said: Json) -> str:
    if not said["peers"]:
        return "no other terminal of this fleet is heard on the LAN\n"
    return "".join(
        f"{one['replica'][:8]}  {'this vehicle' if one['companion'] else one['vehicle'] or '-':<16}"
        f" {'online at ' + one['address'] if one['online'] else one['trouble']}\n"
        for one in said["peers"]
    )


_UNPAIRED = "no: `farebox-hub invite` prints a code, `farebox-tech pair CODE` pairs this terminal"
_REVOKED = (
    "REVOKED by an operator. Cards are refused until it is paired anew: `farebox-hub invite` prints a code,"
    " `farebox-tech pair CODE` pairs this terminal. What it had not sent by then waits for the operator."
)
_SUSPENDED = (
    "AN OLD COPY WAS PUT BACK. Taps are taken and kept; at the next sync with the hub they go up under a new"
    " identity by themselves. Nothing to do but to see that the terminal reaches its hub; or, where the hub"
    " refuses it, what uplink says."
)
_ENDED = (
    "ended with its identity, by an operator. Taps that are on it are kept: pair it anew, and they go up;"
    " those that were sealed before are for the operator to review."
)


def tell_status(said: Json) -> str:
    number, position = said["head_seq"], said["position"]
    rows = {
        "terminal": f"{said['name']} (route {said['route'] or '-'}, door {said['door'] or '-'})",
        "paired": f"fleet {said['fleet']}, replica {said['replica']}" if said["paired"] else _UNPAIRED,
        "service": _REVOKED if said["revoked"] else "not revoked",
        "uplink": f"online, hub at {said['hub']}" if said["online"] else f"offline: {said['trouble']}",
        "disputed": said["disputed"] or "nothing",
        "storage": _storage(said),
        "last sync": _time(said["last_sync_at_ms"])
        if said["last_sync_at_ms"]
        else "none since it was started",
        "reader": said["reader"],
        "taps held": f"{said['held']} the hub has not signed for, the newest is number {number}"
        f" (settlement {position})",
        "clock": f"{_time(said['clock']['at_ms'])}, {_error(said['clock']['error_ms'])}",
        "books": "balance" if said["balanced"] else "DO NOT BALANCE: keep this terminal and report it",
        "digest": said["digest"] or "-",
    }
    return "".join(f"{label + ':':<11} {text}\n" for label, text in rows.items())


def _storage(said: Json) -> str:
    """What a revocation suspends is no old copy, and no sync with the hub mends it."""
    if said["revoked"]:
        return _ENDED
    return _SUSPENDED if said["suspended"] else "as this terminal left it"


def tell_card(said: Json) -> str:
    state = "blocked" if said["hotlisted"] else "known" if said["known"] else "not known here"
    if said["overdrawn"]:
        state = "overdrawn, and refused until it is paid"
    lines = [f"card {said['card']}: {state}, balance {_money(said['balance_minor'], said)}\n"]
    lines += [
        f"  {_time(fact['at_ms'])}  {fact['kind']:<10} {_money(fact['amount_minor'], said):>12}"
        f"  number {fact['seq']} of {fact['replica'][:8]}\n"
        for fact in said["history"]
    ]
    return "".join(lines)


def _money(amount_minor: int, said: Json) -> str:
    """In the fleet's currency, once the terminal has heard of it."""
    if not said["currency"]:
        return f"{amount_minor} minor units"
    return money(amount_minor, said["exponent"], said["currency"])


def _error(error_ms: int) -> str:
    if error_ms >= UNKNOWN_ERROR_MS:
        return "not compared with a hub or NTP since it was started"
    return f"at most {error_ms / 1000:.0f} s wrong"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


if __name__ == "__main__":
    sys.exit(main())
