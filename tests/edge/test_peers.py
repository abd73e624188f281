"""Two doors of one bus, without a hub: each other's taps at once, the same balances, the same ledger."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.certificate import Role, issue
from crdt.documents import SignedDocument
from crdt.facts import CardId, ReplicaId, TerminalId
from crdt.fleet import FleetSettings
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.signing import SigningKey
from edge.decide import Reason, Refused, decide
from edge.errors import HubDistrusted
from edge.peer_answering import PeerAnswer
from tests.edge.authority import HUB_LIMITS, Fleet
from tests.edge.doors import AT_MS, Door, compared, digests, doors, revoked

CARD, OTHER_CARD = CardId(b"\x04\x01\x02\x03"), CardId(b"\x04\x09\x09\x09")


@pytest.fixture
def two(tmp_path: Path, fleet: Fleet) -> Iterator[list[Door]]:
    with doors(tmp_path, fleet) as found:
        yield found


@pytest.fixture
def three(tmp_path: Path, fleet: Fleet) -> Iterator[list[Door]]:
    with doors(tmp_path, fleet, 3) as found:
        yield found


async def test_open_taps_are_told_both_ways_in_one_exchange(two: list[Door]) -> None:
    """ "Two doors of one bus see each other's taps within a second": no block has to be full for it."""
    front, rear = two
    await compared(front, rear)
    await asyncio.to_thread(front.ride, CARD)
    await asyncio.to_thread(rear.ride, OTHER_CARD)
    async with rear.answering() as address, front.asking(rear.replica, address) as sync:
        assert not await sync.tell()
    assert [await asyncio.to_thread(door.balance, CARD) for door in two] == [750, 750]
    assert [await asyncio.to_thread(door.balance, OTHER_CARD) for door in two] == [750, 750]
    assert front.ledger.own_head().seq == rear.ledger.own_head().seq == 0, "nothing had to be sealed"


async def test_a_card_used_at_the_front_door_is_too_soon_at_the_rear_one(two: list[Door]) -> None:
    """Passback holds across doors."""
    front, rear = two
    await compared(front, rear)
    await asyncio.to_thread(front.ride, CARD)
    async with rear.answering() as address, front.asking(rear.replica, address) as sync:
        await sync.tell()
    view = await asyncio.to_thread(rear.ledger.view, CARD)
    verdict = decide(view, FleetSettings(passback_window_s=60), "", AT_MS + 5_000)
    assert isinstance(verdict, Refused)
    assert verdict.reason is Reason.PASSBACK


async def test_a_card_is_given_its_opening_balance_by_one_door_only(two: list[Door]) -> None:
    """Invariant 11, across doors: the second one knows the card already."""
    front, rear = two
    await compared(front, rear)
    await asyncio.to_thread(front.ride, CARD)
    async with rear.answering() as address, front.asking(rear.replica, address) as sync:
        await sync.tell()
    await asyncio.to_thread(rear.ride, CARD)
    assert await asyncio.to_thread(rear.balance, CARD) == 500
    assert rear.ledger.status()["open"] == 1, "a fare, and no second opening"


async def test_sealed_blocks_go_both_ways_and_the_ledgers_agree(two: list[Door]) -> None:
    """Invariant 2: the same blocks, the same digest, without a hub. And again changes nothing."""
    front, rear = two
    for door, card in ((front, CARD), (rear, OTHER_CARD), (rear, CARD)):
        await asyncio.to_thread(door.ride, card)
        await asyncio.to_thread(door.ledger.seal)
    await compared(front, rear)
    agreed = await digests(front, rear)
    assert len(agreed) == 1
    assert await asyncio.to_thread(front.balance, CARD) == 1_000 - 500
    await compared(rear, front)
    assert await digests(front, rear) == agreed


async def test_what_was_told_as_open_counts_once_when_it_comes_as_a_block(two: list[Door]) -> None:
    """Invariant 6: the view never double counts, whichever way a tap has come."""
    front, rear = two
    await compared(front, rear)
    await asyncio.to_thread(front.ride, CARD)
    async with rear.answering() as address, front.asking(rear.replica, address) as sync:
        await sync.tell()
        await asyncio.to_thread(front.ledger.seal)
        assert await sync.tell(), "the other side lacks the block now"
        assert await asyncio.to_thread(rear.balance, CARD) == 750
        await sync.run()
        await asyncio.to_thread(front.ride, CARD)
        await sync.tell()
    assert await asyncio.to_thread(rear.balance, CARD) == 500
    assert (await asyncio.to_thread(rear.ledger.books)).balance


async def test_who_lacks_blocks_is_told_so(two: list[Door]) -> None:
    """The one that is asked learns it has to ask back: its open taps cannot be placed without the blocks."""
    front, rear = two
    await asyncio.to_thread(front.ride, CARD)
    await asyncio.to_thread(front.ledger.seal)
    await asyncio.to_thread(front.ride, CARD)
    heard: list[PeerAnswer] = []
    async with rear.answering(heard=heard) as address, front.asking(rear.replica, address) as sync:
        # Certificates go with a full run only, so that a tap is told in a few hundred bytes.
        meet = rear.presence.acquaintances.meet
        await asyncio.to_thread(meet, front.replica, [front.identity.certificate])
        assert await sync.tell()
    assert [answer.behind for answer in heard] == [True]
    assert await asyncio.to_thread(rear.balance, CARD) == 0


async def test_a_third_terminals_blocks_are_carried(three: list[Door]) -> None:
    """Any terminal may carry another's sealed blocks: from one bus to the next, who never met its author."""
    author, carrier, last = three
    await asyncio.to_thread(author.ride, CARD)
    await asyncio.to_thread(author.ledger.seal)
    await compared(carrier, author)
    await compared(carrier, last)
    assert await asyncio.to_thread(last.balance, CARD) == 750
    assert len(await digests(author, carrier, last)) == 1


