"""The database without threads: every job runs on the thread that calls, to its end, before the call returns.

The interface of `crdt.store.database.Database` on one real connection, in memory or in a file. What happens,
and in which order, follows from the calls alone, so a simulation can repeat it; and it can be cut off between
any two steps, as a power cut would. One thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final, Self, TypeVar

from sqlalchemy import Connection, MetaData, select

from crdt.errors import MisuseError, Overloaded
from crdt.store.connection import (
    DriverConnection,
    connect,
    connect_in_memory,
    dispose,
    driver_connection,
    is_broken,
)
from crdt.store.database import SECRET, SECRETS, store_secret, swap_secret
from crdt.store.driver import choose_driver
from crdt.store.gate import Gate
from crdt.store.health import Health, first_line
from crdt.store.inline_direct import InlineDirect
from crdt.store.jobs import MAX_PENDING, Job, Rank
from crdt.store.writer import Direct, roll_back

T = TypeVar("T")

_NOBODYS: Final[Future[Any]] = Future()  # making one costs several locks
_CREATED: Final = "farebox tables"  # in Connection.info: how many tables of which metadata are made


class InlineDatabase:
    """An open ledger database that works on the calling thread. Made by `open`.

    Futures are done when they are returned, except those of jobs that were begun from within another job, its
    `after`, or a callback of its future: these run in order as soon as that one is done. Background jobs wait
    for `run_background`, unless the database is `eager`.
    """

    def __init__(
        self, connection: Connection, *, eager: bool = True, cut: Callable[[], None] | None = None
    ) -> None:
        """Take over an open connection, undoing what was not committed on it: what a start finds on disk.

        `cut` is called before and after every commit, and stands for the power switch: it may raise something
        that is no Exception. Then the database refuses everything, and whoever is calling gets it.
        """
        self._connection = connection
        self._raw: DriverConnection = driver_connection(connection)
        self._eager = eager
        self._cut = cut or _nothing
        self._health = Health()
        self._gate = Gate()
        self._jobs: deque[tuple[Job, bool]] = deque()  # with whether it writes
        self._background: deque[tuple[Job, bool]] = deque()
        self._running = False
        self._closed = False
        self._is_cut_off = False
        self._owner: object = None
        roll_back(self._raw, self._health)
        self._direct = InlineDirect(
            self._raw, self._gate, self._health, self._cut, self._drain, self._power_cut
        )
        self.create(SECRETS)

    @classmethod
    def open(
        cls,
        path: Path | None,
        key: bytes,
        *,
        driver: ModuleType | None = None,
        eager: bool = True,
        cut: Callable[[], None] | None = None,
    ) -> Self:
        """Open the database at `path`, or make it; None is one in memory, which is not encrypted.

        Nothing keeps other processes from the file. Raises WrongKey, DriverUnusable, StoreFailed.
        """
        module = driver or choose_driver()
        connection = connect_in_memory(module) if path is None else connect(module, path, key)
        try:
            return cls(connection, eager=eager, cut=cut)
        except BaseException:
            dispose(connection)
            raise

    def after_power_cut(self, *, eager: bool = True, cut: Callable[[], None] | None = None) -> Self:
        """The database as the next start finds it, with what was committed and nothing else.

        This one refuses everything from now on, and need not be closed.
        """
        self._power_cut()
        return type(self)(self._connection, eager=eager, cut=cut)

    @property
    def connection(self) -> Connection:
        """What it works on, for a look beside it while no job runs."""
        return self._connection

    def write(
        self,
        work: Callable[[Connection], T],
        *,
        urgent: bool = False,
        background: bool = False,
        after: Callable[[T], None] | None = None,
    ) -> Future[T]:
        """See Database.write. `urgent` goes before what waits."""
        rank = Rank.URGENT if urgent else Rank.BACKGROUND if background else Rank.NORMAL
        job = Job(rank, work) if after is None else Job(rank, work, after)
        if background and not self._eager:
            self._queue(self._background, job, writes=True)
        else:
            self._queue(self._jobs, job, writes=True)
            self._drain()
        return job.future

    def read(self, work: Callable[[Connection], T]) -> Future[T]:
        """Run `work` in one snapshot of everything that was committed before."""
        job = Job(Rank.NORMAL, work)
        self._queue(self._jobs, job, writes=False)
        self._drain()
        return job.future

    def run_background(self, most: int = MAX_PENDING) -> int:
        """Run up to `most` background jobs that wait, with what these begin; returns how many."""
        done = 0
        while self._background and done < most:
            self._jobs.append(self._background.popleft())
            self._drain()
            done += 1
        return done

    @property
    def direct(self) -> Direct:
        """See Database.direct."""
        return self._direct

    @property
    def failed(self) -> bool:
        """Whether the database has failed and refuses everything until the program starts again."""
        return self._health.failed

    @property
    def closed(self) -> bool:
        """Whether the database was closed, or its power was cut."""
        return self._closed or self._is_cut_off

    def write_and_wait(
        self,
        work: Callable[[Connection], T],
        *,
        urgent: bool = False,
        after: Callable[[T], None] | None = None,
    ) -> T:
        """`write`, and its result. Raises MisuseError within a write."""
        rank = Rank.URGENT if urgent else Rank.NORMAL
        result: T = self._at_once(Job(rank, work, after or _nothing, future=_NOBODYS), self._write)
        return result

    def read_and_wait(self, work: Callable[[Connection], T]) -> T:
        """`read`, and its result. Raises MisuseError within a write."""
        result: T = self._at_once(Job(Rank.NORMAL, work, future=_NOBODYS), self._read)
        return result

    def wait(self, future: Future[T]) -> T:
        """The result of something begun before. Raises MisuseError where it waits for this very call."""
        self.check_may_wait()
        return future.result()

    def check_may_wait(self) -> None:
        """Raise MisuseError within a job: whoever waits for the database there waits for itself."""
        if self._running or self._gate.mine:
            raise MisuseError("a write waits for the database; it would wait for itself")

    def own(self, owner: object) -> None:
        """See Database.own."""
        self._owner = owner

    def owner(self) -> object:
        """See LocalStore."""
        return self._owner

    def check_owner(self, owner: object) -> None:
        """See Database.check_owner."""
        if self._owner is not owner:
            raise MisuseError("this database was given to another ledger since; go on with that one")

    def is_owner(self, owner: object) -> bool:
        """Whether `owner` was the last to `own` this database."""
        return self._owner is owner

    def create(self, metadata: MetaData) -> None:
        """Make the tables of `metadata` that are not there yet."""
        made: dict[MetaData, int] = self._connection.info.setdefault(_CREATED, {})
        if made.get(metadata) != len(metadata.tables):
            self.write_and_wait(metadata.create_all)
            made[metadata] = len(metadata.tables)

    def get_secret(self, name: str) -> bytes | None:
        """A value put by `put_secret`, such as a private key."""
        query = select(SECRET.c.value).where(SECRET.c.name == name)
        return self.read_and_wait(lambda connection: connection.execute(query).scalar_one_or_none())

    def put_secret(self, name: str, value: bytes) -> None:
        """Keep a value under a name, replacing the one before; durable on return."""
        self.write_and_wait(lambda connection: store_secret(connection, name, value))

    def swap_secret(self, name: str, former: bytes, value: bytes) -> bytes:
        """See Store."""
        return self.write_and_wait(lambda connection: swap_secret(connection, name, former, value))

    def close(self) -> None:
        """Drop background work, let go of the connection. Idempotent."""
        if self._closed:
            return
        self.check_may_wait()
        self._closed = True
        for job, _ in self._background:
            job.future.cancel()
        self._background.clear()
        self._health.close()
        dispose(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _queue(self, queue: deque[tuple[Job, bool]], job: Job, *, writes: bool) -> None:
        if self._health.failed:
            job.future.set_exception(self._health.refusal())
        elif len(queue) >= MAX_PENDING:
            job.future.set_exception(Overloaded("The ledger has more work waiting than it takes on."))
        elif job.rank is Rank.URGENT:
            queue.appendleft((job, writes))
        else:
            queue.append((job, writes))

    def _drain(self) -> None:
        """Run what waits, unless a job or a tap is running: the outermost call does it all."""
        if self._running or self._gate.mine:
            return
        self._running = True
        try:
            while self._jobs:
                job, writes = self._jobs.popleft()
                if job.future.set_running_or_notify_cancel():
                    (self._write if writes else self._read)(job)
                    job.settle()
        finally:
            self._running = False

    def _at_once(self, job: Job, run: Callable[[Job], None]) -> Any:
        """Run a job whose future nobody has, and what it begins; its result."""
        self.check_may_wait()
        self._running = True
        try:
            run(job)
        finally:
            self._running = False
        self._drain()
        if job.error is not None:
            raise job.error
        return job.result

    def _write(self, job: Job) -> None:
        if self._health.failed:
            job.error = self._health.refusal()
            return
        self._gate.enter()
        try:
            self._raw.execute("BEGIN IMMEDIATE")
            try:
                job.result = job.work(self._connection)
            except Exception as err:  # the job's own, unless the file is broken
                if is_broken(err):
                    raise
                job.error = err
                self._raw.execute("ROLLBACK")
                return
            self._cut()
            self._raw.execute("COMMIT")
            self._cut()
            job.after(job.result)
        except Exception as err:
            roll_back(self._raw, self._health)
            job.error = self._health.fail(first_line(err))
            job.error.__cause__ = err
        except BaseException:
            self._power_cut()
            raise
        finally:
            self._gate.leave()

    def _read(self, job: Job) -> None:
        """Nothing else runs meanwhile, so that a snapshot needs no transaction."""
        before = self._raw.total_changes
        try:
            self._health.check()
            job.result = job.work(self._connection)
        except Exception as err:
            job.error = self._health.judged(err)
        if self._raw.total_changes != before or self._raw.in_transaction:
            roll_back(self._raw, self._health)
            job.error = self._health.fail("a read has written")

    def _power_cut(self) -> None:
        self._is_cut_off = True
        self._health.fail("the power was cut")
        self._jobs.clear()
        self._background.clear()


def _nothing(*_anything: object) -> None:
    return None
