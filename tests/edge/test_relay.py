"""What a terminal carries to the hub besides its own taps: others' blocks, and what a hub has lost."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from crdt.block import claim_of
from crdt.errors import RefusalCode
from crdt.facts import CardId, ReplicaId
from crdt.frames import (
    Ack,
    BlockFrame,
    Message,
    Refusal,
    ShortBlockFrame,
)
from crdt.store.database import Database
from edge.delivery import MAX_PUSH_BYTES, Delivery
from edge.errors import AnswerRefused
from edge.exchange import Answer
from edge.sync import Outcome, Sync
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, KEY, document
from tests.edge.doors import Door, compared, digests, doors, revoked
from tests.edge.testhub import TestHub, open_ledger

CARD, OTHER_CARD = CardId(b"\x04\x01\x02\x03"), CardId(b"\x04\x09\x09\x09")


@pytest.fixture
def other_database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "other.db", KEY) as opened:
        yield opened


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    return await hub_on(hub_database, fleet)


@pytest.fixture
def two(tmp_path: Path, fleet: Fleet) -> Iterator[list[Door]]:
    with doors(tmp_path, fleet) as found:
        yield found


async def hub_on(database: Database, fleet: Fleet) -> TestHub:
    ledger = await asyncio.to_thread(open_ledger, database, fleet)
    return TestHub(fleet, ledger, document=document(fleet, FARES))


async def synced(door: Door, hub: TestHub, *, knows_numbers: bool = True) -> Outcome:
    async def exchange(messages: list[Message]) -> Answer:
        hub.heard.append(list(messages))
        if not knows_numbers and any(isinstance(one, ShortBlockFrame) for one in messages):
            hello, *_ = await hub.answer_to(messages[:1])
            refused = Refusal(RefusalCode.UNKNOWN_CARD_NUMBER, "no such card")
            return Answer(hello, (refused,), None, 1)  # type: ignore[arg-type]  # it begins with HELLO
        hello, *rest = await hub.answer_to(list(messages))
        return Answer(hello, tuple(rest), None, 1)  # type: ignore[arg-type]  # as above

    enrolment = door.terminal.enrolment
    assert enrolment is not None
    return await Sync(door.terminal, enrolment, exchange, dict, Delivery()).run()  # type: ignore[arg-type]


async def test_a_bus_without_uplink_reaches_the_hub_by_another(two: list[Door], hub: TestHub) -> None:
    """Any terminal may carry another's sealed blocks to the hub; its settlement then agrees with both."""
    carrier, cut_off = two
    await asyncio.to_thread(cut_off.ride, CARD)
    await asyncio.to_thread(cut_off.ledger.seal)
    await compared(carrier, cut_off)
    assert (await synced(carrier, hub)).complete
    assert await asyncio.wrap_future(hub.ledger.balance(CARD)) == 750
    assert carrier.ledger.held() == (0, 0)
    assert {await asyncio.wrap_future(hub.ledger.digest())} == await digests(carrier, cut_off)
    assert (await synced(cut_off, hub)).complete, "what others have brought is no dispute"
    assert cut_off.ledger.held() == (0, 0)


@pytest.fixture
def three(tmp_path: Path, fleet: Fleet) -> Iterator[list[Door]]:
    with doors(tmp_path, fleet, 3) as found:
        yield found


@dataclass
class Slowing:
    """A hub that takes nothing more of one author for now."""

    hub: TestHub
    author: ReplicaId | None
    offered: int = 0

    async def exchange(self, messages: Sequence[Message]) -> Answer:
        taken = [one for one in messages if not self._is_slowed(one)]
        self.offered += len(messages) - len(taken)
        hello, *rest = await self.hub.answer_to(taken)
        if len(taken) < len(messages):
            rest += [Ack({}), Refusal(RefusalCode.COME_AGAIN, "that is enough for today")]
        return Answer(hello, tuple(rest), None, 1)  # type: ignore[arg-type]  # an answer begins with HELLO

    def _is_slowed(self, message: Message) -> bool:
        if not isinstance(message, BlockFrame | ShortBlockFrame):
            return False
        claim = claim_of(message.raw)
        return claim is not None and claim[0] == self.author

    async def sync(self, door: Door, delivery: Delivery, *, retry: bool) -> Outcome:
        enrolment = door.terminal.enrolment
        assert enrolment is not None
        return await Sync(door.terminal, enrolment, self.exchange, dict, delivery, retry).run()


