"""Waiting for the ledger in an event loop."""

import asyncio
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import Protocol, TypeVar

T = TypeVar("T")


class Wait(Protocol):
    """How to wait for the ledger: `asyncio.wrap_future`, in an event loop."""

    def __call__(self, future: Future[T], /) -> Awaitable[T]: ...


async def result_of(future: Future[T]) -> T:
    """The future's result, at once where it is there: what memory answers costs no turn of the event loop."""
    return future.result() if future.done() else await asyncio.wrap_future(future)
