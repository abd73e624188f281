"""The readers: threads with a connection each, that see one snapshot a job and never wait for the writer."""

from __future__ import annotations

import threading

from sqlalchemy import Connection

from crdt.store.connection import dispose, driver_connection
from crdt.store.health import Health
from crdt.store.jobs import Job, JobQueue


class Reader:
    """Runs queued reads on a thread of its own."""

    def __init__(self, connection: Connection, health: Health, queue: JobQueue) -> None:
        self._connection = connection
        self._raw = driver_connection(connection)
        self._health = health
        self._queue = queue
        self._thread = threading.Thread(target=self._run, name="ledger-reader", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what is queued (close the queue first), end the thread, close the connection."""
        self._thread.join()
        dispose(self._connection)

    def _run(self) -> None:
        while jobs := self._queue.take(1):
            for job in jobs:
                if job.future.set_running_or_notify_cancel():
                    self._read(job)
                    job.settle()

    def _read(self, job: Job) -> None:
        try:
            self._health.check()
            if job.plain:
                job.result = job.work(self._connection)
                return
            self._raw.execute("BEGIN")
            try:
                job.result = job.work(self._connection)
            finally:
                if self._raw.in_transaction:
                    self._raw.execute("ROLLBACK")  # ends the snapshot; there is nothing to undo
        except BaseException as err:  # whoever waits for the future has to hear of anything
            job.error = self._health.judged(err)
