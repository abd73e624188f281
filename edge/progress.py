"""A progress bar on a terminal; nothing where the output is no terminal."""

import sys
from typing import TextIO

BAR_CHARS = 30


class Progress:
    """Shows how much of `total` is done, in `unit`. Use it in a `with`."""

    def __init__(self, label: str, total: int, unit: str, out: TextIO | None = None) -> None:
        self._out = sys.stderr if out is None else out
        self._shows = self._out.isatty()
        self._label = label
        self._total = max(1, total)
        self._unit = unit
        self._shown = -1

    def __enter__(self) -> "Progress":
        self.at(0)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._shows:
            self._out.write("\n")

    def at(self, done: int) -> None:
        """So much is done now."""
        percent = min(100, 100 * done // self._total)
        if self._shows and percent != self._shown:
            self._shown = percent
            bar = "#" * (BAR_CHARS * percent // 100)
            amount = f"{done:,} of {self._total:,} {self._unit}"
            self._out.write(f"\r{self._label} [{bar:<{BAR_CHARS}}] {percent:3} %  {amount}")
            self._out.flush()
