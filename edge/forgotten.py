"""A promised identity that the hub does not know: it was put back from a backup, and has forgotten it.

To that hub the terminal is what it was before, which has not ended there. So it speaks as that once more, and
only to be promised another identity. First it brings what the hub had settled of it: that is on the chain
that counts, and would wait for an operator once the chain has ended. With the request goes the certificate of
the forgotten identity: a copy of this storage may have taken it up and written under it, so that ends too.
"""

from crdt.block import parse
from crdt.frames import BlockFrame, CertificateFrame
from crdt.store.blocks import NO_HEAD
from edge.comparing import take_up
from edge.delivery import at_a_time, confirmed
from edge.errors import AnswerRefused, HubRefused, Superseded
from edge.next_identity import Renew
from edge.run import Exchange, Run


async def take_up_another(run: Run, as_before: Exchange, renew: Renew) -> None:
    """Have another identity promised over an exchange as what the terminal was, and go on as that.

    Raises UplinkError; then the terminal is what it was, and whichever promise it has is kept.
    """
    run.become(run.enrolment, as_before)
    await _bring_what_was_settled(run)
    exchange = await renew(await run.use(run.ledger.reissued))
    promised = run.terminal.promised
    if promised is None:
        raise Superseded("The terminal was paired anew meanwhile.")
    run.become(await take_up(run.terminal, promised, exchange), exchange)


async def _bring_what_was_settled(run: Run) -> None:
    """Of the present identity, as far as it is here; what the hub refuses of it, an operator has to see."""
    replica = run.identity.replica
    settled = (await run.use(run.ledger.settled_frontier, [replica])).get(replica, NO_HEAD)
    if not settled.seq:
        return
    answer = await run.say({replica: settled}, [])
    held = answer.hello.frontier.get(replica, NO_HEAD)
    certificate = CertificateFrame(run.identity.certificate.encode())
    while held.seq < settled.seq and run.may_go_on:
        found = await run.use(run.ledger.blocks_after, held.seq, run.delivery.push_bytes, replica)
        found = [raw for raw in found if parse(raw).last_seq <= settled.seq]
        raws = at_a_time(found, run.delivery.push_bytes)
        if not raws:
            return
        answer = await run.say({replica: settled}, [certificate, *map(BlockFrame, raws)])
        try:
            held = confirmed(answer, replica, held.seq, settled)
        except (HubRefused, AnswerRefused):
            return
