"""The threads that work on a database server: one that writes, in groups under a lock, and some that read."""

from __future__ import annotations

import logging
import threading
from typing import Final

from sqlalchemy import Column, Connection, Integer, MetaData, Table, func, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError

from crdt.errors import StoreFailed
from crdt.store.health import Health
from crdt.store.jobs import Job, JobQueue
from crdt.store.link import Link
from crdt.store.server_errors import advice_on, is_lost, reason_of, without_values
from crdt.store.store import Guard

_log = logging.getLogger(__name__)

MAX_GROUP_JOBS: Final = 64  # jobs that share one commit
CHANNEL: Final = "farebox"  # of PostgreSQL's NOTIFY; within the one database

LOCK_METADATA: Final = MetaData()
# One row. Whoever writes locks it first, so transactions of all processes follow each other, and positions,
# ordinals and whatever else is counted become visible in their order.
LOCK: Final = Table("writer", LOCK_METADATA, Column("id", Integer, primary_key=True, autoincrement=False))
_BUGS: Final = (
    DataError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
)  # of whoever made the statement
_LOCK_ROW: Final = select(LOCK.c.id).where(LOCK.c.id == 1).with_for_update()


class ServerWriter:
    """Runs queued jobs on a thread of its own, grouped into transactions."""

    def __init__(self, link: Link, queue: JobQueue, health: Health, name: str) -> None:
        """`health` fails when the guard denies. `name`: of this process: it knows its own notifications."""
        self.guard: Guard | None = None  # set from any thread; asked from the next transaction on
        self._link = link
        self._queue = queue
        self._health = health
        self._name = name
        self._working = False
        self._telling = threading.Lock()  # from before a commit until everybody was told of it
        self._thread = threading.Thread(target=self._run, name="server-writer", daemon=True)
        self._thread.start()

    @property
    def mine(self) -> bool:
        """Whether the calling thread is within a write."""
        return self._working and threading.get_ident() == self._thread.ident

    def wait_told(self) -> None:
        """Wait until `after` was called for every write that is committed."""
        with self._telling:
            pass

    def join(self) -> None:
        """Finish what is queued (close the queue first), end the thread, close the connection."""
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._queue.take(MAX_GROUP_JOBS):
            self._working = True
            try:
                settled = self._run_some(jobs)
            finally:
                self._working = False
            for job in settled:
                job.settle()
        self._link.drop()

    def _run_some(self, jobs: list[Job]) -> list[Job]:
        """Run the first of `jobs` that may share a commit, put the others back; those that came to an end."""
        if self._health.failed:
            return failed(jobs, self._health.refusal())
        if jobs[0].plain:
            self._queue.put_back(jobs[1:])
            return [job for job in jobs[:1] if _done(job, self._link, self._health)]
        try:
            connection = self._link.connection()
        except StoreFailed as failure:
            return failed(jobs, failure)
        return self._run_group(connection, jobs)

    def _run_group(self, connection: Connection, jobs: list[Job]) -> list[Job]:
        begun: list[Job] = []
        guard = self.guard
        try:
            connection.begin()
            connection.execute(_LOCK_ROW).one()
            self._link.worked()
            if guard is not None and not guard.check(connection):
                return failed(jobs, self._stop(connection))
            while jobs and not jobs[0].plain:
                self._begin(connection, jobs.pop(0), begun)
            self._notify(connection)
        except BaseException as err:  # whoever waits for the futures has to hear of anything
            return self._broke_off(err, jobs, begun)
        self._queue.put_back(jobs)
        with self._telling:
            return self._commit(connection, begun, guard)

    def _stop(self, connection: Connection) -> StoreFailed:
        """The database went back: what the guard did is committed, and told to the other processes; nothing
        else ever is."""
        self._notify(connection)
        connection.commit()
        failure = self._health.stop(_went_back(self._link.place))
        _log.error("%s", failure)
        return failure

    def _commit(self, connection: Connection, begun: list[Job], guard: Guard | None) -> list[Job]:
        try:
            connection.commit()
        except BaseException as err:
            self._link.clean(err)
            return _fail_begun(begun, _unknown(err))
        if guard is not None:
            guard.committed()
        for job in begun:
            if job.error is None:
                _run_after(job)
        return begun

    def _begin(self, connection: Connection, job: Job, begun: list[Job]) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        begun.append(job)
        savepoint = connection.begin_nested()
        try:
            job.result = job.work(connection)
        except BaseException as err:
            if is_lost(err):
                raise
            job.error = _told(err)
            savepoint.rollback()
        else:
            savepoint.commit()

    def _notify(self, connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_notify(CHANNEL, self._name)))

    def _broke_off(self, err: BaseException, jobs: list[Job], begun: list[Job]) -> list[Job]:
        """Before the commit was sent: nothing is written. Jobs that had not begun are tried again."""
        lost = self._link.clean(err)
        if begun or (lost and self._link.may_retry(err)):
            self._queue.put_back(jobs)
            return _fail_begun(begun, _undone(err))
        return failed(jobs, _undone(err))


