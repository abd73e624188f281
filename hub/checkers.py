"""Checkers of settings: each takes what the TOML file has, and gives the value or raises ValueError.

The error says what was expected, so that "... must be" goes before it.
"""

from collections.abc import Callable
from pathlib import Path


def whole(lowest: int, highest: int) -> Callable[[object], int]:
    """Checker: an integer within the bounds, both included."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise ValueError(f"a whole number from {lowest} to {highest}")
        return value

    return check


def text(longest: int) -> Callable[[object], str]:
    """Checker: printable text of 1 to `longest` characters."""

    def check(value: object) -> str:
        if not isinstance(value, str) or not 1 <= len(value) <= longest or not value.isprintable():
            raise ValueError(f'text of 1 to {longest} printable characters, such as "depot"')
        return value

    return check


def path(longest_bytes: int) -> Callable[[object], Path]:
    """Checker: a path as a non-empty string."""

    def check(value: object) -> Path:
        fits = isinstance(value, str) and 0 < len(value.encode()) <= longest_bytes
        if not isinstance(value, str) or not fits or "\0" in value:
            raise ValueError(f'a path of at most {longest_bytes} bytes, such as "/var/lib/farebox-hub"')
        return Path(value)

    return check


def optional_path(longest_bytes: int) -> Callable[[object], str]:
    """Checker: a path as a string; empty for none."""
    check = path(longest_bytes)
    return lambda value: "" if value == "" else str(check(value))


def choice(*known: str) -> Callable[[object], str]:
    """Checker: one of the words."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in known:
            raise ValueError("one of " + ", ".join(f'"{word}"' for word in known))
        return value

    return check


def switch(value: object) -> bool:
    """Checker: true or false."""
    if value is not True and value is not False:
        raise ValueError("true or false, without quotes")
    return value


def addresses(value: object) -> tuple[str, ...]:
    """Checker: a list of IP addresses of this machine."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError('a list of addresses in quotes, such as ["192.168.1.10"]')
    return tuple(value)


def host(value: object) -> str:
    """Checker: an address to listen on; empty for all."""
    if not isinstance(value, str) or " " in value:
        raise ValueError('an address in quotes, such as "192.168.1.10", or "" for all')
    return value


def database_url(value: object) -> str:
    """Checker: a database on a server; empty for none."""
    known = ("postgresql://", "mariadb://", "mysql://")
    if not isinstance(value, str) or not (value == "" or value.startswith(known)):
        raise ValueError(f'"", or an address that begins with {", ".join(known)}')
    return value
