"""What the commands of `farebox-hub` share: asking the running hub, and how things are written for people."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any
from urllib.parse import quote

from hub import settings
from hub.control_client import ask
from hub.errors import FileTrouble, SetupError
from hub.fleettext import format_money

BAR_CELLS = 30
REDRAW_S = 0.1


def ask_hub(options: argparse.Namespace, method: str, target: str, body: dict[str, Any] | None = None) -> Any:
    """One request to the running hub; its answer. SetupError when what was typed is no text."""
    _check_text(body)
    return ask(settings.load(options.settings).control_socket, method, target, body)


def in_address(typed: str) -> str:
    """What somebody typed, as a part of a request's address. SetupError when it is no text."""
    _check_text(typed)
    return quote(typed, safe="")


def _check_text(typed: object) -> None:
    try:
        json.dumps(typed, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise SetupError(
            "What you typed is no UTF-8 text, and nothing was asked of the hub. Type it again, in a shell "
            "with LC_ALL=C.UTF-8 for instance."
        ) from None


def money_text(options: argparse.Namespace) -> Callable[[int], str]:
    """How amounts are written, in the fleet's currency."""
    fleet = ask_hub(options, "GET", "/fleet")
    return lambda amount_minor: f"{format_money(amount_minor, fleet['exponent'])} {fleet['currency']}"


def local_time(at_ms: int) -> str:
    """A moment in the zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))


def size_text(size_bytes: int) -> str:
    """A file's size: "2.4 kB", "31.0 MB"."""
    return f"{size_bytes / 1e3:,.1f} kB" if size_bytes < 1e6 else f"{size_bytes / 1e6:,.1f} MB"


def table(titles: list[str], rows: list[list[str]]) -> None:
    """Print columns below their titles."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in [titles, *rows]:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def say(line: str) -> None:
    """Print a line, at once. BrokenPipeError where nobody reads any more, FileTrouble on a full disk."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        close_output()
        raise FileTrouble(
            f"What there is to read cannot be written where it was to go: {error.strerror}. What the hub was "
            "asked for is done."
        ) from error


def write_anything() -> None:
    """Print as an escape what the encoding of the screen lacks, instead of failing at it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def close_output() -> None:
    """Let what is still to be printed go nowhere: Python would try it once more at exit, and complain.

    See "Note on SIGPIPE" in the documentation of Python's `signal`.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Bar:
    """A progress bar on standard error, where a person looks at it; nothing elsewhere."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._live = sys.stderr.isatty()
        self._drawn_s = 0.0

    def show(self, done_bytes: int, total_bytes: int | None) -> None:
        """So much is done; `total_bytes` where it is known."""
        now_s = time.monotonic()
        if not self._live or (now_s - self._drawn_s < REDRAW_S and done_bytes != total_bytes):
            return
        self._drawn_s = now_s
        text = f"{self._what} {done_bytes / 1e6:,.1f} MB"
        if total_bytes:
            cells = BAR_CELLS * done_bytes // total_bytes
            bar = "#" * cells + "." * (BAR_CELLS - cells)
            text = (
                f"{self._what} [{bar}] {100 * done_bytes // total_bytes:3d} % of {total_bytes / 1e6:,.1f} MB"
            )
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()

    def end(self) -> None:
        """Take the bar away."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
