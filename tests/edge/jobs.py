"""What the terminal's program runs until it ends, run for as long as a test is about it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol


class Job(Protocol):
    """Something that goes on until it is cancelled."""

    async def run(self) -> object:
        """Go on."""


@contextlib.asynccontextmanager
async def running(job: Job) -> AsyncIterator[None]:
    """The job runs meanwhile."""
    task = asyncio.create_task(job.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
