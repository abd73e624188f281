"""Hears when other processes may have written to a database server, and says so."""

from __future__ import annotations

import contextlib
import logging
import math
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from crdt.store.health import first_line
from crdt.store.server_writer import CHANNEL

AGAIN_S: Final = 1.0  # until a lost connection is made again

_log = logging.getLogger(__name__)


class Watch:
    """Calls `tell` after every notification of another process, and every `interval_s` in any case.

    PostgreSQL notifies; a notification lost with its connection only delays until the interval is over. The
    other servers have nothing of the kind. `tell` raises nothing.
    """

    def __init__(self, engine: Engine | None, name: str, interval_s: float, tell: Callable[[], None]) -> None:
        """`engine`: of a PostgreSQL, or None. `name`: this process's; its own notifications do not count."""
        self._engine = engine
        self._name = name
        self._interval_s = interval_s
        self._tell = tell
        self._connection: Connection | None = None
        self._failures = 0  # one after the other
        self._closing, self._closed = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="server-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and its connection."""
        self._closing.send(b".")
        self._thread.join()
        self._closing.close()
        self._closed.close()

    def _run(self) -> None:
        while self._wait():
            self._tell()
        self._drop()

    def _wait(self) -> bool:
        """Until there may be something new; False when it is time to end."""
        try:
            raw = self._listening()
            if raw is None:
                return not self._ended(None)
            due_s = time.monotonic() + self._interval_s
            ended = self._ended(raw)
            while not ended and self._heard_only_own(raw):
                left_s = due_s - time.monotonic()
                if left_s <= 0:  # a busy process hears itself all the time
                    break
                ended = self._ended(raw, left_s)
        except Exception as err:  # SQLAlchemy's or the driver's own: the connection is gone
            self._failures += 1
            if self._failures == 2:  # not where a connection that idled was ended, and can be made again
                _log.warning("changes by other processes are noticed late for now: %s", first_line(err))
            self._drop()
            return not self._ended(None, AGAIN_S)
        return not ended

    def _ended(self, raw: Any | None, longest_s: float = math.inf) -> bool:
        """Wait for a notification, the interval's end, or the time to end; whether it was that."""
        with selectors.DefaultSelector() as selector:  # `select` ends at descriptor 1023
            closed = selector.register(self._closed, selectors.EVENT_READ)
            if raw is not None:
                selector.register(raw, selectors.EVENT_READ)
            ready = [key for key, _ in selector.select(min(self._interval_s, longest_s))]
        return closed in ready

    def _heard_only_own(self, raw: Any) -> bool:
        """Whether nothing was heard but this process's own notifications; not where nothing was heard."""
        names = [notify.payload for notify in raw.notifies(timeout=0)]
        return bool(names) and all(name == self._name for name in names)

    def _listening(self) -> Any | None:
        """psycopg's connection that listens, made now if there is none; None on another server."""
        if self._engine is None:
            return None
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            self._failures = 0
        return self._connection.connection.driver_connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError):
                connection.invalidate()
            connection.close()
