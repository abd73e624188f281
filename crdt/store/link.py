"""A connection to a database server that is made again when it is lost."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from crdt.errors import StoreFailed
from crdt.store.server_errors import advice_on, is_lost, reason_of

FIRST_PAUSE_S: Final = 0.05  # between two tries to connect; doubled each time
LONGEST_PAUSE_S: Final = 1.0

_log = logging.getLogger(__name__)


class Link:
    """One thread's connection. Only that thread may use it."""

    def __init__(
        self,
        engine: Engine,
        place: str,
        patience_s: float,
        clock: Callable[[], float],
        stopping: threading.Event,
    ) -> None:
        """`place`: the server, for people. `patience_s`: how long work waits for a server that is away.

        `clock`: seconds that only grow. `stopping` ends every waiting.
        """
        self._engine = engine
        self.place = place
        self._patience_s = patience_s
        self._clock = clock
        self._stopping = stopping
        self._connection: Connection | None = None
        self._has_worked = False  # the connection, or the one that was lost last
        self._away_since: float | None = None

    def connection(self) -> Connection:
        """The connection, made now if there is none. Raises StoreFailed when the server stays away."""
        pause_s = FIRST_PAUSE_S
        while self._connection is None:
            try:
                self._connection = self._engine.connect()
            except Exception as err:  # whatever a driver raises: the thread has to go on
                if self._given_up(err, "cannot be reached"):
                    raise self._unreachable(err) from err
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return self._connection

    def worked(self) -> None:
        """The server did something on this connection."""
        self._has_worked = True
        if self._away_since is not None:
            self._away_since = None
            _log.info("the database %s answers again", self.place)

    def may_retry(self, err: BaseException) -> bool:
        """After a connection was lost before anything was done on it: whether to try again.

        At once where it had worked: servers end connections that idle, and that is nothing to be told of.
        """
        if self._has_worked:
            self._has_worked = False
            return True
        if self._given_up(err, "breaks off"):
            return False
        self._stopping.wait(FIRST_PAUSE_S)
        return True

    def clean(self, err: BaseException) -> bool:
        """After an error: end the transaction, or drop a connection that is lost; whether it was lost."""
        connection = self._connection
        if connection is None:
            return True
        lost = is_lost(err) or connection.invalidated
        if not lost:
            try:
                connection.rollback()
            except SQLAlchemyError:
                lost = True
        if lost:
            self.drop()
        return lost

    def drop(self) -> None:
        """Close the connection, whatever its state."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.invalidate()
            with contextlib.suppress(SQLAlchemyError):
                connection.close()

    def _given_up(self, err: BaseException, what: str) -> bool:
        now = self._clock()
        if self._away_since is None:
            self._away_since = now
            _log.warning("the database %s %s: %s.%s", self.place, what, reason_of(err), advice_on(err))
        return self._stopping.is_set() or now - self._away_since >= self._patience_s

    def _unreachable(self, err: BaseException) -> StoreFailed:
        return StoreFailed(
            f"The database {self.place} cannot be reached: {reason_of(err)}. Nothing was written; it is "
            "tried again with the next request. Check that the server runs and lets this hub in."
        )
