"""Checkers of settings: each takes what the TOML file has, and gives the value or raises ValueError.

The error says what was expected, so that "... must be" goes before it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crdt.facts import MAX_TEXT_BYTES, text_fits
from edge.addresses import HubAddress, parse_address
from hardware.devices import parse_reader_spec
from hardware.errors import BadSpec

MAX_STATE_DIRECTORY_BYTES = 90
"""A Unix socket's path holds 107 bytes on Linux, and control.sock lies in the state directory."""

Checker = Callable[[object, Path], Any]
"""(value from the file, directory of the file) -> the value to use; ValueError(what is expected)."""


def text(least_bytes: int) -> Checker:
    """Checker: text of at least so many bytes, on one line."""

    def check(value: object, _directory: Path) -> str:
        if not isinstance(value, str) or len(value) < least_bytes or not text_fits(value):
            raise ValueError(f"text of {least_bytes} to {MAX_TEXT_BYTES} bytes without control characters")
        return value

    return check


def path(value: object, directory: Path) -> Path:
    """Checker: a path; a relative one counts from the directory of the file."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a path")
    return (directory / value).resolve()


def state_directory(value: object, directory: Path) -> Path:
    """Checker: a path that leaves room for the control socket's name."""
    absolute = path(value, directory)
    if len(bytes(absolute)) > MAX_STATE_DIRECTORY_BYTES:
        raise ValueError(f"a path of at most {MAX_STATE_DIRECTORY_BYTES} bytes, for the control socket in it")
    return absolute


def reader(value: object, _directory: Path) -> str:
    """Checker: how the card reader is connected."""
    expected = '"uart:PATH", "i2c" or "spi:CE0", with ",reset=PIN" where that is wired'
    try:
        parse_reader_spec(value if isinstance(value, str) else "")
    except BadSpec:
        raise ValueError(expected) from None
    return str(value)


def feedback(value: object, _directory: Path) -> str:
    """Checker: where light and sound go."""
    kind = value.partition(",")[0] if isinstance(value, str) else ""
    if kind == "gpio" or value in ("console", "none"):
        return str(value)
    raise ValueError(
        '"gpio" (with ",green=17,red=27,amber=22,buzzer=18" for other pins), "console" or "none"'
    )


def one_of(*choices: str) -> Checker:
    """Checker: one of these texts."""

    def check(value: object, _directory: Path) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError("one of " + ", ".join(f'"{choice}"' for choice in choices))
        return value

    return check


def flag(value: object, _directory: Path) -> bool:
    """Checker: true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004  (a checker's one way to say no)
    return value


def port(value: object, _directory: Path) -> int:
    """Checker: a TCP port to listen at."""
    if type(value) is not int or not 0 <= value <= 65_535:
        raise ValueError("a TCP port from 0 to 65535; 0 is any that is free")
    return value


def seconds(least: float, most: float) -> Checker:
    """Checker: a number of seconds within the bounds, both included."""

    def check(value: object, _directory: Path) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not least <= value <= most:  # type: ignore[operator]  # `number` has just said so
            raise ValueError(f"a number of seconds from {least:g} to {most:g}")
        return float(value)  # type: ignore[arg-type]  # as above

    return check


def hub_address(value: object, _directory: Path) -> HubAddress | None:
    """Checker: an address of the hub, None for ""."""
    if not isinstance(value, str):
        raise ValueError('an address such as "hub.local:8443", or ""')  # noqa: TRY004  (as above)
    return parse_address(value) if value else None


def proxy(value: object, _directory: Path) -> str:
    """Checker: the URL of an HTTP proxy, or ""."""
    expected = 'a URL such as "http://127.0.0.1:3128", or ""'
    try:
        parts = urlsplit(value if isinstance(value, str) else "?")
        usable = value == "" or (parts.scheme == "http" and parts.hostname and parts.port)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(expected)
    return str(value)
