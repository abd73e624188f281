"""Waiting for an event, but not for ever."""

import asyncio
from collections.abc import Awaitable, Callable

Wait = Callable[[asyncio.Event, float], Awaitable[object]]
"""Wait until the event is set or so many seconds have passed."""


async def happens(event: asyncio.Event, within_s: float) -> bool:
    """Whether the event is set within the time.

    Not by `asyncio.wait_for`: before Python 3.12 it forgets a cancellation that comes as the event does, and
    a loop around it would never end (CPython issue 86296).
    """
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
