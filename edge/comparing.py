"""Before a restored terminal goes on under a new identity: what it was until now against the hub.

An old copy of a storage may hold taps, not sealed there, that its former life sealed and sent, or wrote again
under an identity that the copy does not know. The new identity would write them once more. So the hub has
ended the former identity when it gave the new one, and what it has of its chain, which grows no more, counts:
only what is not in it, nor in a chain of another identity that the terminal had, is left for the new one to
write. A hub that does not show it is asked again, as the new identity, before anything else is said to it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from crdt.errors import InputRefused, RefusalCode
from crdt.frames import Hello, Message, Pull
from crdt.revocations import REVOKED_DOCUMENT
from crdt.store.blocks import NO_HEAD
from crdt.store.conceding import Chain
from edge import revoked_list
from edge.canonical import canonical_chain
from edge.errors import AnswerRefused, Superseded
from edge.exchange import Answer
from edge.promised import Promised
from edge.terminal import Enrolment, Terminal

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
    """Give way to the hub's chain of `before`, which has ended, over an exchange as the promised identity.

    How many taps of blocks are written again. Raises UplinkError or InputRefused; then nothing has changed.
    """
    ledger, certificate = before.ledger, before.identity.certificate
    replica = certificate.replica
    version = await asyncio.to_thread(revoked_list.version_of, ledger)
    asking: list[Message] = [Pull(*ledger.settled(), {REVOKED_DOCUMENT: version})]
    papers: list[Message] = []

    async def say(messages: Sequence[Message]) -> Answer:
        hello = Hello(promised.identity.fleet, promised.identity.replica, {})
        answer = await exchange([hello, *asking, *messages])
        if asking:
            papers.extend(answer.messages)
            asking.clear()
        return answer

    def concede(after_seq: int, blocks: Sequence[bytes]) -> int:
        with terminal.syncing(before.identity):
            # The list says what an operator has decided; and peers have to be told of it with what is
            # written again.
            revoked_list.learn(promised.identity, ledger, papers)
            done = ledger.concede(replica, blocks, [certificate], after_seq=after_seq, ended=True, kin=kin)
        return done.reissued

    settled = (await asyncio.to_thread(ledger.settled_frontier, [replica])).get(replica, NO_HEAD)
    chain = await canonical_chain(say, replica, settled.seq)
    kin: list[Chain] = []
    for other in sorted(set(promised.former) - {replica, promised.identity.replica}):
        found = await canonical_chain(say, other, 0)
        if found.blocks:
            kin.append((other, found.blocks, found.certificates))
    try:
        return await asyncio.to_thread(concede, settled.seq, chain.blocks)
    except InputRefused as error:
        if error.code is not RefusalCode.CHAIN_BROKEN or not settled.seq:
            raise
    chain = await canonical_chain(say, replica, 0)  # they part before the settlement
    return await asyncio.to_thread(concede, 0, chain.blocks)
