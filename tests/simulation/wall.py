"""The system clock of a terminal."""

from __future__ import annotations


class Wall:
    """The system clock of one terminal, which anything may happen to."""

    def __init__(self, now_ms: int) -> None:
        self.wall_ms = now_ms
        self.elapsed_ms = 0
        self.synchronised_ms: int | None = None

    def pass_time(self, ms: int) -> None:
        """Time passes."""
        self.wall_ms += ms
        self.elapsed_ms += ms
