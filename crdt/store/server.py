"""A hub's database on a server: PostgreSQL, MariaDB or MySQL. Several processes may share one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Final, Self, TypeVar

from sqlalchemy import Connection, Engine, MetaData, func, select

from crdt.errors import MisuseError, StoreFailed
from crdt.store import secrets
from crdt.store.health import Health
from crdt.store.jobs import Job, JobQueue, Rank, nothing
from crdt.store.link import Link
from crdt.store.listening import Listeners
from crdt.store.sealed import SealedSecrets
from crdt.store.server_url import IDLE_TIMEOUT_S, LOCK_TIMEOUT_S, Server, check_server
from crdt.store.server_writer import LOCK, LOCK_METADATA, ServerReader, ServerWriter
from crdt.store.store import Guard, Shared
from crdt.store.watch import Watch

T = TypeVar("T")

PATIENCE_S: Final = 10.0  # how long work waits for a server that is away before it fails
INTERVAL_S: Final = 1.0  # the longest time until a change by another process is noticed
_CREATION: Final = 0x66617265626F78  # "farebox": the number of the lock under which tables are made
_ROUNDS: Final = 4  # of looking whether a connection is a session: a busy pooler lends the same one at times
_POOLED: Final = (
    "The database {place} is reached through a pooler that lends its connections for one transaction at a "
    "time (pool_mode = transaction). A hub needs connections of its own, and no more than four: write the "
    "server's own address into store.url, or that of a pool with pool_mode = session."
)
_COLLATIONS: Final = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin")  # MariaDB's and MySQL's


class ServerDatabase(Shared):
    """An open database on a server. Made by `open`; `close` it, or use it in a `with` statement.

    Work that was under way when the server went away fails with
    StoreFailed, which says whether it was written; work that had not begun waits for the server for some
    seconds, and fails then. As soon as the server is back it goes on. It fails for good only when the guard
    sees that the database is not the one it was.
    """

    def __init__(
        self,
        server: Server,
        key: bytes,
        readers: int,
        interval_s: float,
        patience_s: float,
        idle_s: int,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._server = server
        self._secrets = SealedSecrets(key, entropy)
        self._name = entropy(8).hex()
        self._health = Health()
        self._stopping = threading.Event()
        self._closed = False
        self._listeners: Listeners[[]] = Listeners()
        self._writes = JobQueue()
        self._reads = JobQueue()
        writing, reading = (server.engine(read_only=mode, idle_s=idle_s) for mode in (False, True))

        def link(engine: Engine) -> Link:
            return Link(engine, server.place, patience_s, clock, self._stopping)

        self._writer = ServerWriter(link(writing), self._writes, self._health, self._name)
        self._readers = [
            ServerReader(link(reading), self._reads, self._health, number) for number in range(readers)
        ]
        notifying = reading if server.is_postgresql else None
        self._watch = Watch(notifying, self._name, interval_s, self._listeners.tell)

    @classmethod
    def open(
        cls,
        url: str,
        key: bytes,
        *,
        readers: int = 2,
        interval_s: float = INTERVAL_S,
        patience_s: float = PATIENCE_S,
        idle_s: int = IDLE_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> Self:
        """Open the database at `url`, such as postgresql://user:password@host/database; it must be there.

        `key`: 32 secret bytes that seal the secrets in it. `interval_s`: the longest time until a change by
        another process is noticed. `patience_s`: how long work waits for a server that is away. `idle_s`:
        after which the server undoes the write of a process that it hears nothing of: all others wait for
        that. `clock`: seconds that only grow. Raises WrongKey, DriverUnusable, StoreFailed: each a sentence.
        """
        database = cls(Server.parse(url), key, readers, interval_s, patience_s, idle_s, clock, entropy)
        try:
            database._begin()
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
        """See Store; on the writer's thread. No other process writes at the same time.

        When the server goes away meanwhile the future fails with StoreFailed, which says whether `work` was
        written; where that is not known, doing the same once more has to be harmless.
        """
        job = Job(rank, work, after)
        self._writes.put(job)
        return job.future

    def read(self, work: Callable[[Connection], T]) -> Future[T]:
        """See Store; on a reader's thread, perhaps twice, when the connection is lost."""
        job = Job(Rank.NORMAL, work)
        self._reads.put(job)
        return job.future

    @property
    def secrets(self) -> SealedSecrets:
        """See Store."""
        return self._secrets

    @property
    def failed(self) -> bool:
        """Whether it went back to an older state. Not when the server is away: it is used when it is back."""
        return self._health.failed

    @property
    def closed(self) -> bool:
        """See Store."""
        return self._closed

    def wait_told(self) -> None:
        """See Shared."""
        self._writer.wait_told()

    def check_may_wait(self) -> None:
        """See Store."""
        if self._writer.mine:
            raise MisuseError("a write waits for the database; it would wait for itself")

    def create(self, metadata: MetaData) -> None:
        """Make the tables of `metadata` that are not there yet, one process after the other; waits."""
        self.check_may_wait()
        job = Job(Rank.NORMAL, lambda connection: _create(connection, metadata), plain=True)
        self._writes.put(job)
        job.future.result()

    def on_others(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when another process may have written, or an interval is over; returns how to stop.

        On a thread that nothing else waits for, but the next call does.
        """
        return self._listeners.add(listener)

    def guard(self, guard: Guard | None) -> None:
        """See Shared."""
        self._writer.guard = guard

    def close(self) -> None:
        """Finish what is queued, end the threads, close the connections. Idempotent.

        What is queued while the server is away fails.
        """
        if self._closed:
            return
        self._closed = True
        self._stopping.set()
        self._watch.close()
        self._writes.close()
        self._reads.close()
        for reader in self._readers:
            reader.join()
        self._writer.join()

    def _begin(self) -> None:
        self.read_and_wait(lambda connection: check_server(connection, self._server.place))
        if self._server.is_postgresql:
            self._check_sessions()
        self.create(LOCK_METADATA)
        self.create(secrets.METADATA)
        self.write_and_wait(self._secrets.check)

    def _check_sessions(self) -> None:
        """Raise StoreFailed where what a connection was told does not hold for as long as it is open."""
        for _ in range(_ROUNDS):
            for queue, told in (self._writes, "off"), (self._reads, "on"):
                job = Job(Rank.NORMAL, _read_only, plain=True)
                queue.put(job)
                if job.future.result() != told:
                    raise StoreFailed(_POOLED.format(place=self._server.place))


def _read_only(connection: Connection) -> str:
    return str(connection.exec_driver_sql("SHOW default_transaction_read_only").scalar_one())


def _create(connection: Connection, metadata: MetaData) -> None:
    """One process after the other. Not in a write's transaction: MySQL ends that at every CREATE TABLE."""
    with _creating(connection):
        metadata.create_all(connection)
        if metadata is LOCK_METADATA and connection.execute(select(LOCK.c.id)).first() is None:
            connection.execute(LOCK.insert().values(id=1))


@contextmanager
def _creating(connection: Connection) -> Iterator[None]:
    """Tables may be made here. Raises StoreFailed while another process makes some, and does not end."""
    if connection.dialect.name == "postgresql":
        with connection.begin():
            connection.execute(select(func.pg_advisory_xact_lock(_CREATION)))
            yield
        return
    name = func.concat("farebox ", func.database())
    with connection.begin():
        mine = connection.execute(select(func.get_lock(name, LOCK_TIMEOUT_S))).scalar_one() == 1
    if not mine:
        raise StoreFailed("Another process of the hub has been making tables for long; start this one again.")
    try:
        with connection.begin():
            _compare_text_exactly(connection)
            yield
    finally:  # after the commit: the next process has to see what was made
        with connection.begin():
            connection.execute(select(func.release_lock(name)))


def _compare_text_exactly(connection: Connection) -> None:
    """Tables made from now on tell "a" from "A" and from "a ": MariaDB and MySQL by themselves do not."""
    collation = _COLLATIONS[0] if getattr(connection.dialect, "is_mariadb", False) else _COLLATIONS[1]
    if connection.exec_driver_sql("SELECT @@collation_database").scalar_one() != collation:
        connection.exec_driver_sql(f"ALTER DATABASE CHARACTER SET utf8mb4 COLLATE {collation}")
