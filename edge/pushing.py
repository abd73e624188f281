"""Blocks up to the hub: this terminal's own, and those that it carries for others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from crdt.block import parse
from crdt.errors import NotPermitted, RefusalCode
from crdt.facts import MAX_SEQ, ReplicaId
from crdt.frames import Ack, BlockFrame, CertificateFrame, Message, Refusal
from crdt.frontier import Frontier, Head
from crdt.session import plan
from crdt.store.blocks import NO_HEAD
from edge.delivery import at_a_time, confirmed, is_too_much, wants_full
from edge.errors import AnswerRefused, HubRefused, HubTooSlow, NotSealed
from edge.exchange import Answer
from edge.giving_way import GivingWay
from edge.run import Run


class Pushing:
    """Brings them, for one sync run."""

    def __init__(self, run: Run, forks: GivingWay) -> None:
        self._run = run
        self._forks = forks
        self.blocks = 0
        """How many the hub has taken."""
        self._acknowledged: dict[ReplicaId, Head] = {}
        self._short = True  # until the hub does not know the numbers of cards

    async def push(self, theirs: Frontier) -> bool:
        """Exchanges up, until the hub has acknowledged all blocks; whether there were any.

        The open taps are sealed only here, when a hub listens: offline they collect into full blocks. A chain
        the hub refuses does not keep the others back.
        """
        run = self._run
        await self._seal()
        mine = await run.use(run.ledger.frontier)
        ends = await self._ends_of_former()
        # What a hub has confirmed in this run is not sent again in it, whatever it says later.
        acknowledged, pushed = {**theirs, **self._acknowledged}, False
        while run.may_go_on:
            left_out = run.skipped | self._forks.contested
            gaps = [gap for gap in plan(mine, acknowledged) if gap[0] not in left_out]
            gaps = [gap for gap in gaps if gap[1] < ends.get(gap[0], MAX_SEQ)]
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

    async def _ends_of_former(self) -> Mapping[ReplicaId, int]:
        """Up to where blocks are handed on of identities of before which have still to be written again."""
        run = self._run
        if not run.ledger.was_replaced:
            return {}
        cut_offs = (await run.use(run.ledger.revocations)).cut_offs
        return {replica: cut_offs[replica] for replica in await run.storages_replicas() & cut_offs.keys()}

    async def ahead(self) -> list[Message]:
        """The blocks after the head on which hub and terminal agreed last, with the author's certificate."""
        run = self._run
        agreed = run.delivery.agreed
        run.delivery.agreed = None
        if agreed is None or agreed[0] != run.identity.replica:
            return []
        await self._seal()
        replica, head = agreed
        found = await run.use(run.ledger.blocks_after, head.seq, run.delivery.push_bytes, replica)
        raws = at_a_time(found, run.delivery.push_bytes)
        if not raws:
            return []
        certificate = CertificateFrame(run.identity.certificate.encode())
        return [certificate, *await run.use(run.ledger.short_blocks, raws)]

    def without_delivery(self, answer: Answer, mine: Frontier, blocks: int) -> Answer:
        """The answer without what it says of blocks sent ahead: the hub's heads say whether it took them."""
        replica = self._run.identity.replica
        if answer.hello.frontier.get(replica) == mine.get(replica):
            self.blocks += blocks
        kept = (message for message in answer.messages if not _is_about_blocks(message))
        return replace(answer, messages=tuple(kept))

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
        run, delivery = self._run, self._run.delivery
        at_most_bytes = 1 if replica in delivery.doubtful else delivery.push_bytes
        found = await run.use(run.ledger.blocks_after, after_seq, at_most_bytes, replica)
        raws = at_a_time(found, at_most_bytes)
        answer = await self._send(replica, own, raws)
        if is_too_much(answer) and replica == run.identity.replica:
            delivery.timed_out()  # not the same again and again, all of it for nothing
        carried = parse(raws[-1]).head if raws and replica != run.identity.replica else None
        head = confirmed(answer, replica, after_seq, own, carried)
        delivery.went_through(answer.took_ms)
        delivery.disputed.pop(replica, None)
        delivery.later.discard(replica)
        self.blocks += len(raws)
        return head

    async def _send(self, replica: ReplicaId, own: Head, raws: Sequence[bytes]) -> Answer:
        """What the hub says to these blocks: short ones, as long as it knows their numbers."""
        run = self._run
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
                run.delivery.timed_out()
                raise
            if frames is full or not wants_full(answer):
                break
            self._short = False
        return answer


def _is_about_blocks(message: Message) -> bool:
    return isinstance(message, Ack) or (
        isinstance(message, Refusal) and message.code is not RefusalCode.RESTORED
    )
