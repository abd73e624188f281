"""One encrypted database file: one writer, some readers, and what makes a commit durable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Final, Self, TypeVar

from sqlalchemy import Column, Connection, LargeBinary, MetaData, String, Table, select

from crdt.errors import MisuseError
from crdt.store.connection import HUB_LAYOUT, DriverConnection, Layout, connect, driver_connection
from crdt.store.driver import choose_driver
from crdt.store.gate import Gate
from crdt.store.health import Health
from crdt.store.jobs import Job, JobQueue, Rank
from crdt.store.lock import ProcessLock
from crdt.store.reader import Reader
from crdt.store.swapping import swapped
from crdt.store.writer import Direct, Writer

T = TypeVar("T")

# A reader moves the write-ahead log into the database after about this many pages, so that a
# tap does not have to: SQLite would make the commit that reaches its own limit pay for all the others. Once
# all is moved the log starts again from its beginning, and that matters as much: a commit that makes the
# file longer takes 1.5 times as long as one that writes over what is there.
CHECKPOINT_PAGES: Final = 800
_PAGES_PER_COMMIT: Final = 1  # measured: a page's bytes and 24 a tap
_ROWS_PER_PAGE: Final = 20

SECRETS = MetaData()
SECRET = Table(
    "secret",
    SECRETS,
    Column("name", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)


class Database:
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
        self._owner: object = None
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
            database.create(SECRETS)
        except BaseException:
            database.close()
            raise
        return database

    def write(
        self,
        work: Callable[[Connection], T],
        *,
        urgent: bool = False,
        background: bool = False,
        after: Callable[[T], None] | None = None,
    ) -> Future[T]:
        """Run `work` in a write transaction on the writer's thread; the future is done once it is durable.

        Jobs that wait at the same time share a commit; one that raises is undone alone and its future gets
        the error. `work` must not begin or end transactions itself. `urgent` goes before what waits,
        `background` after it. `after` gets the result when it is durable, before anybody else may write: the
        place to change what memory keeps of the database; it must not raise. The future fails with
        Overloaded or StoreFailed.
        """
        rank = Rank.URGENT if urgent else Rank.BACKGROUND if background else Rank.NORMAL
        job = Job(rank, work) if after is None else Job(rank, work, after)
        self._writes.put(job)
        return job.future

    def read(self, work: Callable[[Connection], T]) -> Future[T]:
        """Run `work` on a reader's thread, in one snapshot of everything that was committed before."""
        job = Job(Rank.NORMAL, work)
        self._reads.put(job)
        return job.future

    @property
    def direct(self) -> Direct:
        """`with database.direct as sql`: the calling thread writes, before everything that waits."""
        return self._writer.direct

    @property
    def failed(self) -> bool:
        """Whether the database has failed and refuses everything until the program starts again."""
        return self._health.failed

    @property
    def closed(self) -> bool:
        """Whether the database was closed, or is being closed."""
        return self._closed

    def write_and_wait(
        self,
        work: Callable[[Connection], T],
        *,
        urgent: bool = False,
        after: Callable[[T], None] | None = None,
    ) -> T:
        """`write`, and wait until it is durable. Raises MisuseError within a write."""
        self.check_may_wait()
        return self.write(work, urgent=urgent, after=after).result()

    def read_and_wait(self, work: Callable[[Connection], T]) -> T:
        """`read`, and wait for the answer. Raises MisuseError within a write."""
        self.check_may_wait()
        return self.read(work).result()

    def wait(self, future: Future[T]) -> T:
        """The result of something begun before. Raises MisuseError within a write."""
        self.check_may_wait()
        return future.result()

    def check_may_wait(self) -> None:
        """Raise MisuseError within a write: whoever waits for the database there waits for itself."""
        if self._gate.mine:
            raise MisuseError("a write waits for the database; it would wait for itself")

    def own(self, owner: object) -> None:
        """Within a write: `owner` alone keeps what it knows of this database in memory from now on."""
        self._owner = owner

    def owner(self) -> object:
        """See LocalStore."""
        return self._owner

    def check_owner(self, owner: object) -> None:
        """Within a write: raise MisuseError unless `owner` was the last to `own` this database."""
        if self._owner is not owner:
            raise MisuseError("this database was given to another ledger since; go on with that one")

    def is_owner(self, owner: object) -> bool:
        """Whether `owner` was the last to `own` this database."""
        return self._owner is owner

    def create(self, metadata: MetaData) -> None:
        """Make the tables of `metadata` that are not there yet; waits."""
        self.write_and_wait(metadata.create_all)

    def get_secret(self, name: str) -> bytes | None:
        """A value put by `put_secret`, such as a private key; waits."""
        query = select(SECRET.c.value).where(SECRET.c.name == name)
        return self.read_and_wait(lambda connection: connection.execute(query).scalar_one_or_none())

    def put_secret(self, name: str, value: bytes) -> None:
        """Keep a value under a name, replacing the one before; waits until it is durable."""
        self.write_and_wait(lambda connection: store_secret(connection, name, value))

    def swap_secret(self, name: str, former: bytes, value: bytes) -> bytes:
        """See Store."""
        return self.write_and_wait(lambda connection: swap_secret(connection, name, former, value))

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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


def store_secret(connection: Connection, name: str, value: bytes) -> None:
    """Within a write: keep a value under a name, replacing the one before."""
    connection.execute(SECRET.delete().where(SECRET.c.name == name))
    connection.execute(SECRET.insert().values(name=name, value=value))


def swap_secret(connection: Connection, name: str, former: bytes, value: bytes) -> bytes:
    """Within a write: keep a value in place of `former`; what is kept then."""
    query = select(SECRET.c.value).where(SECRET.c.name == name)
    kept: bytes | None = connection.execute(query).scalar_one_or_none()
    return swapped(kept, former, value, partial(store_secret, connection, name))
