"""The latest snapshot, and those who wait for the next one."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class News:
    """One snapshot; versions count up from 1."""

    version: int
    content: Mapping[str, Any]


class Board:
    """Holds one snapshot. Nothing is queued: a slow reader gets the newest and misses those between."""

    def __init__(self) -> None:
        self._news = News(0, {})
        self._changed = asyncio.Event()
        self._closed = False
        self.readers = 0

    def publish(self, content: Mapping[str, Any]) -> None:
        """Shows a snapshot; nothing happens when it equals the one shown."""
        if content != self._news.content:
            self._news = News(self._news.version + 1, content)
            self._wake()

    def close(self) -> None:
        """Ends every reader's loop."""
        self._closed = True
        self._wake()

    async def next(self, after: int, timeout_s: float) -> News | None:
        """The newest snapshot, once it is newer than `after` or the time is over; None at the end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._news.version <= after and not self._closed:
                    await self._changed.wait()
        return None if self._closed else self._news

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Counts a reader."""
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
