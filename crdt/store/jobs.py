"""The bounded queue of work for the writer and reader threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from sqlalchemy import Connection

from crdt.errors import Overloaded, StoreFailed

MAX_PENDING: Final = 1024  # jobs of one rank


class Rank(IntEnum):
    """In which order waiting jobs are taken; within a rank, first come first served."""

    URGENT = 0
    NORMAL = 1
    BACKGROUND = 2  # only when nothing else waits; dropped when the database closes


def nothing(_result: Any) -> None:
    """Where nothing is to be done after a job."""


@dataclass(slots=True)
class Job:
    """`work` runs in a transaction (unless `plain`), `after` gets its result once that is durable."""

    rank: Rank
    work: Callable[[Connection], Any]
    after: Callable[[Any], None] = nothing
    plain: bool = False
    future: Future[Any] = field(default_factory=Future)
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        """Tell whoever waits how it ended."""
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class JobQueue:
    """Jobs by rank, bounded, for any number of threads."""

    def __init__(self, limit: int = MAX_PENDING) -> None:
        self._limit = limit
        self._ranks: tuple[deque[Job], ...] = tuple(deque() for _ in Rank)
        self._ready = threading.Condition(threading.Lock())
        self._closed = False

    def put(self, job: Job) -> None:
        """Queue the job, or fail its future with Overloaded (too many wait) or StoreFailed (closed)."""
        with self._ready:
            if not self._closed and len(self._ranks[job.rank]) < self._limit:
                self._ranks[job.rank].append(job)
                self._ready.notify()
                return
            closed = self._closed
        job.future.set_exception(
            StoreFailed("The ledger is closed.")
            if closed
            else Overloaded("The ledger has more work waiting than it takes on; try again in a moment.")
        )

    def take(self, most: int) -> list[Job]:
        """Up to `most` jobs of the first rank that has any; waits for one. Empty when closed and drained."""
        with self._ready:
            while True:
                for rank, jobs in zip(Rank, self._ranks, strict=True):
                    if jobs:
                        count = 1 if rank is Rank.BACKGROUND else min(most, len(jobs))
                        return [jobs.popleft() for _ in range(count)]
                if self._closed:
                    return []
                self._ready.wait()

    def put_back(self, jobs: list[Job]) -> None:
        """Return jobs that were taken and not begun to the front of their rank."""
        with self._ready:
            for job in reversed(jobs):
                self._ranks[job.rank].appendleft(job)
            self._ready.notify()

    def close(self) -> None:
        """Take no more jobs; waiting background jobs are cancelled, the others are still handed out."""
        with self._ready:
            self._closed = True
            background = list(self._ranks[Rank.BACKGROUND])
            self._ranks[Rank.BACKGROUND].clear()
            self._ready.notify_all()
        for job in background:
            job.future.cancel()
