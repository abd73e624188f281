"""The hub's settlement onto this terminal, page by page: while one is stored, the next is under way."""

import asyncio
from contextlib import suppress
from typing import Final

from crdt.facts import ReplicaId
from crdt.frames import Heads, PageFrame, Refusal
from crdt.frontier import parts
from crdt.pull import Pull
from crdt.settlement import Page
from edge.errors import UplinkError
from edge.exchange import Answer
from edge.giving_way import GivingWay
from edge.next_identity import NextIdentity
from edge.run import Run
from edge.safekeeping import Safekeeping

PAGES_AT_A_TIME: Final = 16
"""Pages that are taken before new taps go up again: some seconds over a slow link."""


class Settling:
    """Installs what the hub settles, for one sync run."""

    def __init__(
        self, run: Run, forks: GivingWay, next_identity: NextIdentity, safekeeping: Safekeeping
    ) -> None:
        self._run = run
        self._forks = forks
        self._next = next_identity
        self._safekeeping = safekeeping

    async def take(self, page: Page) -> bool:
        """Install a verified page and those that follow it; True when the last one is, or is not to be had.
        Raises UplinkError, StoreError."""
        if page.restarts and not self._next.installs:
            await self._say_what_it_replaces(page.signer)
        left = PAGES_AT_A_TIME
        while not (page.final or self._next.installs):
            left -= 1
            if not (left and self._run.may_go_on):
                return await self._install(page)
            following = await self._install_and_ask(page)
            if following is None:
                return False
            page = following
        if self._next.installs:
            return True
        return await self._forks.check(page) and await self._install(page)

    async def _install_and_ask(self, page: Page) -> Page | None:
        """Store a page while the hub makes the next; that one, when the hub goes on with it."""
        run = self._run
        documents = await run.use(run.learning.documents)
        pull = Pull(page.series, page.base, page.until, documents)
        asking = asyncio.create_task(run.say({}, [pull]))
        try:
            await self._install(page)
        except BaseException:
            asking.cancel()
            with suppress(asyncio.CancelledError, UplinkError):
                await asking
            raise
        return await self._following(pull, await asking)

    async def _following(self, pull: Pull, answer: Answer) -> Page | None:
        """The page that answers a pull. What else the hub says holds at once: it may revoke somebody."""
        run, pages = self._run, list[Page]()
        for message in answer.messages:
            if isinstance(message, PageFrame):
                pages.append(await run.checked(run.learning.page, message.raw))
            elif not isinstance(message, Refusal):
                await run.hear(message)
        return next((page for page in pages if page.continues(pull.series, pull.base, pull.after)), None)

    async def _install(self, page: Page) -> bool:
        return await self._run.checked(self._run.ledger.install, page)

    async def _say_what_it_replaces(self, hub: ReplicaId) -> None:
        """Before a settlement that begins anew replaces what is here, tell the hub all that it included, by
        this one. Evidence goes up again, and what the hub did not take back. Raises UplinkError.

        In one exchange where it fits: a hub that has room for the next one only would never be loaded from.
        """
        run = self._run
        settled = await run.use(run.ledger.settled_frontier)
        if not settled:
            return
        run.delivery.meets_anew()
        heads, *further = parts(settled)
        await run.say({}, [*await self._safekeeping.newest(hub), Heads(heads)])
        for part in further:
            await run.say({}, [Heads(part)])
        await run.use(run.ledger.evidence_forgotten)
