"""Who may write now: one at a time, and a tap before everything else that waits."""

from __future__ import annotations

import threading
from threading import get_ident
from typing import Final

from crdt.errors import MisuseError

MAX_STREAK: Final = 16  # urgent entries in a row while others wait; then one of those goes first


class Gate:
    """A lock. An urgent thread waits for the current holder, and not for others that wait.

    Except that after MAX_STREAK urgent ones in a row one other goes first: a bus that boards without a pause
    still seals and syncs. A free gate is taken and given back without touching the condition variable, which
    would cost a tap twenty times as much.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # the gate itself
        self._changed = threading.Condition(threading.Lock())  # for those who found it taken
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
        return self._holder == get_ident()

    def enter(self, urgent: bool = False) -> None:
        """Wait for the gate and take it. Raises MisuseError where the calling thread has it already."""
        if self._urgent or self._others or not self._lock.acquire(False):
            self._wait(urgent)
        self._holder = get_ident()

    def leave(self) -> None:
        """Give the gate back."""
        self._holder = 0
        self._lock.release()
        # Whoever begins to wait after this line finds the lock free by itself.
        if self._urgent or self._others:
            with self._changed:
                self._changed.notify_all()

    def _wait(self, urgent: bool) -> None:
        if self._holder == get_ident():
            raise MisuseError("a write was started from within a write; it would wait for itself")
        with self._changed:
            self._count(urgent, 1)
            try:
                while not (self._is_turn_of(urgent) and self._lock.acquire(blocking=False)):
                    self._changed.wait()
            finally:
                self._count(urgent, -1)
                self._changed.notify_all()  # whose turn it is may depend on who waits
        self._streak = self._streak + 1 if urgent and self._others else 0

    def _count(self, urgent: bool, change: int) -> None:
        if urgent:
            self._urgent += change
        else:
            self._others += change

    def _is_turn_of(self, urgent: bool) -> bool:
        if urgent:
            return not (self._others and self._streak >= MAX_STREAK)
        return not self._urgent or self._streak >= MAX_STREAK
