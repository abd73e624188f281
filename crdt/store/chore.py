"""Background work in steps: one transaction each, behind everything that anybody waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Generic, Protocol, TypeVar

from sqlalchemy import Connection

from crdt.store.jobs import Rank
from crdt.store.store import Store
from crdt.store.trouble import Trouble

PAUSE_S: Final = 1.0  # after a step has failed, until it resumes


class Step(Protocol):
    """What a step did."""

    @property
    def more(self) -> bool:
        """Whether there may be more to do."""


S = TypeVar("S", bound=Step)


class Chore(Generic[S]):
    """One kind of such work. It begins when told to, and goes on until a step finds no more to do.

    A step that fails ends it, until it is told to begin or to resume: a server may be back later.
    """

    def __init__(
        self,
        database: Store,
        step: Callable[[Connection], S],
        done: Callable[[S], None],
        sentence: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`done` hears of each step once it is durable, on the writer's thread.

        `sentence`: what does not work while steps fail, for the log. `clock`: seconds that only grow.
        """
        self._database = database
        self._step = step
        self._after = done
        self._trouble = Trouble(database, sentence)
        self._mutex = threading.Lock()
        self._running = False
        self._ended = False
        self._again = False  # told to begin while a step ran, which may have seen nothing of it
        self._clock = clock
        self._failed_s: float | None = None  # when the last step failed; None: it did not

    def begin(self) -> None:
        """There may be something to do."""
        with self._mutex:
            self._again = self._running
            if self._running or self._ended:
                return
            self._running = True
        self._queue()

    def resume(self, *, wanted: bool) -> None:
        """Begin where that is `wanted`, or the last step has failed; not just after it has."""
        with self._mutex:
            failed_s = self._failed_s
        if wanted if failed_s is None else self._clock() - failed_s >= PAUSE_S:
            self.begin()

    def end(self) -> None:
        """Do no step any more, for good: what is left is for who begins after this one. For any thread."""
        with self._mutex:
            self._ended, self._again = True, False

    def _queue(self) -> None:
        step = self._database.write(self._do, rank=Rank.BACKGROUND, after=self._tell)
        step.add_done_callback(self._done)

    def _do(self, connection: Connection) -> S | None:
        return None if self._ended else self._step(connection)

    def _tell(self, step: S | None) -> None:
        if step is not None:
            self._after(step)

    def _done(self, step: Future[S | None]) -> None:
        good = self._trouble.judge(step)
        with self._mutex:
            self._failed_s = None if good else self._clock()
            done = step.result() if good else None
            self._running = done is not None and (self._again or done.more) and not self._ended
            self._again = False
            if not self._running:
                return
        self._queue()
