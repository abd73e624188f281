"""Who may write now: one at a time, and a tap before everything else that waits."""

from __future__ import annotations

import threading
from typing import Final

from crdt.errors import MisuseError

MAX_STREAK: Final = 16  # urgent entries in a row while others wait; then one of those goes first


class Gate:
    """A lock. An urgent thread waits for the current holder, and not for others that wait.

    Except that after MAX_STREAK urgent ones in a row one other goes first: a bus that boards without a pause
    still seals and syncs.
    """

    def __init__(self) -> None:
        self._free = threading.Condition(threading.Lock())
        self._holder = 0  # the thread's identifier, 0 when free
        self._urgent = 0  # urgent threads waiting
        self._others = 0  # others waiting
        self._streak = 0  # urgent entries since the last other, while others waited

    @property
    def urgent_waiting(self) -> bool:
        """Whether a tap waits: the holder should come to an end."""
        return self._urgent > 0

    @property
    def mine(self) -> bool:
        """Whether the calling thread holds the gate."""
        return self._holder == threading.get_ident()

    def enter(self, urgent: bool = False) -> None:
        """Wait for the gate and take it. Raises MisuseError where the calling thread has it already."""
        me = threading.get_ident()
        if self._holder == me:
            raise MisuseError("a write was started from within a write; it would wait for itself")
        with self._free:
            self._count(urgent, 1)
            try:
                while self._holder or not self._is_turn_of(urgent):
                    self._free.wait()
                self._holder = me
            finally:
                self._count(urgent, -1)
            self._streak = self._streak + 1 if urgent and self._others else 0

    def leave(self) -> None:
        """Give the gate back."""
        with self._free:
            self._holder = 0
            self._free.notify_all()

    def _count(self, urgent: bool, change: int) -> None:
        if urgent:
            self._urgent += change
        else:
            self._others += change

    def _is_turn_of(self, urgent: bool) -> bool:
        other_is_due = self._others > 0 and self._streak >= MAX_STREAK
        return not other_is_due if urgent else other_is_due or not self._urgent
