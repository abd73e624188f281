"""What a run makes of the hub's word that a chain has ended, and when it asks for another identity."""

import asyncio
from collections.abc import Sequence

from crdt.frames import Message
from crdt.revocations import NONE_REVOKED
from edge.delivery import Delivery
from edge.ended import Ended
from edge.exchange import Answer
from edge.next_identity import NextIdentity
from edge.run import Run
from edge.terminal import Terminal
from tests.edge.authority import Fleet
from tests.edge.doors import revoked
from tests.edge.test_revoked import listed
from tests.edge.test_uplink import CARDS, enrolled, ride


def run_of(terminal: Terminal) -> Run:
    """A run that says nothing to anybody."""

    async def no_way(_messages: Sequence[Message]) -> Answer:
        raise AssertionError("nobody is asked")

    return Run(terminal, enrolled(terminal), no_way, Delivery(), retry=True)


async def test_a_list_that_knows_nothing_of_an_end_is_doubted_once_in_a_run(paired: Terminal) -> None:
    """Invariant 8: a hub that goes on to refuse what no list ends does not keep the terminal asking."""
    await asyncio.to_thread(ride, paired, CARDS[0])
    await asyncio.to_thread(enrolled(paired).ledger.seal)
    ended = Ended(run_of(paired))
    assert not await ended.contradicts_list()
    ended.note(enrolled(paired).ledger.replica, 0)
    assert await ended.contradicts_list()
    assert [ended.take_doubt() for _ in range(2)] == [True, False], "one question asks for the list"
    assert not await ended.contradicts_list()
    assert not ended.take_doubt()


async def test_a_list_that_says_so_too_is_not_doubted(paired: Terminal, fleet: Fleet) -> None:
    await asyncio.to_thread(ride, paired, CARDS[0])
    ledger = enrolled(paired).ledger
    await asyncio.to_thread(ledger.seal)
    await asyncio.to_thread(ledger.put_document, revoked(fleet, {ledger.replica: 0}))
    ended = Ended(run_of(paired))
    ended.note(ledger.replica, 0)
    assert not await ended.contradicts_list()
    assert not ended.take_doubt()


async def test_the_next_identity_waits_while_the_hub_takes_no_more_of_the_chain(
    paired: Terminal, fleet: Fleet
) -> None:
    """The renewal would end the chain before what the hub has no room for now."""
    ledger, run = enrolled(paired).ledger, run_of(paired)
    following = NextIdentity(run, None)

    def due() -> bool:
        return following.is_due

    assert not due()
    replaced = NONE_REVOKED.with_replaced({ledger.replica: 0})
    await asyncio.to_thread(ledger.put_document, listed(fleet, replaced, 1))
    assert due()
    run.skipped.add(ledger.replica)
    assert following.postpone()
    assert not due()
    run.skipped.clear()
    assert not following.postpone()
    assert due()
    assert not await following.take(), "nobody gives one"
    assert not due()
