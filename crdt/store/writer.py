"""The writer: one connection, one transaction at a time, on its own thread or on the thread of a tap.

A tap does not hand its insert to another thread: waking one and being woken costs half as much as the commit
itself (measured: 0.10 ms beside 0.21 ms), and the tap waits for the disk either way. It takes the gate,
before everything else that waits, and writes on its own thread. Bulk work goes through the queue, where
several waiting jobs share one commit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

from sqlalchemy import Connection

from crdt.store.connection import DriverConnection, dispose, driver_connection, is_broken
from crdt.store.gate import Gate
from crdt.store.health import Health, first_line
from crdt.store.jobs import Job, JobQueue

MAX_GROUP_JOBS: Final = 64  # jobs that share one commit
MAX_GROUP_ROWS: Final = 20_000  # changed rows after which a group takes no further job: a tap may wait


class Direct:
    """The writer's connection in the hands of a tap's thread: `with database.direct as sql`.

    It is one write transaction, which is rolled back at the end of the `with` statement unless it was
    committed. Statements go to the driver as they are; SQLAlchemy costs a tenth of a commit a statement.
    """

    def __init__(
        self, connection: DriverConnection, gate: Gate, health: Health, wrote: Callable[[int], None]
    ) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute
        self._gate = gate
        self._health = health
        self._wrote = wrote

    def __enter__(self) -> Direct:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def begin(self) -> None:
        """What the `with` statement begins with: wait for the gate, and begin a write transaction."""
        self._gate.enter(urgent=True)
        if self._health.failed:
            self._gate.leave()
            self._health.check()
        try:
            self._execute("BEGIN IMMEDIATE")
        except BaseException as err:
            self._gate.leave()
            self._health.judge(err)
            raise

    def end(self) -> None:
        """What it ends with: undo what was not committed, and give the gate back."""
        if self._connection.in_transaction:
            roll_back(self._connection, self._health)
        self._gate.leave()

    def row(self, sql: str, parameters: Sequence[Any]) -> Any:
        """The row of a query that finds one or none."""
        try:
            # To the end: a query left open keeps the log from starting again.
            rows = self._execute(sql, parameters).fetchall()
        except BaseException as err:
            self._health.judge(err)
            raise
        return rows[0] if rows else None

    def commit(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of `rows` and commit: durable on return, or undone."""
        execute = self._execute
        try:
            for row in rows:
                execute(sql, row)
        except BaseException as err:
            self._health.judge(err)
            raise
        try:
            execute("COMMIT")
        except BaseException as err:
            raise self._health.fail(first_line(err)) from err
        self._wrote(len(rows))


def roll_back(connection: DriverConnection, health: Health) -> None:
    """Undo the open transaction, if SQLite has not done so itself."""
    if not connection.in_transaction:
        return
    try:
        connection.execute("ROLLBACK")
    except Exception as err:  # the file is in an unknown state
        health.fail(str(err))


class Writer:
    """Runs queued jobs on a thread of its own, grouped into transactions."""

    def __init__(
        self,
        connection: Connection,
        gate: Gate,
        health: Health,
        queue: JobQueue,
        wrote: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._raw = driver_connection(connection)
        self._gate = gate
        self._health = health
        self._queue = queue
        self._wrote = wrote
        self.direct = Direct(self._raw, gate, health, wrote)
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what is queued (close the queue first), end the thread, close the connection."""
        self._thread.join()
        self._gate.enter(urgent=True)
        try:
            self._health.close()
            dispose(self._connection)
        finally:
            self._gate.leave()

    def _run(self) -> None:
        while jobs := self._queue.take(MAX_GROUP_JOBS):
            self._gate.enter()
            try:
                begun = self._run_group(jobs)
            finally:
                self._gate.leave()
            for job in begun:
                job.settle()

    def _run_group(self, jobs: list[Job]) -> list[Job]:
        """Run as many of `jobs` in one transaction as is fair to a waiting tap; put the others back.

        Returns those that were begun, with their result or error. What fails beside a job's own work leaves
        no telling what is on disk, so it ends the database.
        """
        begun: list[Job] = []
        before = self._raw.total_changes
        if self._health.failed:
            return [job for job in jobs if self._refuse(job)]
        try:
            self._raw.execute("BEGIN IMMEDIATE")
            while jobs and not (begun and self._full(before)):
                self._begin(jobs.pop(0), begun)
            self._raw.execute("COMMIT")
            for job in begun:
                if job.error is None:
                    job.after(job.result)
        except BaseException as err:  # whoever waits for the futures has to hear of anything
            roll_back(self._raw, self._health)
            failure = self._health.fail(first_line(err))
            failure.__cause__ = err
            for job in begun:
                job.error = failure
        self._queue.put_back(jobs)
        self._wrote(self._raw.total_changes - before)
        return begun

    def _refuse(self, job: Job) -> bool:
        job.error = self._health.refusal()
        return job.future.set_running_or_notify_cancel()

    def _full(self, before: int) -> bool:
        return self._gate.urgent_waiting or self._raw.total_changes - before > MAX_GROUP_ROWS

    def _begin(self, job: Job, begun: list[Job]) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        begun.append(job)
        self._raw.execute("SAVEPOINT job")
        try:
            job.result = job.work(self._connection)
        except BaseException as err:
            if is_broken(err):
                raise
            job.error = err
            self._raw.execute("ROLLBACK TO job")
        self._raw.execute("RELEASE job")
