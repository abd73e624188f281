"""Two chains of one replica: this terminal's storage was restored from an old copy, or copied.

The hub's chain counts, because it was there first. The terminal makes it its own, writes again what the hub
lacks, and if its present identity is concerned takes a new one, all in the run that found it out.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from crdt.block import parse
from crdt.certificate import AuthorCertificate
from crdt.errors import InputRefused, RefusalCode
from crdt.facts import MAX_SEQ, ReplicaId
from crdt.frames import CertificateFrame, DocumentFrame
from crdt.frontier import Frontier, Head
from crdt.settlement import Page
from crdt.store.blocks import NO_HEAD
from edge.canonical import canonical_chain
from edge.comparing import take_up
from edge.delivery import is_cut_off, is_for_later, is_fork
from edge.errors import AnswerRefused, HubRefused, LedgerBehind, Superseded, UplinkError
from edge.exchange import Answer
from edge.run import Exchange, Run

MAX_OVERTAKEN = 8
"""Questions in one run that may be put again because more was sealed meanwhile."""

Renew = Callable[[Sequence[bytes]], Awaitable[Exchange]]
"""Have the hub promise a new identity, telling it the hashes of blocks whose facts were written again; the
way to the hub as that. Raises UplinkError."""

log = logging.getLogger(__name__)


class GivingWay:
    """What one run finds out about chains of this terminal that are not the hub's."""

    def __init__(self, run: Run, renew: Renew | None) -> None:
        self._run = run
        self._renew = renew
        self._contested: dict[ReplicaId, UplinkError] = {}
        self._offered: dict[ReplicaId, Head] = {}
        self._ended: dict[ReplicaId, int] = {}  # by the hub's word, after these numbers
        self.doubts_list = False  # the one held, until the hub is asked for its own: see `finds_another_list`
        self._has_doubted = False  # in this run
        self._kept: set[ReplicaId] = set()  # for the next identity to compare with
        self._overtaken = 0
        self.conceded: set[ReplicaId] = set()
        self.renewed = False
        self._refused = False  # a new identity, in this run
        self._waits = False  # to ask for one until the hub takes more, which is another run

    @property
    def contested(self) -> set[ReplicaId]:
        """Chains that `heal` has to look at before more is sent or installed."""
        return set(self._contested)

    @property
    def is_due(self) -> bool:
        """Whether the terminal was replaced, by the list held now, and the hub was not asked for the next
        identity in this run so far, but may be."""
        return self._run.ledger.was_replaced and not (self.renewed or self._refused or self._waits)

    @property
    def is_for_the_next(self) -> bool:
        """Whether another identity installs settlements: the one that writes again what the hub lacks."""
        return self._run.ledger.was_replaced or bool(self._kept)

    async def refused(self, replica: ReplicaId, after: Head, error: UplinkError) -> None:
        """The hub did not take blocks after its head: one of ours may have to give way, others are a note."""
        if is_cut_off(error):  # the list that says so comes in this run, and says what counts of them here
            self._run.skipped.add(replica)
            self._ended[replica] = after.seq
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
            if replica not in run.skipped | self._kept and not level:
                changed = await self._settled(replica, theirs.get(replica, NO_HEAD), error) or changed
        if answer.refusals and not run.ledger.suspended:
            await run.use(run.ledger.suspend)
        if changed or not run.ledger.suspended:
            return changed
        replica = run.identity.replica
        if replica in self._ended or replica in (await run.use(run.ledger.revocations)).cut_offs:
            return await self._renewed()
        # What continues the hub's chain goes up first: with the renewal the chain ends there.
        self._waits = replica in run.skipped
        if self._waits or mine.get(replica, NO_HEAD).seq > theirs.get(replica, NO_HEAD).seq:
            return False
        return await self._renewed()

    async def finds_another_list(self) -> bool:
        """Whether the hub has turned out just now to go by another list of revocations than the one held.

        It has brought none, so its own has the same number: it was put back, and does not know it. Once in a
        run, for it may be a lie.
        """
        if self._has_doubted:
            return False
        self._has_doubted = not all([await self._is_cut_off(*ended) for ended in self._ended.items()])
        self.doubts_list = self._has_doubted
        return self.doubts_list

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

    async def _keep(self, replica: ReplicaId, blocks: Sequence[bytes]) -> bool:
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
        self._kept.add(replica)
        return True

    async def _is_cut_off(self, replica: ReplicaId, seq: int) -> bool:
        """Whether by the list held, too, no block of this chain counts that follows this number."""
        run = self._run
        cut_off = (await run.use(run.ledger.revocations)).cut_offs.get(replica, MAX_SEQ)
        following = await run.use(run.ledger.blocks_after, seq, 1, replica)
        return all(parse(raw).last_seq > cut_off for raw in following[:1])

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
                if await self._keep(replica, chain.blocks):
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

    async def _renewed(self) -> bool:
        """Go on as a new identity; False when there is none to be had now.

        Raises UplinkError when the hub has promised one and does not show what it has of this one: as this
        one nothing may be said any more.
        """
        run, before = self._run, self._run.identity.replica
        if self._refused:
            return False
        try:
            if self._renew is None or self.renewed:
                raise _needs_identity()  # noqa: TRY301 - as when the hub gives none
            exchange = await self._renew(await run.use(run.ledger.reissued))
        except UplinkError as error:
            self._refused = True
            run.give_up(before, error)
            return False
        promised = run.terminal.promised
        if promised is None:
            raise Superseded("The terminal was paired anew meanwhile.")
        run.become(await take_up(run.terminal, promised, exchange), exchange)
        self.renewed = True
        self._kept.clear()
        return True

    def _error(self, replica: ReplicaId, head: Head, mine: Frontier) -> LedgerBehind:
        current = replica == self._run.identity.replica
        author = "this terminal" if current else f"its earlier identity {replica.hex()}"
        advice = "Pair the terminal again." if current else "The operator has to compare the two."
        own_seq = mine.get(replica, NO_HEAD).seq
        return LedgerBehind(
            f"The hub holds taps of {author} up to {head.seq}; the terminal's own ledger ends at {own_seq} or"
            f" differs: an old copy of the storage was restored. {advice}"
        )


def _needs_identity() -> LedgerBehind:
    return LedgerBehind(
        "An old copy of the storage was restored. Taps are taken and kept; they can be sent once the terminal"
        " has a new identity. Pair the terminal again."
    )