class ServerReader:
    """Runs queued reads on a thread of its own, each in one snapshot."""

    def __init__(self, link: Link, queue: JobQueue, health: Health, number: int) -> None:
        self._link = link
        self._queue = queue
        self._health = health
        self._thread = threading.Thread(target=self._run, name=f"server-reader-{number}", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Finish what is queued (close the queue first), end the thread, close the connection."""
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._queue.take(1):
            for job in jobs:
                if _done(job, self._link, self._health):
                    job.settle()
        self._link.drop()


def failed(jobs: list[Job], failure: BaseException) -> list[Job]:
    """The jobs that were not cancelled, with this failure."""
    return _fail_begun([job for job in jobs if job.future.set_running_or_notify_cancel()], failure)


def _done(job: Job, link: Link, health: Health) -> bool:
    """Run a read, or what begins and ends its transactions itself; False where it was cancelled.

    Twice when the connection is lost on the way: it may have been for hours.
    """
    if not job.future.set_running_or_notify_cancel():
        return False
    for last in (False, True):
        try:
            health.check()
            connection = link.connection()
            job.result = job.work(connection)
            connection.rollback()  # ends a read's snapshot; there is nothing to undo
            link.worked()
        except BaseException as err:  # whoever waits for the future has to hear of anything
            if link.clean(err) and is_lost(err) and not last:
                continue
            job.error = _told(err)
        break
    return True


def _run_after(job: Job) -> None:
    """Not to raise is its contract; where it does, the thread goes on all the same."""
    try:
        job.after(job.result)
    except BaseException as err:
        job.error = err


def _fail_begun(begun: list[Job], failure: BaseException) -> list[Job]:
    for job in begun:
        job.error = failure
    return begun


def _told(err: BaseException) -> BaseException:
    """`err` itself, or StoreFailed where the server failed and not the statement."""
    if not isinstance(err, DBAPIError):
        return err
    if isinstance(err, _BUGS) and not is_lost(err):
        return without_values(err)
    return _not_written("failed", err)


def _undone(err: BaseException) -> StoreFailed:
    return _not_written("broke off", err)


def _not_written(what: str, err: BaseException) -> StoreFailed:
    sentence = (
        f"The database server {what}: {reason_of(err)}. Nothing was written; try again.{advice_on(err)}"
    )
    return _caused(StoreFailed(sentence), err)


def _unknown(err: BaseException) -> StoreFailed:
    return _caused(
        StoreFailed(
            f"The database server broke off while it committed: {reason_of(err)}. Whether it was written is "
            "not known. Do the same once more: what was written is recognised and not done twice."
        ),
        err,
    )


def _went_back(place: str) -> str:
    return (
        f"The database {place} went back to an older state under this hub: a copy was put back, or a standby "
        "took over that lagged behind. What was acknowledged since is not in it. Nothing more is written. "
        "Start the hub again: it goes on under a new identity, terminals bring back taps and top-ups, and "
        "the dashboard says what is still missing. Until all of that is here do not book a top-up again: "
        "both would count."
    )


def _caused(failure: StoreFailed, err: BaseException) -> StoreFailed:
    failure.__cause__ = err
    return failure
