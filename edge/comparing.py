"""Before a restored terminal goes on under a new identity: what it was until now against the hub.

An old copy of a storage may hold taps, not sealed there, that its former life sealed and sent, or wrote again
under an identity that the copy does not know. The new identity would write them once more. So the hub has
ended the former identity when it gave the new one, and what it has of its chain, which grows no more, counts:
only what is not in it, nor in a chain of another identity that had this storage, is left for the new one to
write. Those chains are taken in first, and the list of revocations by which it has ended, so that no view
lacks what is not written again. A hub that does not show its chain is asked again, as the new identity,
before anything else is said to it.

The same goes for one before that, which has ended so and had not sent all that it wrote when the terminal was
paired anew: the terminal had not heard of it then, or it came later.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from crdt.block import parse
from crdt.errors import InputRefused, RefusalCode
from crdt.facts import ReplicaId
from crdt.frames import Hello, Message
from crdt.frontier import MAX_FRONTIER, Head
from crdt.pull import Pull
from crdt.revocations import REVOKED_DOCUMENT
from crdt.store.blocks import NO_HEAD
from crdt.store.conceding import Chain
from edge import revoked_list
from edge.canonical import CanonicalChain, canonical_chain
from edge.errors import AnswerRefused, HubRefused, HubTooSlow, Superseded
from edge.exchange import Answer
from edge.promised import Promised
from edge.terminal import Enrolment, Terminal

AT_A_TIME = 16
"""Blocks of a chain that are taken in: it may be years long."""

Exchange = Callable[[Sequence[Message]], Awaitable[Answer]]

log = logging.getLogger(__name__)


async def take_up(terminal: Terminal, promised: Promised, exchange: Exchange) -> Enrolment:
    """Become the identity that the hub has promised, over an exchange as it, once all is compared.

    Raises UplinkError, Superseded when the terminal was paired meanwhile; the promise is kept then, and
    doing it again changes nothing that was done.
    """
    before = terminal.enrolment
    if before is None or terminal.promised is not promised:
        raise Superseded("The terminal was paired anew meanwhile.")
    try:
        again = await compare(terminal, before, promised, exchange)
        await asyncio.to_thread(terminal.enrol, promised.identity, before.identity)
    except InputRefused as error:
        raise AnswerRefused(error.code, str(error)) from error
    after = terminal.enrolment
    if after is None or after.identity is not promised.identity:
        raise Superseded("The terminal was paired anew meanwhile.")
    was, now = before.identity.replica.hex(), promised.identity.replica.hex()
    log.warning("goes on as %s after %s; %d taps of its blocks are written again", now, was, again)
    return after


async def compare(terminal: Terminal, before: Enrolment, promised: Promised, exchange: Exchange) -> int:
    """Give way to the hub's chain of `before`, which has ended, over an exchange as the promised identity;
    and to those of identities before it that were replaced.

    How many taps of blocks are written again. Raises UplinkError or InputRefused; then that of `before` has
    not given way, whatever was learnt of others.
    """
    comparison = _Comparison(terminal, before, promised, exchange)
    replica, ledger = before.identity.replica, before.ledger
    settled = (await asyncio.to_thread(ledger.settled_frontier, [replica])).get(replica, NO_HEAD)
    try:
        return await comparison.give_way(settled.seq)
    except (AnswerRefused, InputRefused) as error:
        if error.code is not RefusalCode.CHAIN_BROKEN or not settled.seq:
            raise
    return await comparison.give_way(0)  # they part before the settlement


@dataclass
class _Comparison:
    """What the hub has shown so far."""

    terminal: Terminal
    before: Enrolment
    promised: Promised
    exchange: Exchange
    papers: Sequence[Message] | None = None
    """The answer to the first question, with the list of revoked identities."""
    kin: list[Chain] = field(default_factory=list)

    async def ask(self, replica: ReplicaId, after_seq: int) -> CanonicalChain:
        """The hub's chain of an identity."""
        return await canonical_chain(self._say, replica, after_seq)

    async def give_way(self, after_seq: int) -> int:
        """To the hub's chain after a number; how many taps of blocks are written again."""
        chain = await self.ask(self.before.identity.replica, after_seq)
        self.kin = self.kin or await self.ask_kin()
        return await asyncio.to_thread(self.concede, after_seq, chain.blocks)

    async def ask_kin(self) -> list[Chain]:
        """The hub's chains of the terminal's other identities, and of who had its storage too, whole.

        That of the promised one, too: this storage may be a copy, of which the original has taken it up.
        """
        here = await asyncio.to_thread(self.before.ledger.former, MAX_FRONTIER)
        others = {*self.promised.former, self.promised.identity.replica, *here}
        found: list[Chain] = []
        for other in sorted(others - {self.before.identity.replica}):
            chain = await self.ask(other, 0)
            found.append((other, chain.blocks, chain.certificates))
        return found

    def concede(self, after_seq: int, blocks: Sequence[bytes]) -> int:
        """Give way; how many taps of blocks are written again."""
        ledger, certificate = self.before.ledger, self.before.identity.certificate
        with self.terminal.syncing(self.before.identity):
            # The list says what an operator has decided, and peers have to be told of it with what is written
            # again. It holds at once with that: it cuts off what only counts on because it is written again.
            held = ledger.document(REVOKED_DOCUMENT)
            listed = revoked_list.meet(self.promised.identity, ledger, self.papers or ())
            if listed is not None and (ledger.former(MAX_FRONTIER) or any(raws for _, raws, _ in self.kin)):
                ledger.put_document(listed)  # so that what both say counts once, see below
                revoked_list.tell_kept(ledger, listed, held)
                listed = None
            again = self._concede_former()
            done = ledger.concede(
                certificate.replica,
                blocks,
                [certificate],
                after_seq=after_seq,
                ended=True,
                kin=self.kin,
                listed=listed,
            )
            if listed is not None:
                revoked_list.tell_kept(ledger, listed, held)
            return again + done.reissued

    def _concede_former(self) -> int:
        """Take the chains of kin in, and give way to those of former identities of this storage; how many
        taps of their blocks are written again. Of one that was replaced: all that the hub has not."""
        ledger = self.before.ledger
        ended, held = ledger.revocations().written_again, ledger.frontier()
        heads = {one: held[one] for one in ledger.former(MAX_FRONTIER) if one in held}
        beside = [chain for chain in self.kin if chain[0] in heads and not _has(chain, heads[chain[0]])]
        for chain in self.kin:
            if chain not in beside:
                self._take_in(chain)
        return sum(self._give_way(chain, chain[0] in ended) for chain in beside)

    def _give_way(self, chain: Chain, ended: bool) -> int:
        """To the hub's chain of a former identity; how many taps of blocks are written again."""
        ledger, (replica, raws, certificates) = self.before.ledger, chain
        kin = [other for other in self.kin if other is not chain]
        settled = ledger.settled_frontier([replica]).get(replica, NO_HEAD)
        after_seq = settled.seq if _has(chain, settled) else 0  # else they part before the settlement
        after = [raw for raw in raws if parse(raw).header.first_seq > after_seq]
        return ledger.concede(
            replica, after, certificates, after_seq=after_seq, ended=ended, kin=kin
        ).reissued

    def _take_in(self, chain: Chain) -> None:
        """What it says is not written again, so it has to be here: a settlement may be long in coming."""
        replica, raws, certificates = chain
        for at in range(0, len(raws), AT_A_TIME):
            report = self.before.ledger.merge(raws[at : at + AT_A_TIME], certificates)
            for refused in report.refused:
                log.warning("a block of %s at the hub is not taken in: %s", replica.hex(), refused.error)

    async def _say(self, messages: Sequence[Message]) -> Answer:
        identity, asking = self.promised.identity, list[Message]()
        if self.papers is None:
            version = await asyncio.to_thread(revoked_list.version_of, self.before.ledger)
            asking.append(Pull(*self.before.ledger.settled(), {REVOKED_DOCUMENT: version}))
        answer = await self.exchange([Hello(identity.fleet, identity.replica, {}), *asking, *messages])
        if self.papers is None:
            self.papers = await self._after_reminding(answer)
        return answer

    async def _after_reminding(self, answer: Answer) -> Sequence[Message]:
        """The hub's papers; once it was told whom it had ended before it was put back, if it has lost that.

        Else its list, which ends what is compared, would leave those out, and could not be kept for peers.
        """
        identity, ledger = self.promised.identity, self.before.ledger
        given = revoked_list.among(answer.messages)
        lost = await asyncio.to_thread(revoked_list.lost, ledger, answer.hello.replica, given)
        if lost is None:
            return answer.messages
        papers = revoked_list.papers(lost.held, await asyncio.to_thread(ledger.authors))
        with suppress(HubTooSlow, HubRefused):  # what it does not hear now it is told in each run
            told = await self.exchange([Hello(identity.fleet, identity.replica, {}), *papers])
            return answer.messages if revoked_list.among(told.messages) is None else told.messages
        return answer.messages


def _has(chain: Chain, head: Head) -> bool:
    """Whether this block is in a chain, so that what is held of it has nothing that the chain has not."""
    return any(parse(raw).hash == head.hash for raw in chain[1])
