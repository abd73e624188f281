"""Waiting for an event, but not for ever."""

import asyncio

import pytest

from edge.waiting import happens


async def test_a_cancellation_that_comes_with_the_event_ends_the_wait() -> None:
    """Else a terminal that is to stop, or to become another, would hang until systemd kills it."""
    event = asyncio.Event()
    waiting = asyncio.create_task(happens(event, 60))
    await asyncio.sleep(0)
    event.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_does_not_happen_is_told_when_the_time_is_over() -> None:
    event = asyncio.Event()
    assert not await happens(event, 0)
    event.set()
    assert await happens(event, 60)
