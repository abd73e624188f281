"""Who may write now: one at a time, and a tap before everything else that waits."""

from __future__ import annotations

import threading

from crdt.errors import MisuseError


class Gate:
    """A lock. An urgent thread waits for the current holder only, never for others that wait."""

    def __init__(self) -> None:
        self._free = threading.Condition(threading.Lock())
        self._holder = 0  # the thread's identifier, 0 when free
        self._urgent = 0  # urgent threads waiting

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
            self._urgent += urgent
            try:
                while self._holder or (self._urgent and not urgent):
                    self._free.wait()
                self._holder = me
            finally:
                self._urgent -= urgent

    def leave(self) -> None:
        """Give the gate back."""
        with self._free:
            self._holder = 0
            self._free.notify_all()
