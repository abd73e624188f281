"""Forgetting, once a day, what the hub has signed for long ago. Never in a tap's way."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from crdt.errors import LedgerError
from edge.clock import Reading
from edge.errors import Superseded
from edge.terminal import Terminal

AFTER_START_S = 300.0
"""A bus is started every day, and has better things to do at that moment."""
EVERY_S = 86_400.0
DAY_MS = 86_400_000
KEEP_DELTAS = 5_000
"""Kept whatever the clock says: some days of one bus."""

log = logging.getLogger(__name__)


class Pruning:
    """The daily job, in the event loop; the ledger is used in a thread, in short transactions."""

    def __init__(
        self,
        terminal: Terminal,
        read_clock: Callable[[], Reading],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._terminal = terminal
        self._read_clock = read_clock
        self._sleep = sleep

    async def run(self) -> None:
        """Until cancelled."""
        await self._sleep(AFTER_START_S)
        while True:
            await self.once()
            await self._sleep(EVERY_S)

    async def once(self) -> int:
        """Forget what may be forgotten by the fleet's retention time; how many blocks that were."""
        try:
            deleted = await asyncio.to_thread(self._prune)
        except (LedgerError, Superseded) as error:
            log.warning("old blocks were not forgotten, the next day tries again: %s", error)
            return 0
        if deleted:
            log.info("forgot %d blocks that the hub had settled long enough ago", deleted)
        return deleted

    def _prune(self) -> int:
        enrolment = self._terminal.enrolment
        if enrolment is None or enrolment.fares is None:
            return 0
        retention_ms = enrolment.fares.retention_days * DAY_MS
        with self._terminal.syncing(enrolment.identity):
            return enrolment.ledger.prune(self._read_clock().at_ms, retention_ms, KEEP_DELTAS)
