"""Brings ledger and hub together: blocks up, settlement and fares down, until both agree.

Everything the hub says is verified (learning.py) before the ledger sees it. Blocks go first, also those that
this terminal carries for others: whatever of the answer it will not take, the taps are up before that is
said. Before them, a chain of this terminal that is not the hub's gives way (giving_way.py). Whatever stops a
run half way, the next one goes on from what both sides hold; what is remembered in between only saves time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crdt.errors import RefusalCode
from crdt.frames import DocumentFrame, Message, PageFrame, Refusal
from crdt.frontier import Frontier
from crdt.pull import Pull
from crdt.revocations import REVOKED_DOCUMENT
from crdt.store.blocks import NO_HEAD
from crdt.terminal_status import Status
from edge.comparing import take_up
from edge.delivery import Delivery, is_unknown
from edge.ended import Ended
from edge.errors import AnswerRefused, HubBusy, HubRefused, HubTooSlow
from edge.exchange import Answer, refusal_in
from edge.forgotten import take_up_another
from edge.giving_way import GivingWay
from edge.next_identity import NextIdentity, Renew
from edge.promised import Promised
from edge.proving import Proving
from edge.pushing import Pushing
from edge.reminding import Reminding
from edge.run import Exchange, Run
from edge.safekeeping import Safekeeping
from edge.settling import Settling
from edge.terminal import Enrolment, Terminal

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """What a run has done so far."""

    blocks: int = 0
    conceded: int = 0
    """Chains of this terminal that gave way to the hub's."""
    renewed: bool = False
    """Whether the terminal has a new identity."""
    complete: bool = False
    """Whether the hub holds every block, and its settlement is installed to the end."""