async def test_many_blocks_go_in_bounded_exchanges(two: list[Door]) -> None:
    front, rear = two
    for _ in range(3):
        for number in range(400):
            await asyncio.to_thread(front.ride, CardId(number.to_bytes(4, "big")))
        await asyncio.to_thread(front.ledger.seal)
    await compared(rear, front)
    assert len(await digests(front, rear)) == 1


async def test_a_door_that_was_paired_anew_counts_once(two: list[Door], fleet: Fleet) -> None:
    """Its open taps are written again, or sealed, under the old name: told under the old one no more."""
    front, rear = two
    await compared(front, rear)
    await asyncio.to_thread(front.ride, CARD)
    async with rear.answering() as address, front.asking(rear.replica, address) as sync:
        await sync.tell()
    terminal = front.identity.certificate.terminal
    await asyncio.to_thread(front.terminal.enrol, fleet.enrol(terminal=terminal))
    await asyncio.to_thread(front.presences.refresh)
    await asyncio.to_thread(front.ride, CARD)
    await compared(front, rear)
    assert await asyncio.to_thread(rear.balance, CARD) == 500
    assert len(await asyncio.to_thread(rear.ledger.frontier)) == 1, "the old identity's block"


async def test_what_only_terminals_remember_for_a_hub_that_was_put_back_is_kept(
    two: list[Door], fleet: Fleet
) -> None:
    """Only the list held here says whom it had ended: its new key's list replaces that once it knows them."""
    key = SigningKey(bytes([99]) * 32)
    hub = issue(fleet.key, TerminalId(b"H" * 16), "hub", Role.HUB, key.public_key, HUB_LIMITS)
    gone, later = ReplicaId(b"9" * 16), ReplicaId(b"8" * 16)

    def new_list(version: int, cut_offs: dict[ReplicaId, int]) -> SignedDocument:
        return SignedDocument.seal(key, fleet.id, REVOKED_DOCUMENT, version, Revocations(cut_offs).encode())

    for door, document in zip(two, (revoked(fleet, {gone: 5}, 7), new_list(2**32, {later: 3})), strict=True):
        await asyncio.to_thread(door.ledger.merge, [], [hub])
        await asyncio.to_thread(door.ledger.put_document, document)
    await compared(*two)
    assert (await asyncio.to_thread(two[0].ledger.revocations)).cut_offs == {gone: 5}
    await asyncio.to_thread(two[1].ledger.put_document, new_list(2**32 + 1, {later: 3, gone: 5}))
    await compared(*two)
    assert (await asyncio.to_thread(two[0].ledger.revocations)).cut_offs == {gone: 5, later: 3}


async def test_a_hint_that_leads_to_another_terminal_is_noticed(three: list[Door]) -> None:
    """Records are hints: the one that answers has to have the announced replica in its certificate."""
    front, rear, liar = three
    async with liar.answering() as address, front.asking(rear.replica, address) as sync:
        with pytest.raises(HubDistrusted, match="not this fleet's terminal"):
            await sync.run()
