"""Whoever hears of changes as they happen: of those to a ledger, or that another process made some."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, ParamSpec

P = ParamSpec("P")

_log = logging.getLogger(__name__)


class Listeners(Generic[P]):
    """Some listeners. Any thread may use it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._listeners: list[Callable[P, None]] = []

    def add(self, listener: Callable[P, None]) -> Callable[[], None]:
        """Call `listener` with all that is told from now on; returns how to stop."""
        with self._mutex:
            self._listeners = [*self._listeners, listener]

        def stop() -> None:
            with self._mutex:
                self._listeners = [other for other in self._listeners if other is not listener]

        return stop

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell all of them. One that fails is in the log, and harms nobody."""
        for listener in self._listeners:
            try:
                listener(*args, **kwargs)
            except Exception:
                _log.exception("a listener of the ledger failed")
