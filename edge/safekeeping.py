"""The hub's own blocks: kept for it as it makes them, and brought back when it was put back from a backup.

Both after everything else, and only while nobody taps; but one block is shown to a hub as soon as it begins
the settlement anew. A hub needs bringing back what the terminal has kept beyond the settlement that it gives
now, and what contradicts that: it was put back unnoticed and has given numbers again. So nothing has to be
remembered of it, and what is interrupted goes on with the next run.

The hub is asked for new ones after pauses of up to twenty runs: where it sells every few seconds, asking adds
a twentieth to the exchanges, and of many terminals some has the newest. Where it sells less, the pauses are
shorter, down to one run: a small fleet's only terminal must not be ten minutes behind. What it did not take
back is offered again after such pauses too: the refusal may have been of something else.
"""

import logging
from collections.abc import Sequence

from crdt.block import parse
from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from crdt.frames import Ack, BlockFrame, CertificateFrame, Message, Want
from crdt.frontier import Head
from crdt.store.blocks import NO_HEAD
from edge.delivery import Unwanted, is_examined
from edge.errors import AnswerRefused, HubTooSlow, Superseded, UplinkError
from edge.exchange import Answer
from edge.run import Run

log = logging.getLogger(__name__)


class Safekeeping:
    """What one run does for the hub."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._brought: set[tuple[ReplicaId, Head]] = set()

    async def bring_back(self) -> bool:
        """Bring the hub what it has lost of its own; whether it took any. Raises UplinkError."""
        run, taken = self._run, False
        for replica in await run.use(run.ledger.keepsake.contradicted):
            await self._prove(replica)
        for replica, head in (await run.use(run.ledger.keepsake.lost)).items():
            while run.may_go_on and self._may_bring(replica, head):
                reached = await self._bring(replica, head)
                if reached.seq == head.seq:
                    break
                head, taken = reached, True
        return taken

    async def newest(self, hub: ReplicaId) -> list[Message]:
        """The newest block of a hub's own that is kept, with who signed it, to be shown to that hub.

        One that was put back unnoticed does not have it, and books nothing more then; the rest comes later.
        """
        run, keepsake = self._run, self._run.ledger.keepsake
        end = (await run.use(keepsake.heads)).get(hub)
        raw = None if end is None else await run.use(keepsake.block_at, hub, end.seq)
        return [] if raw is None else await self._signed(hub, [raw])

    async def keep(self) -> None:
        """Fetch a part of what the hub has booked since. That it cannot be had is no failure of the run."""
        run, pause = self._run, self._run.delivery.keepsake
        if not pause.is_over():
            return
        await run.use(run.learning.meet_hubs)
        want = await run.use(run.ledger.keepsake.wanted)
        if want is None:
            pause.following = max(1, pause.following // 2)
        if want is None or not run.may_go_on:
            return
        pause.begin()
        try:
            kept = await self._fetch(want)
        except Superseded:
            raise
        except UplinkError as error:
            log.warning("the hub's own entries were not kept for it: %s", error)
            return
        if kept and await run.use(run.ledger.keepsake.wanted) is not None:
            pause.left = 0

    async def _fetch(self, want: Want) -> int:
        """How many blocks were kept. Where they do not continue what is kept, the hub is shown that."""
        run = self._run
        answer = await run.say({}, [want])
        try:
            return await run.checked(run.ledger.keepsake.keep, _blocks(answer))
        except AnswerRefused as error:
            if error.code is RefusalCode.CHAIN_BROKEN:
                for replica in want.after:
                    await self._prove(replica)
            raise

    def _may_bring(self, replica: ReplicaId, after: Head) -> bool:
        """Whether it was not tried in this run, and not lately in vain."""
        if (replica, after) in self._brought:
            return False
        self._brought.add((replica, after))
        unwanted = self._run.delivery.unwanted.get(replica)
        return unwanted is None or unwanted.head != after or unwanted.pause.is_over()

    async def _bring(self, replica: ReplicaId, after: Head) -> Head:
        """One exchange; how far the hub holds the chain then: `after` where it has not moved."""
        run, keepsake = self._run, self._run.ledger.keepsake
        raws = await run.use(keepsake.blocks_after, replica, after.seq, run.delivery.push_bytes)
        if not raws:
            return after
        ends = await run.use(keepsake.heads)
        try:
            answer = await run.say({replica: ends[replica]}, await self._signed(replica, raws))
        except HubTooSlow:
            run.delivery.timed_out()
            raise
        reached = _acknowledged(answer, replica)
        if reached is None or reached.seq <= after.seq:
            refusals = "; ".join(one.text for one in answer.refusals) or RefusalCode.CHAIN_BROKEN.name
            log.warning("the hub does not take back its own entries after %d: %s", after.seq, refusals)
            if _is_judged(answer):
                self._not_wanted(replica, after)
            return after
        log.warning("the hub was put back; it has its own entries up to %d again", reached.seq)
        return reached

    async def _prove(self, replica: ReplicaId) -> None:
        """Bring what is kept of a hub's chain beside that of its own, in order; it is kept no longer then."""
        run, keepsake = self._run, self._run.ledger.keepsake
        end = (await run.use(keepsake.heads)).get(replica)
        if end is None or not self._may_bring(replica, end):
            return
        seq = await self._agreed(replica, end.seq)
        while seq is not None and run.may_go_on:
            raws = await run.use(keepsake.blocks_after, replica, seq, run.delivery.push_bytes)
            if not raws:
                return
            answer = await self._offer(replica, raws)
            if not _is_taken(answer, replica, parse(raws[0]).header.first_seq):
                break
            seq = parse(raws[-1]).last_seq
            if answer.refusals:
                log.warning("the hub was put back, and numbered its entries up to %d again; it was told", seq)
                await run.use(keepsake.forget, raws)
        self._not_wanted(replica, end)

    async def _agreed(self, replica: ReplicaId, seq: int) -> int | None:
        """Up to which number, at most `seq`, the hub has the same entries as are kept; None: it does not say.

        It is asked at steps that double, so it may have more. 0: none.
        """
        step = 1
        while self._run.may_go_on:
            raw = await self._run.use(self._run.ledger.keepsake.block_at, replica, seq)
            if raw is None:
                return 0
            answer, block = await self._offer(replica, [raw]), parse(raw)
            if not is_examined(answer):
                return None
            if not answer.refusals:
                return block.last_seq
            seq, step = block.header.first_seq - step, 2 * step
        return None

    async def _offer(self, replica: ReplicaId, raws: Sequence[bytes]) -> Answer:
        run = self._run
        try:
            return await run.say({}, await self._signed(replica, raws))
        except HubTooSlow:
            run.delivery.timed_out()
            raise

    async def _signed(self, replica: ReplicaId, raws: Sequence[bytes]) -> list[Message]:
        run = self._run
        certificate = CertificateFrame((await run.use(run.ledger.authors))[replica].encode())
        return [certificate, *map(BlockFrame, raws)]

    def _not_wanted(self, replica: ReplicaId, after: Head) -> None:
        unwanted = self._run.delivery.unwanted
        if replica not in unwanted or unwanted[replica].head != after:
            unwanted[replica] = Unwanted(after)
        unwanted[replica].pause.begin()


def _blocks(answer: Answer) -> list[bytes]:
    return [message.raw for message in answer.messages if isinstance(message, BlockFrame)]


def _is_judged(answer: Answer) -> bool:
    """Whether the hub has looked at the blocks and will not have them; else the next run tries again."""
    judged = any(isinstance(message, Ack) for message in answer.messages)
    return judged and any(refusal.code is not RefusalCode.COME_AGAIN for refusal in answer.refusals)


def _is_taken(answer: Answer, replica: ReplicaId, first_seq: int) -> bool:
    """Whether the hub has all of the blocks now, from this number on: in its chain, or as evidence.

    What comes after a gap it has not, and says so with the code that the first block beside its head has too.
    """
    held = _acknowledged(answer, replica) or NO_HEAD
    as_evidence = {RefusalCode.FORK_DETECTED}
    if first_seq <= held.seq + 1:
        as_evidence.add(RefusalCode.CHAIN_BROKEN)
    return is_examined(answer) and all(refusal.code in as_evidence for refusal in answer.refusals)


def _acknowledged(answer: Answer, replica: ReplicaId) -> Head | None:
    acks = (message.frontier for message in answer.messages if isinstance(message, Ack))
    return next((frontier[replica] for frontier in acks if replica in frontier), None)
