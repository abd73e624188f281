"""`farebox-tech show` and `farebox-tech set`: what technician and hub set of the terminal."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from edge.errors import SettingNotTaken
from edge.local import Json, ask


def show(path: Path, _options: argparse.Namespace) -> Json:
    """What is set."""
    return ask(path, "GET", "/settings")


def change_settings(path: Path, options: argparse.Namespace) -> Json:
    """Set some of it; what is set then. Raises SettingNotTaken or ControlError, and nothing changed."""
    return ask(path, "POST", "/settings", dict(_changes_in(options.changes)))


def tell_settings(said: Json) -> str:
    """A line for each field: what has effect now, where from, and what is different after a new start."""
    lines = [_line(name, said) for name in said["document"]]
    if not said["paired"]:
        lines.append("not paired yet: all is as in the settings file")
    return "".join(f"{line}\n" for line in lines)


def _changes_in(words: Sequence[str]) -> list[tuple[str, str]]:
    """NAME=TEXT, as typed. Raises SettingNotTaken."""
    changes = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise SettingNotTaken(f"{word!r} is no change. Write NAME=TEXT, such as route=12.")
        changes.append((name.strip(), text))
    return changes


def _line(name: str, said: Json) -> str:
    written, used, then = said["document"][name], said["in_use"][name], said["after_start"][name]
    words = [used.replace("\n", "\n" + " " * 9) or "-"]
    if used and used != written:
        words.append("(settings file)")
    if then != used:
        words.append(f"({then} from the next start on)")
    if written and written != then:
        words.append(f"({written} is set, and cannot be used)")
    return f"{name + ':':<9}{'  '.join(words)}"
