"""Futures made of futures, for results that come over several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")


NOTHING: Final[Future[None]] = Future()
"""A future that has its result, for all who have nothing to wait for: making one costs several locks."""
NOTHING.set_running_or_notify_cancel()
NOTHING.set_result(None)


def done(result: T) -> Future[T]:
    """A future that has its result."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    future.set_result(result)
    return future


def then(outcome: Future[Any], go_on: Callable[[Any], None]) -> Callable[[Future[Any]], None]:
    """A callback that hands a future's result on, and its failure to `outcome`."""

    def finished(future: Future[Any]) -> None:
        error = future.exception()
        if error is None:
            go_on(future.result())
        else:
            outcome.set_exception(error)

    return finished


def first(pair: Future[tuple[T, Any]]) -> Future[T]:
    """The first half of a future pair."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()
    pair.add_done_callback(then(outcome, lambda result: outcome.set_result(result[0])))
    return outcome


def second(pair: Future[tuple[Any, T]]) -> Future[T]:
    """The second half of a future pair."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()
    pair.add_done_callback(then(outcome, lambda result: outcome.set_result(result[1])))
    return outcome
