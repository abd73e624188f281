"""Closing a day: once the history has all of the record, and nothing is still to leave it.

Where a month of taps came at once the history is far behind, and nobody's merge waits until it has caught up:
it does so some blocks a transaction, and the last of these closes the day.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from sqlalchemy import Connection

from crdt.store import cutting, days, projection
from crdt.store.days import Day, DayReport
from crdt.store.futures import then
from crdt.store.recording import Change
from crdt.store.store import Store


class Step(NamedTuple):
    """What a transaction of it did."""

    change: Change | None  # of the ledger; None: nothing left the record
    report: DayReport | None  # the day's, closed; None: it is too early


class Closing:
    """Closes days."""

    def __init__(self, database: Store, publish: Callable[[Change | None], None]) -> None:
        """`publish` hears of every change, on the writer's thread."""
        self._database = database
        self._publish = publish

    def close(self, day: Day, at_ms: int) -> Future[DayReport]:
        """See HubLedger.close_day."""
        outcome: Future[DayReport] = Future()
        outcome.set_running_or_notify_cancel()

        def go_on() -> None:
            writing = self._database.write(
                lambda connection: close_if_ready(connection, day, at_ms),
                after=lambda step: self._publish(step.change),
            )
            writing.add_done_callback(then(outcome, closed))

        def closed(step: Step) -> None:
            if step.report is None:
                go_on()
            else:
                outcome.set_result(step.report)

        go_on()
        return outcome


def close_if_ready(connection: Connection, day: Day, at_ms: int) -> Step:
    """Close the day, or come nearer to where it can be closed."""
    cut = cutting.cut_some(connection, at_ms)
    if cut.more or projection.catch_up_some(connection, at_ms):
        return Step(cut.change, None)
    return Step(cut.change, days.close(connection, day, at_ms))