@dataclass
class Sync:
    """One run. `exchange` talks to the hub, as the identity that is promised where there is one; `describe`
    gives the status for the operator, and may wait.

    `former`: makes a way to the hub as what the terminal is, for where it does not know what it has promised.
    `retry`: whether chains in `delivery.disputed` are offered again, one block of each, and the hub's own
    blocks are kept for it and brought back; not at each tap. `renew`: how to get a new identity; without it,
    a restored terminal waits for somebody to pair it again.
    """

    terminal: Terminal
    enrolment: Enrolment
    exchange: Exchange
    describe: Callable[[], Mapping[str, Any]]
    delivery: Delivery = field(default_factory=Delivery)
    retry: bool = True
    renew: Renew | None = None
    former: Callable[[], Awaitable[Exchange]] | None = None
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self._run = Run(self.terminal, self.enrolment, self.exchange, self.delivery, retry=self.retry)
        self._next = NextIdentity(self._run, self.renew)
        self._ended = Ended(self._run)
        self._forks = GivingWay(self._run, self._next, self._ended)
        self._pushing = Pushing(self._run, self._forks)
        self._safekeeping = Safekeeping(self._run)
        self._reminding = Reminding(self._run, retry=self.retry)
        self._settling = Settling(self._run, self._forks, self._next, self._safekeeping)
        self._proving = Proving(self._run, retry=self.retry)
        self._met = self.delivery.agreed  # who asked last, and its head at the hub then

    async def run(self) -> Outcome:
        """Until both sides agree, or MAX_EXCHANGES.

        Raises UplinkError, a refusal only when all that was not refused is done; StoreError when the ledger
        fails; Superseded when the terminal is paired anew meanwhile.
        """
        promised = self.terminal.promised
        if promised is not None:
            await self._take_up(promised)
        try:
            await self._until_both_agree()
        except HubBusy:
            self.delivery.agreed = self._met  # what waits goes up with the next question
            raise
        self.outcome.blocks = self._pushing.blocks
        self.outcome.conceded, self.outcome.renewed = len(self._forks.conceded), self._next.taken
        if self._run.refusal is not None:
            raise self._run.refusal
        return self.outcome

    async def _until_both_agree(self) -> None:
        while self._run.may_go_on and not self.outcome.complete:
            answer, mine = await self._ask()
            if await self._reminding.remind(answer):
                continue
            if await self._forks.heal(answer, mine):
                continue
            pushed = await self._pushing.push(answer.hello.frontier)
            settled = await self._take(answer.messages)
            if self._next.is_due or await self._ended.contradicts_list():
                continue
            await self._give_document()
            if settled and not pushed and not self._forks.contested:
                if self.retry and await self._safekeeping.bring_back():
                    continue  # the settlement includes it, and says so
                await self._proving.give()
                self._agree(answer.hello.frontier)
                self.outcome.complete = True
                if self.retry:
                    await self._safekeeping.keep()

    async def _take_up(self, promised: Promised) -> None:
        try:
            self._run.become(await take_up(self.terminal, promised, self.exchange), self.exchange)
        except HubRefused as error:
            if not is_unknown(error) or self.renew is None or self.former is None:
                raise
            log.warning("the hub has forgotten the identity that it had promised: %s", error)
            await take_up_another(self._run, await self.former(), self.renew)

    async def _ask(self) -> tuple[Answer, Frontier]:
        """One exchange: our heads up, and the hub's heads, fares and settlement down. And our heads.

        New taps go up with it when hub and terminal agreed before, so that a tap costs one exchange. Whatever
        the hub does not take of them so is pushed as everything else is.
        """
        run = self._run
        ahead = await self._pushing.ahead()
        mine = await run.use(run.ledger.frontier)
        documents = await run.use(run.learning.documents)
        if self._ended.take_doubt():
            documents[REVOKED_DOCUMENT] = 0  # a hub gives no list of the number that is named
        status = await asyncio.to_thread(self.describe)
        series, base, after = run.ledger.settled()
        question: list[Message] = [Status(status), Pull(series, base, after, documents)]
        try:
            answer = await run.say(mine, question + ahead)
        except HubTooSlow:
            self.delivery.timed_out()
            raise
        self._met = run.identity.replica, answer.hello.frontier.get(run.identity.replica, NO_HEAD)
        if ahead:
            answer = self._pushing.without_delivery(answer, mine, len(ahead) - 1)
        for refusal in answer.refusals:
            if refusal.code is not RefusalCode.RESTORED:
                raise refusal_in(refusal)
        return answer, mine

    def _agree(self, theirs: Frontier) -> None:
        """Remember where both sides stand, for the next run; not after a refusal."""
        if self._run.refusal is None:
            replica = self._run.identity.replica
            self.delivery.agreed = replica, theirs.get(replica, NO_HEAD)

    async def _give_document(self) -> None:
        """The terminal's own document, where the hub's says less. One that it refuses is a note."""
        run, delivery = self._run, self.delivery
        if not run.learning.hub_lacks:
            return
        run.learning.hub_lacks = False
        document = await run.use(run.learning.own_document)
        if document.version == delivery.document and not self.retry:
            return
        refusals = (await run.say({}, [DocumentFrame(document.encode())])).refusals
        delivery.document = document.version if refusals else 0
        objection = str(refusal_in(refusals[0])) if refusals else ""
        if objection != delivery.objection:
            log.warning("the terminal's document: %s", objection or "the hub has taken it")
        delivery.objection = objection

    async def _take(self, messages: Sequence[Message]) -> bool:
        """Store what the hub says; whether its settlement is here to the end, or not to be had."""
        run, settled = self._run, True
        for message in messages:
            if isinstance(message, PageFrame):
                try:
                    page = await run.checked(run.learning.page, message.raw)
                    settled = await self._settling.take(page)
                except AnswerRefused as error:
                    run.refusal = run.refusal or error
            elif not isinstance(message, Refusal):
                await run.hear(message)
        return settled


__all__ = ["Delivery", "Exchange", "Outcome", "Renew", "Sync"]
