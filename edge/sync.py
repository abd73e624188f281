"""Brings ledger and hub together: blocks up, settlement and fares down, until both agree.

Everything the hub says is verified (learning.py) before the ledger sees it. Blocks go first, also those that
this terminal carries for others: whatever of the answer it will not take, the taps are up before that is
said. Before them, a chain of this terminal that is not the hub's gives way (giving_way.py). Whatever stops a
run half way, the next one goes on from what both sides hold; what is remembered in between only saves time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crdt.block import parse
from crdt.errors import NotPermitted, RefusalCode
from crdt.facts import ReplicaId
from crdt.frames import (
    Ack,
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Message,
    PageFrame,
    Pull,
    Refusal,
    Status,
)
from crdt.frontier import Frontier, Head
from crdt.session import plan
from crdt.store.blocks import NO_HEAD
from edge.comparing import take_up
from edge.delivery import Delivery, at_a_time, confirmed, is_too_much, is_unknown, wants_full
from edge.errors import AnswerRefused, HubBusy, HubRefused, HubTooSlow, NotSealed
from edge.exchange import Answer, refusal_in
from edge.forgotten import take_up_another
from edge.giving_way import GivingWay, Renew
from edge.promised import Promised
from edge.proving import Proving
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
        self._forks = GivingWay(self._run, self.renew)
        self._safekeeping = Safekeeping(self._run)
        self._settling = Settling(self._run, self._forks, self._safekeeping)
        self._proving = Proving(self._run, retry=self.retry)
        self._acknowledged: dict[ReplicaId, Head] = {}
        self._met = self.delivery.agreed  # who asked last, and its head at the hub then
        self._short = True  # until the hub does not know the numbers of cards

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
        self.outcome.conceded, self.outcome.renewed = len(self._forks.conceded), self._forks.renewed
        if self._run.refusal is not None:
            raise self._run.refusal
        return self.outcome

    async def _until_both_agree(self) -> None:
        while self._run.may_go_on and not self.outcome.complete:
            base = self._run.ledger.settled()[1]
            answer, mine = await self._ask()
            if await self._forks.heal(answer, mine):
                continue
            pushed = await self._push(answer.hello.frontier)
            settled = await self._take(answer.messages, base)
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
        ahead = await self._ahead()
        mine = await run.use(run.ledger.frontier)
        documents = await run.use(run.learning.documents)
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
            answer = self._without_delivery(answer, mine, len(ahead) - 1)
        for refusal in answer.refusals:
            if refusal.code is not RefusalCode.RESTORED:
                raise refusal_in(refusal)
        return answer, mine

    async def _ahead(self) -> list[Message]:
        """The blocks after the head on which hub and terminal agreed last, with the author's certificate."""
        run, agreed = self._run, self.delivery.agreed
        self.delivery.agreed = None
        if agreed is None or agreed[0] != run.identity.replica:
            return []
        await self._seal()
        replica, head = agreed
        found = await run.use(run.ledger.blocks_after, head.seq, self.delivery.push_bytes, replica)
        raws = at_a_time(found, self.delivery.push_bytes)
        if not raws:
            return []
        certificate = CertificateFrame(run.identity.certificate.encode())
        return [certificate, *await run.use(run.ledger.short_blocks, raws)]

    def _without_delivery(self, answer: Answer, mine: Frontier, blocks: int) -> Answer:
        """The answer without what it says of blocks sent ahead: the hub's heads say whether it took them."""
        replica = self._run.identity.replica
        if answer.hello.frontier.get(replica) == mine.get(replica):
            self.outcome.blocks += blocks
        kept = (message for message in answer.messages if not _is_about_blocks(message))
        return replace(answer, messages=tuple(kept))

    def _agree(self, theirs: Frontier) -> None:
        """Remember where both sides stand, for the next run; not after a refusal."""
        if self._run.refusal is None:
            replica = self._run.identity.replica
            self.delivery.agreed = replica, theirs.get(replica, NO_HEAD)

    async def _push(self, theirs: Frontier) -> bool:
        """Exchanges up, until the hub has acknowledged all blocks; whether there were any.

        The open taps are sealed only here, when a hub listens: offline they collect into full blocks. A chain
        the hub refuses does not keep the others back.
        """
        run = self._run
        await self._seal()
        mine = await run.use(run.ledger.frontier)
        # What a hub has confirmed in this run is not sent again in it, whatever it says later.
        acknowledged, pushed = {**theirs, **self._acknowledged}, False
        while run.may_go_on:
            left_out = run.skipped | self._forks.contested
            gaps = [gap for gap in plan(mine, acknowledged) if gap[0] not in left_out]
            if not gaps:
                break
            replica, after_seq = gaps[0]
            try:
                head = await self._push_some(replica, after_seq, mine[replica])
                acknowledged[replica] = self._acknowledged[replica] = head
                pushed = True
            except (HubRefused, AnswerRefused) as error:
                self._acknowledged.pop(replica, None)
                await self._forks.refused(replica, acknowledged.get(replica, NO_HEAD), error)
        return pushed

    async def _seal(self) -> None:
        try:
            await self._run.use(self._run.ledger.seal)
        except NotPermitted as error:
            self._run.refusal = self._run.refusal or NotSealed(
                f"The newest taps cannot be sealed: {error}. They are kept. Pair the terminal again, so that"
                " it gets a certificate that allows them."
            )

    async def _push_some(self, replica: ReplicaId, after_seq: int, own: Head) -> Head:
        """One exchange up, and one more in full where the hub did not know a number; the head it confirms."""
        run, delivery = self._run, self.delivery
        at_most_bytes = 1 if replica in delivery.doubtful else delivery.push_bytes
        found = await run.use(run.ledger.blocks_after, after_seq, at_most_bytes, replica)
        raws = at_a_time(found, at_most_bytes)
        certificate = CertificateFrame((await run.use(run.ledger.authors))[replica].encode())
        full: list[Message] = [BlockFrame(raw) for raw in raws]
        ways = [full]
        if self._short:
            short: list[Message] = [*(await run.use(run.ledger.short_blocks, raws))]
            ways = [short, full] if short != full else ways
        for frames in ways:
            try:
                answer = await run.say({replica: own}, [certificate, *frames])
            except HubTooSlow:
                delivery.timed_out()
                raise
            if frames is full or not wants_full(answer):
                break
            self._short = False
        if is_too_much(answer) and replica == run.identity.replica:
            delivery.timed_out()  # not the same again and again, all of it for nothing
        carried = parse(raws[-1]).head if raws and replica != run.identity.replica else None
        head = confirmed(answer, replica, after_seq, own, carried)
        delivery.went_through(answer.took_ms)
        delivery.disputed.pop(replica, None)
        delivery.later.discard(replica)
        self.outcome.blocks += len(raws)
        return head

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

    async def _take(self, messages: Sequence[Message], base: int) -> bool:
        """Store what the hub says; whether its settlement is here to the end, or not to be had.

        `base`: the position of the settlement that was installed when it was asked.
        """
        run, settled = self._run, True
        for message in messages:
            try:
                if isinstance(message, PageFrame):
                    page = await run.checked(run.learning.page, message.raw)
                    settled = await self._settling.take(page, base)
                elif not isinstance(message, Refusal):
                    if isinstance(message, DocumentFrame) and await run.checked(
                        run.learning.forgets, message.raw
                    ):
                        await self._settling.say_what_had_ended()
                    await run.checked(run.learning.learn, message)
            except AnswerRefused as error:
                run.refusal = run.refusal or error
        return settled


def _is_about_blocks(message: Message) -> bool:
    return isinstance(message, Ack) or (
        isinstance(message, Refusal) and message.code is not RefusalCode.RESTORED
    )


__all__ = ["Delivery", "Exchange", "Outcome", "Renew", "Sync"]
