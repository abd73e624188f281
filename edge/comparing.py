"""Before a restored terminal goes on under the identity of a new pairing: its former one against the hub.

An old copy of a storage may hold taps, not sealed there, that its former life sealed and sent. The new
identity would write them again. So the pairing has ended the former identity at the hub, and what the hub has
of its chain, which grows no more, counts: only what is not in it, nor in a chain of another identity that the
terminal had, is left for the new one to write.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from crdt.errors import InputRefused, RefusalCode
from crdt.facts import ReplicaId
from crdt.frames import Hello, Message
from crdt.store.blocks import NO_HEAD
from crdt.store.conceding import Chain
from edge.canonical import canonical_chain
from edge.errors import AnswerRefused, NotCompared, UplinkError
from edge.exchange import Answer
from edge.identity import Identity
from edge.terminal import Enrolment, Terminal

Exchange = Callable[[Sequence[Message]], Awaitable[Answer]]


async def compare(
    terminal: Terminal,
    before: Enrolment,
    identity: Identity,
    former: Collection[ReplicaId],
    exchange: Exchange,
) -> int:
    """Give way to the hub's chain of `before`, which has ended, over an exchange as `identity`.

    `former`: all identities that the hub had of this terminal; one that this storage does not know of may
    have written again what is open here. How many taps of blocks are written again. Raises NotCompared; then
    nothing has changed here.
    """
    try:
        return await _compare(terminal, before, identity, former, exchange)
    except UplinkError as error:
        raise NotCompared(
            f"The hub has paired the terminal, but did not show what it holds of it: {error} Without that,"
            " taps could count twice, so the terminal stays as it was and keeps its taps. Ask for a new code"
            " and pair again."
        ) from error


async def _compare(
    terminal: Terminal,
    before: Enrolment,
    identity: Identity,
    former: Collection[ReplicaId],
    exchange: Exchange,
) -> int:
    hello = Hello(identity.fleet, identity.replica, {})

    async def say(messages: Sequence[Message]) -> Answer:
        return await exchange([hello, *messages])

    def concede(after_seq: int, blocks: Sequence[bytes]) -> int:
        with terminal.syncing(before.identity):
            done = ledger.concede(replica, blocks, [certificate], after_seq=after_seq, ended=True, kin=kin)
        return done.reissued

    ledger, certificate = before.ledger, before.identity.certificate
    replica = certificate.replica
    kin: list[Chain] = []
    for other in sorted(set(former) - {replica, identity.replica}):
        found = await canonical_chain(say, other, 0)
        if found.blocks:
            kin.append((other, found.blocks, found.certificates))
    settled = (await asyncio.to_thread(ledger.settled_frontier)).get(replica, NO_HEAD)
    for after_seq in dict.fromkeys([settled.seq, 0]):
        chain = await canonical_chain(say, replica, after_seq)
        try:
            return await asyncio.to_thread(concede, after_seq, chain.blocks)
        except InputRefused as error:
            if error.code is not RefusalCode.CHAIN_BROKEN or after_seq == 0:
                raise AnswerRefused(error.code, str(error)) from error
    raise AssertionError("the chain was asked for from its beginning")
