"""The command line, `farebox-hub`: every error is one sentence on standard error and exit status 1."""

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from crdt.errors import StoreError
from hub import cli_days, cli_ledger, cli_operate, settings
from hub.cli_text import ask_hub, close_output, say, write_anything
from hub.errors import INTERRUPTED, HubError, SetupError, Stopped
from hub.importing import importing
from hub.places import Places, default_places

PASSWORD_VARIABLE = "FAREBOX_OPERATOR_PASSWORD"  # noqa: S105  (the variable's name)
MAX_PASSWORD_FILE_BYTES = 4096


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    write_anything()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["demo"]:
            return _demo(arguments[1:])
        options = _parser().parse_args(arguments)
        run: Callable[[argparse.Namespace], None] = options.run
        run(options)
    except (HubError, StoreError) as error:
        sys.stderr.write(f"farebox-hub: {error}\n")
        return INTERRUPTED if isinstance(error, Stopped) else 1
    except KeyboardInterrupt:
        sys.stderr.write("farebox-hub: Stopped.\n")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read it, such as `head`, has read enough
        close_output()
        return 1
    return 0


def _demo(arguments: list[str]) -> int:
    # Imported only when asked for: a production hub has no use for three buses and a stage.
    with importing():
        from hub.demo import main as demo

    return demo(arguments)


def _parser() -> argparse.ArgumentParser:
    places = default_places(os.geteuid(), Path.home())
    parser = argparse.ArgumentParser(prog="farebox-hub", description="The Farebox hub in the depot.")
    # Before the command or after it: what is not said there leaves alone what was said here.
    shared = argparse.ArgumentParser(add_help=False)
    which = f"the settings file (default: {places.settings})"
    parser.add_argument("--settings", type=Path, default=places.settings, help=which)
    shared.add_argument("--settings", type=Path, default=argparse.SUPPRESS, help=which)
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
    cli_operate.add(command)
    cli_ledger.add(command)
    cli_days.add(command)
    _add_password(command("password", _password, "Set a new operator's password."))
    # Listed here for --help; `main` hands its arguments on.
    demo = commands.add_parser(
        "demo", help="A hub and three buses on this machine, to play with.", add_help=False
    )
    demo.set_defaults(run=_no_settings)
    return parser


def _add_password(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-file",
        type=Path,
        default=None,
        help=f"a file whose first line is the password; or set {PASSWORD_VARIABLE}; else it is asked for",
    )


def _init(options: argparse.Namespace) -> None:
    # Imported only when asked for, here and in `_run`: the other commands ask the running hub, need nothing
    # of what it consists of, and are typed on a Pi.
    with importing():
        from hub import founding
        from hub.ledger_place import ledger_place

    places = Places(options.settings, options.state_directory, options.key_file)
    chosen = founding.write_settings(places, options.port)
    authority = founding.found(chosen, _read_password(options), os.environ)
    root = founding.write_root(places, authority)
    say(f"The fleet {authority.fleet.hex()} is founded.")
    say(f"  settings  {options.settings}")
    say(f"  ledger    {ledger_place(chosen)}")
    say(f"  key       {chosen.key_file}  (keep a copy elsewhere: without it nobody reads the ledger)")
    say(f"  root      {root}  (browsers that import it trust the hub without a warning)")
    default = default_places(os.geteuid(), Path.home()).settings
    option = "" if places.settings == default else f" --settings {places.settings}"
    say(f"Next: `farebox-hub run{option}`, then open https://localhost:{chosen.port}/ and sign in.")
    say(f"`farebox-hub invite{option}` prints a code that pairs a terminal.")


def _no_settings(_options: argparse.Namespace) -> None:
    raise SetupError("The demo makes settings of its own: `farebox-hub demo`, without --settings.")


def _run(options: argparse.Namespace) -> None:
    chosen = settings.load(options.settings)
    with importing():
        from hub import app

    app.run(chosen, os.environ, say)


def _password(options: argparse.Namespace) -> None:
    ask_hub(options, "POST", "/password", {"password": _read_password(options)})
    say("The operator's password is changed; everybody has to sign in again.")


def _read_password(options: argparse.Namespace) -> str:
    if options.password_file is not None:
        try:
            with options.password_file.open(encoding="utf-8") as file:
                return str(file.readline(MAX_PASSWORD_FILE_BYTES)).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise SetupError(f"The password file {options.password_file} cannot be read: {why}.") from error
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