async def test_an_author_that_the_hub_has_enough_of_is_no_dispute(two: list[Door], hub: TestHub) -> None:
    """Nothing is wrong with what is carried for it: it comes again, and not at every tap."""
    carrier, busy = two
    await asyncio.to_thread(busy.ride, CARD)
    await asyncio.to_thread(busy.ledger.seal)
    await compared(carrier, busy)
    line, delivery = Slowing(hub, busy.replica), Delivery()
    for retry in (True, False, False):
        assert (await line.sync(carrier, delivery, retry=retry)).complete
    assert (delivery.notes, line.offered) == ("", 1)
    assert delivery.push_bytes == MAX_PUSH_BYTES, "the carrier's own taps go up as before"
    line.author = None
    assert (await line.sync(carrier, delivery, retry=True)).complete
    assert carrier.ledger.held() == (0, 0)
    assert not delivery.doubtful


async def test_evidence_of_an_author_that_the_hub_has_enough_of_waits_alone(
    three: list[Door], hub: TestHub, fleet: Fleet
) -> None:
    """The proofs about others go up meanwhile, and its own when the hub takes them: of those one block is
    offered now and then, and not all with every run."""
    carrier, *others = three
    for other in others:
        for _ in range(2):
            await asyncio.to_thread(other.ride, CARD)
            await asyncio.to_thread(other.ledger.seal)
        await compared(carrier, other)
    cut_offs = {other.replica: 0 for other in others}
    await asyncio.to_thread(carrier.ledger.put_document, revoked(fleet, cut_offs))
    await asyncio.wrap_future(hub.ledger.put_document(revoked(fleet, cut_offs)))
    line, delivery = Slowing(hub, min(cut_offs)), Delivery()
    for retry, offered in ((True, 2), (True, 3), (False, 3)):
        assert (await line.sync(carrier, delivery, retry=retry)).complete
        assert line.offered == offered
    waiting = await asyncio.to_thread(carrier.ledger.quarantined, 9)
    assert [entry.replica for entry in waiting] == [min(cut_offs)] * 2
    line.author = None
    assert (await line.sync(carrier, delivery, retry=True)).complete
    assert await asyncio.to_thread(carrier.ledger.quarantined, 9) == []


async def test_blocks_go_short_once_the_hub_has_numbered_their_cards(two: list[Door], hub: TestHub) -> None:
    """Card index issued by the hub and used in blocks."""
    door = two[0]
    await asyncio.to_thread(door.ride, CARD)
    await synced(door, hub)
    assert hub.shorts == 0
    await asyncio.to_thread(door.ride, CARD)
    await synced(door, hub)
    assert hub.shorts == 1
    assert await asyncio.wrap_future(hub.ledger.balance(CARD)) == 500


@pytest.mark.parametrize("question", [1, 2])
async def test_a_block_that_overtakes_the_question_by_another_way_is_no_restore(
    two: list[Door], hub: TestHub, question: int
) -> None:
    """Invariant 5, the other way round: a healthy terminal keeps its identity and its taps go up at once."""
    door, other = two
    enrolment = door.terminal.enrolment
    assert enrolment is not None
    await asyncio.to_thread(door.ride, CARD)
    await synced(door, hub)
    await asyncio.to_thread(door.ride, CARD)
    asked = 0

    async def exchange(messages: list[Message]) -> Answer:
        nonlocal asked
        asked += 1
        if asked == question:
            await asyncio.to_thread(door.ride, OTHER_CARD)
            await asyncio.to_thread(door.ledger.seal)
            await compared(other, door)
            assert (await synced(other, hub)).complete
        hello, *rest = await hub.answer_to(list(messages))
        return Answer(hello, tuple(rest), None, 1)  # type: ignore[arg-type]  # it begins with HELLO

    run = Sync(door.terminal, enrolment, exchange, dict, Delivery())  # type: ignore[arg-type]
    assert (await run.run()).complete
    assert not door.ledger.suspended
    assert asked >= question
    assert await asyncio.wrap_future(hub.ledger.balance(CARD)) == 500
    assert {await asyncio.wrap_future(hub.ledger.digest())} == await digests(door, other)


