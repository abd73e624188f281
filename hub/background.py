"""What goes on beside serving: clock and database are watched, days closed, systemd told that we live."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from crdt.errors import StoreError
from crdt.store.hub import HubLedger
from crdt.store.store import Store
from hub.daybook import Daybook
from hub.errors import RequestRefused
from hub.notify import ServiceManager

log = logging.getLogger(__name__)

FAILURE_POLL_S = 1.0
CLOSE_DAYS_EVERY_S = 600.0
SEE_TIME_EVERY_S = 60.0  # as often as a terminal's word is noted


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work beside the block, ended with it; the hub serves on without it should it break."""

    async def watched() -> None:
        try:
            await work
        except Exception:
            log.exception("a background task of the hub broke")

    task = asyncio.create_task(watched())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def close_days(daybook: Daybook, after_h: int) -> None:
    """Close days by themselves, some time after each has ended."""
    while True:
        try:
            for day in await daybook.close_old(after_h):
                log.info("the day of service %s is closed", day)
        except (StoreError, RequestRefused) as error:
            log.warning("no day is closed: %s", error)  # next time
        await asyncio.sleep(CLOSE_DAYS_EVERY_S)


async def see_time(ledger: HubLedger) -> None:
    """Let the ledger notice that its clock was set back, also while nobody brings anything."""
    while True:
        try:
            await asyncio.wrap_future(ledger.see_time())
        except StoreError as error:
            log.warning("whether the clock was set back is not known: %s", error)  # next time
        await asyncio.sleep(SEE_TIME_EVERY_S)


async def watchdog(manager: ServiceManager) -> None:
    """Tell systemd, as often as it wants to hear it, that the event loop goes round."""
    while manager.ping_every_s is not None:
        manager.alive()
        await asyncio.sleep(manager.ping_every_s)


async def until_failed(database: Store, ledger: HubLedger) -> None:
    """Returns when the database has failed, as only a fresh start tells what is on disk; or when the ledger
    turns out to have been put back, as a fresh start takes a new identity."""
    while not (database.failed or ledger.restored):  # noqa: ASYNC110  (the database's threads tell nobody)
        await asyncio.sleep(FAILURE_POLL_S)
