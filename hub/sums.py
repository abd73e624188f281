"""The sums over the whole ledger: they read every card, so they are kept, and not made all the time."""

import asyncio
from collections.abc import Callable

from crdt.store.hub import Change, HubLedger, Totals

REST = 10  # how much longer than they took they are left alone


class Sums:
    """The sums over the whole ledger, kept until it changes."""

    def __init__(self, ledger: HubLedger, monotonic: Callable[[], float]) -> None:
        self._ledger = ledger
        self._monotonic = monotonic
        self._known: tuple[Totals, bytes] | None = None
        self._fresh = False
        self._not_before_s = 0.0
        self._one_at_a_time = asyncio.Lock()

    def changed(self, _change: Change) -> None:
        """The ledger changed (said on any thread)."""
        self._fresh = False

    async def get(self) -> tuple[Totals, bytes]:
        """Totals and digest, of the same instant."""
        async with self._one_at_a_time:
            if self._known is None or (not self._fresh and self._monotonic() >= self._not_before_s):
                self._known = await self._read()
            return self._known

    async def _read(self) -> tuple[Totals, bytes]:
        began_s = self._monotonic()
        self._fresh = True  # before reading: what changes from now on may not be in it
        totals = await asyncio.wrap_future(self._ledger.totals())
        digest = await asyncio.wrap_future(self._ledger.digest())
        now_s = self._monotonic()
        self._not_before_s = now_s + REST * (now_s - began_s)
        return totals, digest
