"""`farebox-hub terminals show NAME` and `terminals set NAME ROUTE=12 ...`: what is set of a terminal."""

import argparse
from typing import Any

from hub.cli_text import ask_hub, in_address, say
from hub.errors import SetupError

TARGET = "/terminals/settings"


def show(options: argparse.Namespace) -> None:
    """Print them."""
    _tell(ask_hub(options, "GET", f"{TARGET}?terminal={in_address(_named(options))}"))


def change(options: argparse.Namespace) -> None:
    """Change some, and print them."""
    changes = dict(map(_change, options.changes))
    if not changes:
        raise SetupError(
            f"Say what to set: `farebox-hub terminals set {_named(options)!r} route=12 door=rear`."
        )
    _tell(ask_hub(options, "POST", TARGET, {"terminal": _named(options), "changes": changes}))


def _named(options: argparse.Namespace) -> str:
    if not options.terminal:
        raise SetupError(f"Say which terminal: `farebox-hub terminals {options.action} NAME`.")
    return str(options.terminal)


def _change(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SetupError(f"{text!r} is not a change. Write NAME=TEXT, such as route=12.")
    return name.strip(), value


def _tell(view: dict[str, Any]) -> None:
    for name, text in view["values"].items():
        words = [text.replace("\n", "\n" + " " * 9) or "-"]
        used = view["used"].get(name)
        if not text and used:
            words.append(f"(the terminal uses {used})")
        if name in view["waiting"]:
            words.append(f"(not fetched yet: the terminal has {view['fetched'][name] or 'none'})")
        say(f"{name + ':':<9}{'  '.join(words)}")
    if view["waiting"]:
        say(f"{view['name']} fetches what is new when it next syncs.")
