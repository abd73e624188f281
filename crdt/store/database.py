"""One encrypted database file: one writer, some readers, and what makes a commit durable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Final, Self, TypeVar

from sqlalchemy import Connection

from crdt.errors import MisuseError
from crdt.store import secrets
from crdt.store.connection import HUB_LAYOUT, DriverConnection, Layout, connect, driver_connection
from crdt.store.driver import choose_driver
from crdt.store.gate import Gate
from crdt.store.health import Health
from crdt.store.jobs import Job, JobQueue, Rank, nothing
from crdt.store.local import LocalStore
from crdt.store.lock import ProcessLock
from crdt.store.reader import Reader
from crdt.store.writer import Direct, Writer

T = TypeVar("T")

# A reader moves the write-ahead log into the database after about this many pages, so that a
# tap does not have to: SQLite would make the commit that reaches its own limit pay for all the others. Once
# all is moved the log starts again from its beginning, and that matters as much: a commit that makes the
# file longer takes 1.5 times as long as one that writes over what is there.
CHECKPOINT_PAGES: Final = 800
_PAGES_PER_COMMIT: Final = 1  # measured: a page's bytes and 24 a tap
_ROWS_PER_PAGE: Final = 20


class Database(LocalStore):
    """An open ledger database. Made by `open`; `close` it, or use it in a `with` statement.

    Any thread may use it. `write` and `read` never wait, so they are for an event loop too
    (`asyncio.wrap_future`). Every other method waits for the disk.
    """

    def __init__(self, lock: ProcessLock, writer: Connection, readers: Sequence[Connection]) -> None:
        self._lock = lock
        self._health = Health()
        self._gate = Gate()
        self._writes = JobQueue()
        self._reads = JobQueue()
        self._unmoved_pages = 0
        self._writer = Writer(writer, self._gate, self._health, self._writes, self._wrote)
        self._readers = [Reader(reader, self._health, self._reads) for reader in readers]
        self._closed = False

    @classmethod
    def open(
        cls,
        path: Path,
        key: bytes,
        *,
        readers: int = 1,
        layout: Layout = HUB_LAYOUT,
        driver: ModuleType | None = None,
    ) -> Self:
        """Open the database at `path`, or make it. `key`: 32 secret bytes; `layout`: as it was made with.

        Raises WrongKey, LedgerBusy (another process has it), DriverUnusable, StoreFailed: each a sentence.
        """
        module = driver or choose_driver()
        with contextlib.ExitStack() as undo:
            lock = ProcessLock.take(path)
            undo.callback(lock.release)
            connections: list[Connection] = []
            for number in range(1 + readers):
                connections.append(connect(module, path, key, number > 0, layout))
                undo.callback(connections[-1].engine.dispose)
                undo.callback(connections[-1].close)
            database = cls(lock, connections[0], connections[1:])
            undo.pop_all()
        try:
            database.create(secrets.METADATA)
        except BaseException:
            database.close()
            raise
        return database

    def write(
        self,
        work: Callable[[Connection], T],
        *,
        rank: Rank = Rank.NORMAL,
        after: Callable[[T], None] = nothing,
    ) -> Future[T]:
        """See Store; on the writer's thread."""
        job = Job(rank, work, after)
        self._writes.put(job)
        return job.future

    def read(self, work: Callable[[Connection], T]) -> Future[T]:
        """See Store; on a reader's thread."""
        job = Job(Rank.NORMAL, work)
        self._reads.put(job)
        return job.future

    @property
    def direct(self) -> Direct:
        """See LocalStore."""
        return self._writer.direct

    @property
    def failed(self) -> bool:
        """See Store."""
        return self._health.failed

    @property
    def closed(self) -> bool:
        """See Store."""
        return self._closed

    def check_may_wait(self) -> None:
        """See Store."""
        if self._gate.mine:
            raise MisuseError("a write waits for the database; it would wait for itself")

    def close(self) -> None:
        """Finish what is queued, end the threads, let go of the file. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._writes.close()
        self._reads.close()
        for reader in self._readers:
            reader.close()
        self._writer.close()
        self._lock.release()

    def _wrote(self, rows: int) -> None:
        """Called under the gate after each commit."""
        self._unmoved_pages += _PAGES_PER_COMMIT + rows // _ROWS_PER_PAGE
        if self._unmoved_pages >= CHECKPOINT_PAGES:
            self._unmoved_pages = 0
            self._reads.put(Job(Rank.BACKGROUND, self._checkpoint, plain=True))

    def _checkpoint(self, connection: Connection) -> tuple[int, int]:
        """Move the log into the database; how many pages were in it, and how many of them were moved.

        Nearly all beside whoever writes, then, holding the gate, the few that were written meanwhile: only a
        log that is moved to the end can start again.
        """
        raw: DriverConnection = driver_connection(connection)
        raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._gate.enter()
        try:
            _busy, pages, moved = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            self._gate.leave()
        return pages, moved