async def test_a_number_the_hub_does_not_know_costs_one_exchange(two: list[Door], hub: TestHub) -> None:
    """The block goes in full after the refusal; nothing depends on numbers."""
    door = two[0]
    await asyncio.to_thread(door.ride, CARD)
    await synced(door, hub)
    await asyncio.to_thread(door.ride, CARD)
    assert (await synced(door, hub, knows_numbers=False)).complete
    assert await asyncio.wrap_future(hub.ledger.balance(CARD)) == 500


async def test_a_hub_that_begins_anew_hears_what_it_had_settled(
    two: list[Door], hub: TestHub, other_database: Database, fleet: Fleet
) -> None:
    """Put back from an old backup, the hub learns which blocks it has lost, before that is forgotten here."""
    lost, kept = two
    await asyncio.to_thread(lost.ride, CARD)
    await synced(lost, hub)
    await synced(kept, hub)
    younger = await hub_on(other_database, fleet)
    await synced(kept, younger)
    assert [sorted(heads) for heads in younger.settled_before] == [[lost.replica]]
    assert younger.settled_before[0][lost.replica] == lost.ledger.own_head()
    await synced(lost, younger)
    assert await asyncio.wrap_future(younger.ledger.balance(CARD)) == 750


async def test_what_was_settled_and_is_held_by_a_peer_only_comes_from_the_peer(
    two: list[Door], hub: TestHub, other_database: Database, fleet: Fleet
) -> None:
    """Invariant 4: a settlement spared a terminal the blocks, and the hub that settled them was put back."""
    author, carrier = two
    await asyncio.to_thread(author.ride, CARD)
    await asyncio.to_thread(author.ledger.seal)
    await compared(carrier, author)
    await asyncio.to_thread(author.ride, CARD)
    await synced(author, hub)
    await synced(carrier, hub)
    younger = await hub_on(other_database, fleet)
    await synced(carrier, younger)
    assert await asyncio.wrap_future(younger.ledger.balance(CARD)) == 750
    await compared(carrier, author)
    await synced(carrier, younger)
    assert await asyncio.wrap_future(younger.ledger.balance(CARD)) == 500
    assert {await asyncio.wrap_future(younger.ledger.digest())} == {
        await asyncio.to_thread(carrier.ledger.digest)
    }


async def test_the_list_of_revoked_terminals_comes_down_and_holds(
    two: list[Door], hub: TestHub, fleet: Fleet
) -> None:
    """Everybody who knows the list refuses what comes after the cut-off, whoever carries it."""
    door, stolen = two
    await asyncio.to_thread(stolen.ride, CARD)
    await asyncio.to_thread(stolen.ledger.seal)
    await compared(door, stolen)
    assert await asyncio.to_thread(door.balance, CARD) == 750
    hub.revoked = revoked(fleet, {stolen.replica: 0})
    await asyncio.wrap_future(hub.ledger.put_document(hub.revoked))
    assert (await synced(door, hub)).complete
    assert (await asyncio.to_thread(door.ledger.revocations)).cut_offs == {stolen.replica: 0}
    assert await asyncio.to_thread(door.balance, CARD) == 0
    hub.heard.clear()
    await synced(door, hub)
    assert len(hub.heard) == 1, "the list is held; nothing comes again, and the evidence went up once"


async def test_a_list_signed_by_nobody_is_not_taken(two: list[Door], hub: TestHub) -> None:
    """Invariant 8: only a hub revokes."""
    door = two[0]
    forged = revoked(Fleet(9), {door.replica: 0})
    hub.revoked = forged
    with pytest.raises(AnswerRefused, match="foreign_fleet|unknown_author"):
        await synced(door, hub)
    assert (await asyncio.to_thread(door.ledger.revocations)).cut_offs == {}
