"""Two chains of one replica: this terminal's storage was restored from an old copy, or copied.

The hub's chain counts, because it was there first. The terminal makes it its own, writes again what the hub
lacks, and if its present identity is concerned takes a new one, all in the run that found it out.
"""

import logging
from collections.abc import Collection, Sequence

from crdt.block import parse
from crdt.certificate import AuthorCertificate
from crdt.errors import InputRefused, RefusalCode
from crdt.facts import ReplicaId
from crdt.frames import CertificateFrame, DocumentFrame
from crdt.frontier import Frontier, Head
from crdt.settlement import Page
from crdt.store.blocks import NO_HEAD
from edge.canonical import canonical_chain
from edge.delivery import is_cut_off, is_for_later, is_fork
from edge.ended import Ended
from edge.errors import AnswerRefused, HubRefused, LedgerBehind, UplinkError
from edge.exchange import Answer
from edge.next_identity import NextIdentity
from edge.run import Run

MAX_OVERTAKEN = 8
"""Questions in one run that may be put again because more was sealed meanwhile."""

log = logging.getLogger(__name__)


class GivingWay:
    """What one run finds out about chains of this terminal that are not the hub's."""

    def __init__(self, run: Run, next_identity: NextIdentity, ended: Ended) -> None:
        self._run = run
        self._next = next_identity
        self._ended = ended
        self._contested: dict[ReplicaId, UplinkError] = {}
        self._offered: dict[ReplicaId, Head] = {}
        self._overtaken = 0
        self.conceded: set[ReplicaId] = set()
        """Those of which the hub's chain was asked for, and taken where it was to be had."""

    @property
    def contested(self) -> set[ReplicaId]:
        """Chains that `heal` has to look at before more is sent or installed."""
        return set(self._contested)

    async def refused(self, replica: ReplicaId, after: Head, error: UplinkError) -> None:
        """The hub did not take blocks after its head: one of ours may have to give way, others are a note."""
        if is_cut_off(error):  # the list that says so comes in this run, and says what counts of them here
            self._run.skipped.add(replica)
            self._ended.note(replica, after.seq)
            return
        own = is_fork(error) and replica not in self.conceded and replica in await self._run.own_replicas()
        if own:
            self._contested[replica] = error
            self._offered[replica] = after
        else:
            self._run.give_up(replica, error)

    async def heal(self, answer: Answer, mine: Frontier) -> bool:
        """Give way where it has to be, by the hub's answer to these heads; whether anything has changed."""
        run, theirs = self._run, answer.hello.frontier
        if await self._is_overtaken(mine, theirs):
            return True
        contested = self._contested | await self._behind(mine, theirs)
        self._contested = {}
        changed = False
        await self._hear_of_former(contested, answer)
        for replica, error in contested.items():
            level = theirs.get(replica, NO_HEAD) == mine.get(replica, NO_HEAD)
            if not (level or replica in run.skipped or self._next.compares(replica)):
                changed = await self._settled(replica, theirs.get(replica, NO_HEAD), error) or changed
        if answer.refusals and not run.ledger.suspended:
            await run.use(run.ledger.suspend)
        if changed or not run.ledger.suspended:
            return changed
        replica = run.identity.replica
        if replica in self._ended or replica in (await run.use(run.ledger.revocations)).cut_offs:
            return await self._next.take()
        # What continues the hub's chain goes up first: with the renewal the chain ends there.
        if self._next.postpone() or mine.get(replica, NO_HEAD).seq > theirs.get(replica, NO_HEAD).seq:
            return False
        return await self._next.take()

    async def check(self, page: Page) -> bool:
        """Whether a final page may be installed: no chain of this terminal that it contradicts may stay."""
        run = self._run
        for replica, head in (await run.use(run.ledger.contested, page)).items():
            if replica not in self.conceded and replica not in run.skipped:
                mine = await run.use(run.ledger.frontier)
                self._contested[replica] = self._error(replica, head, mine)
        return not self._contested

    async def _is_overtaken(self, mine: Frontier, theirs: Frontier) -> bool:
        """Whether more was sealed here since the question, so that its answer proves nothing of this chain.

        The other door may have brought the newer block to the hub before the question came: ask again.
        """
        replica = self._run.identity.replica
        named = mine.get(replica, NO_HEAD)
        moved = theirs.get(replica, NO_HEAD) != named != await self._run.use(self._run.ledger.own_head)
        self._overtaken += moved
        return moved and self._overtaken <= MAX_OVERTAKEN

    async def _behind(self, mine: Frontier, theirs: Frontier) -> dict[ReplicaId, UplinkError]:
        """Identities of this terminal of which the hub holds something that is not here.

        One that the storage had of another terminal may go on there, and the hub names its head only where
        ours is within its chain, or as far.
        """
        ahead: dict[ReplicaId, Head] = {}
        for replica, head in theirs.items():
            here = mine.get(replica, NO_HEAD)
            if head == here:
                self._run.delivery.disputed.pop(replica, None)
                self._run.delivery.later.discard(replica)
            elif head.seq >= here.seq:
                ahead[replica] = head
        if not ahead:  # so it is in most runs
            return {}
        terminals, storages = await self._run.terminals_replicas(), await self._run.storages_replicas()
        return {
            one: self._error(one, head, mine)
            for one, head in ahead.items()
            if one in terminals or (one in storages and head.seq == mine.get(one, NO_HEAD).seq)
        }

    async def _settled(self, replica: ReplicaId, head: Head, why: UplinkError) -> bool:
        """Settle what is contested about one replica; whether the run has something new to go on with."""
        before = self._offered.pop(replica, head)
        if head != before and await self._run.use(self._continues, replica, head):
            return True  # the hub itself has gone back meanwhile: it is sent more
        if replica in self.conceded:
            self._run.give_up(replica, why)
            return False
        self.conceded.add(replica)
        try:
            return await self._concede(replica, why)
        except HubRefused as error:  # it does not show its chain, or only once it has cut it
            self._run.give_up(replica, error if is_for_later(error) else why)
        except AnswerRefused as error:
            self._run.give_up(replica, error)
        return False

    async def _hear_of_former(self, contested: Collection[ReplicaId], answer: Answer) -> None:
        """Where one of these is a former identity: this answer may bring a list by which it was replaced."""
        if not contested or (await self._run.storages_replicas()).isdisjoint(contested):
            return
        for message in answer.messages:
            if isinstance(message, CertificateFrame | DocumentFrame):
                await self._run.hear(message)

    async def _leave(self, replica: ReplicaId, blocks: Sequence[bytes]) -> bool:
        """Seal nothing more, and leave it to the next identity to give way to the hub's chain of a former one
        that was replaced: where that lacks something held here, others may have written it again by now."""
        run = self._run
        if replica not in await run.storages_replicas():
            return False
        if replica not in (await run.use(run.ledger.revocations)).written_again:
            return False
        head = (await run.use(run.ledger.frontier)).get(replica, NO_HEAD)
        theirs = map(parse, blocks)
        if any(head.hash in (block.hash, block.header.previous) for block in theirs):
            return False
        await run.use(run.ledger.suspend)
        self._next.leave(replica)
        return True

    def _continues(self, replica: ReplicaId, head: Head) -> bool:
        blocks = self._run.ledger.blocks_after(head.seq, 1, replica)
        return any(parse(raw).header.previous == head.hash for raw in blocks[:1])

    async def _concede(self, replica: ReplicaId, why: UplinkError) -> bool:
        run = self._run
        settled = await run.use(run.ledger.settled_frontier, [replica])
        for after_seq in dict.fromkeys([settled.get(replica, NO_HEAD).seq, 0]):
            try:
                chain = await canonical_chain(lambda wanted: run.say({}, wanted), replica, after_seq)
                if not chain.blocks:
                    continue
                if await self._leave(replica, chain.blocks):
                    return False
                count = await run.use(self._take, replica, chain.blocks, chain.certificates)
            except AnswerRefused as error:
                if error.code is not RefusalCode.CHAIN_BROKEN or after_seq == 0:
                    raise
                continue  # the chains part before the settlement
            log.warning("gave way to the hub's chain of %s; %d taps are written again", replica.hex(), count)
            return True
        run.give_up(replica, why)
        return False

    def _take(
        self, replica: ReplicaId, blocks: Sequence[bytes], certificates: Sequence[AuthorCertificate]
    ) -> int:
        try:
            return self._run.ledger.concede(replica, blocks, certificates).reissued
        except InputRefused as error:
            raise AnswerRefused(error.code, str(error)) from error

    def _error(self, replica: ReplicaId, head: Head, mine: Frontier) -> LedgerBehind:
        current = replica == self._run.identity.replica
        author = "this terminal" if current else f"its earlier identity {replica.hex()}"
        advice = "Pair the terminal again." if current else "The operator has to compare the two."
        own_seq = mine.get(replica, NO_HEAD).seq
        return LedgerBehind(
            f"The hub holds taps of {author} up to {head.seq}; the terminal's own ledger ends at {own_seq} or"
            f" differs: an old copy of the storage was restored. {advice}"
        )
