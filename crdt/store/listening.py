"""Whoever hears of changes to a ledger as they happen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from crdt.store.recording import Change

_log = logging.getLogger(__name__)


class Listeners:
    """Some listeners. Any thread may use it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._listeners: list[Callable[[Change], None]] = []

    def add(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` with every change from now on; returns how to stop."""
        with self._mutex:
            self._listeners = [*self._listeners, listener]

        def stop() -> None:
            with self._mutex:
                self._listeners = [other for other in self._listeners if other is not listener]

        return stop

    def tell(self, change: Change) -> None:
        """Tell all of them. One that fails is in the log, and harms nobody."""
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:
                _log.exception("a listener of the ledger failed")
