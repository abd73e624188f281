"""Keeps a hub's marks beside its ledger: at once for its own facts, within a second for everybody else's."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from typing import Final, Protocol

from crdt.errors import StoreFailed
from crdt.frontier import Frontier
from crdt.store.marks import Marks

INTERVAL_S: Final = 1.0  # how long a mark of somebody else's chain may lag

_log = logging.getLogger(__name__)


class Keeper(Protocol):
    """Whoever writes marks down. Any thread may call; nothing waits for the disk but `close`."""

    def note(self, heads: Frontier) -> None:
        """These are durable in the database; mark them soon."""

    def secure(self, heads: Frontier) -> Future[None]:
        """These are durable in the database; done once they are marked. Fails with StoreFailed."""

    def close(self) -> None:
        """Mark what was noted, and end."""


class MarkKeeper:
    """Saves marks on a thread of its own; those who wait at the same time share a save."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._condition = threading.Condition()
        self._due_s: float | None = None  # by the monotonic clock: when what was noted has to be saved
        self._waiting: list[Future[None]] = []
        self._closed = False
        self._told = False
        self._thread = threading.Thread(target=self._run, name="ledger-marks", daemon=True)
        self._thread.start()

    def note(self, heads: Frontier) -> None:
        """See Keeper."""
        self._marks.advance(heads)
        with self._condition:
            if self._due_s is None:
                self._due_s = time.monotonic() + INTERVAL_S
                self._condition.notify()

    def secure(self, heads: Frontier) -> Future[None]:
        """See Keeper."""
        self._marks.advance(heads)
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        with self._condition:
            if self._closed:
                future.set_exception(StoreFailed("The ledger was closed; what was booked is in it."))
            else:
                self._waiting.append(future)
                self._condition.notify()
        return future

    def close(self) -> None:
        """See Keeper. Idempotent."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            with self._condition:
                self._condition.wait_for(self._has_work, self._patience_s())
                ended = self._closed
                due = self._due_s is not None and (ended or time.monotonic() >= self._due_s)
                waiting, self._waiting = self._waiting, []
                if due:
                    self._due_s = None
            if due or waiting:
                self._save(waiting)

    def _has_work(self) -> bool:
        return self._closed or bool(self._waiting)

    def _patience_s(self) -> float | None:
        return None if self._due_s is None else max(0.0, self._due_s - time.monotonic())

    def _save(self, waiting: list[Future[None]]) -> None:
        try:
            self._marks.save()
        except StoreFailed as error:
            self._failed(error, waiting)
        else:
            self._told = False
            for future in waiting:
                future.set_result(None)

    def _failed(self, error: StoreFailed, waiting: list[Future[None]]) -> None:
        if not self._told:
            _log.error("%s The hub's own bookings fail until it can be written.", error)  # noqa: TRY400 - a sentence for people
        self._told = True
        with self._condition:
            self._due_s = time.monotonic() + INTERVAL_S
        for future in waiting:
            future.set_exception(error)


class InlineKeeper:
    """Saves marks on the thread that calls: for a ledger on an `InlineDatabase`."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    def note(self, heads: Frontier) -> None:
        """See Keeper. Marked with the next `secure`, `tick` or `close`."""
        self._marks.advance(heads)

    def secure(self, heads: Frontier) -> Future[None]:
        """See Keeper."""
        self._marks.advance(heads)
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        try:
            self._marks.save()
        except StoreFailed as error:
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    def tick(self) -> None:
        """A second has passed. Raises StoreFailed."""
        self._marks.save()

    def close(self) -> None:
        """See Keeper."""
        self._marks.save()
