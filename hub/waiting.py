"""Waiting for the ledger in an event loop."""

import asyncio
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def result_of(future: Future[T]) -> T:
    """The future's result, at once where it is there: what memory answers costs no turn of the event loop."""
    return future.result() if future.done() else await asyncio.wrap_future(future)
