"""What gets a terminal's blocks to its hub when something about hub, link or past is not right."""

import asyncio
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crdt.block import HEADER
from crdt.errors import Overloaded, RefusalCode
from crdt.facts import ReplicaId
from crdt.frames import BlockFrame, Hello, Message, Refusal, ShortBlockFrame
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from edge.addresses import AddressBook, HubAddress
from edge.backoff import Backoff
from edge.calling import Caller
from edge.delivery import MAX_PUSH_BYTES, MIN_PUSH_BYTES, QUICK_MS, Delivery, at_a_time
from edge.errors import HubRefused, HubTooSlow, HubUnreachable, LedgerBehind, Superseded
from edge.exchange import Answer
from edge.identity import Identity
from edge.sync import Outcome, Sync
from edge.terminal import Terminal
from edge.uplink import Uplink
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, KEY, clock_of, document, pair
from tests.edge.jobs import running
from tests.edge.test_uplink import CARDS, NOWHERE, enrolled, ride
from tests.edge.testhub import TestHub, open_ledger


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    return TestHub(fleet, ledger, document=document(fleet, FARES))


class Line:
    """The way to an honest hub without the network; `disputes` are chains whose blocks it refuses."""

    def __init__(self, hub: TestHub) -> None:
        self.hub = hub
        self.disputes: set[ReplicaId] = set()
        self.offered: list[tuple[ReplicaId, int]] = []
        """Of each exchange up: whose blocks, and how many."""
        self.exchanges = 0

    async def __aenter__(self) -> "Line":
        return self

    async def __aexit__(self, *_error: object) -> None:
        return None

    async def exchange(self, _address: HubAddress, messages: Sequence[Message]) -> Answer:
        return await self.carry(messages)

    async def ask(self, _address: HubAddress, _path: str, _request: Mapping[str, Any]) -> dict[str, Any]:
        raise HubUnreachable("No hub answers.")

    async def revoked_list(self, _address: HubAddress) -> tuple[Message, ...]:
        raise HubUnreachable("No hub answers.")

    async def carry(self, messages: Sequence[Message]) -> Answer:
        self.exchanges += 1
        blocks = [message.raw for message in messages if isinstance(message, BlockFrame | ShortBlockFrame)]
        if blocks:
            replica = ReplicaId(HEADER.unpack_from(blocks[0])[2])
            self.offered.append((replica, len(blocks)))
            if replica in self.disputes:
                raise HubRefused("The hub refused: a fork", RefusalCode.FORK_DETECTED.name.lower())
        said = await self.hub.answer_to(list(messages))
        assert isinstance(said[0], Hello)
        return Answer(said[0], tuple(said[1:]), None, 1)


async def synced(terminal: Terminal, line: Line, delivery: Delivery | None = None) -> Outcome:
    return await Sync(terminal, enrolled(terminal), line.carry, dict, delivery or Delivery()).run()


async def taps(terminal: Terminal, count: int, blocks: int = 1) -> None:
    ledger = enrolled(terminal).ledger
    for _ in range(blocks):
        for number in range(count):
            await asyncio.to_thread(ride, terminal, CARDS[number % len(CARDS)])
        await asyncio.to_thread(ledger.seal)


def copied(database: Database, tmp_path: Path) -> Path:
    """An image of the ledger as it is now, taken between two writes."""
    image = tmp_path / "image.db"
    with database.direct:
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"ledger.db{suffix}", f"{image}{suffix}")
    return image


async def re_paired(terminal: Terminal, fleet: Fleet) -> ReplicaId:
    """Pair again, as what is compared with the hub if it had to be; the earlier identity."""
    before = enrolled(terminal).identity
    await asyncio.to_thread(terminal.enrol, fleet.enrol(), before)
    return before.replica


def uplink_over(terminal: Terminal, line: Line) -> Uplink:
    async def connect(_identity: Identity) -> Line:
        return line

    backoff = Backoff(3_600, 3_600, lambda: 0.5)
    clock = clock_of(terminal)
    caller = Caller(terminal, connect, dict, clock)
    return Uplink(terminal, AddressBook(NOWHERE, None), caller, clock, backoff, 3_600)


async def test_pairing_again_heals_a_restored_image(
    paired: Terminal, database: Database, fleet: Fleet, hub: TestHub, tmp_path: Path
) -> None:
    """Where the hub gives no new identity, LedgerBehind asks for a pairing (invariant 5); then taps go up."""
    line = Line(hub)
    await taps(paired, 2)
    await synced(paired, line)
    image = await asyncio.to_thread(copied, database, tmp_path)
    restored = await asyncio.to_thread(Database.open, image, KEY, layout=TERMINAL_LAYOUT)
    await taps(paired, 2)
    await synced(paired, line)
    try:
        terminal = await asyncio.to_thread(Terminal, restored)
        with pytest.raises(LedgerBehind, match=r"Pair the terminal again\.$"):
            await synced(terminal, line)
        await re_paired(terminal, fleet)
        await taps(terminal, 1)
        uplink = uplink_over(terminal, line)
        async with running(uplink):
            status = await uplink.sync_now()
        assert (status.online, status.trouble) == (True, "")
        assert status.disputed == ""
        assert line.offered[-1] == (enrolled(terminal).identity.replica, 1)
        mine = await asyncio.to_thread(enrolled(terminal).ledger.digest)
        assert mine == await asyncio.wrap_future(hub.ledger.digest())
    finally:
        await asyncio.to_thread(restored.close)


async def test_a_disputed_earlier_chain_is_a_note_and_not_an_outage(
    paired: Terminal, fleet: Fleet, hub: TestHub
) -> None:
    """The terminal stays online, pages to the end of the settlement and pushes each tap; the disputed blocks
    are offered again one at a time when nobody taps, and go up when the hub takes them at last."""
    line = Line(hub)
    await taps(paired, 1, blocks=3)
    earlier = await re_paired(paired, fleet)
    current = enrolled(paired).identity.replica
    line.disputes = {earlier}
    await taps(paired, len(CARDS))
    hub.page_rows = 2
    uplink = uplink_over(paired, line)
    async with running(uplink):
        status = await uplink.sync_now()
        assert (status.online, status.trouble) == (True, "")
        assert status.disputed == "The hub refused: a fork"
        assert line.offered == [(earlier, 3), (current, 1)] or line.offered == [(current, 1), (earlier, 3)]
        assert enrolled(paired).ledger.settled()[1] > 0, "all pages of the settlement were installed"
        hub.merged.clear()
        await asyncio.to_thread(ride, paired, CARDS[0])
        uplink.tapped()
        await asyncio.wait_for(hub.merged.wait(), 30)
        assert line.offered[2:] == [(current, 1)], "a tap does not offer the disputed blocks again"
        await uplink.sync_now()
        assert line.offered[3:] == [(earlier, 1)]
        line.disputes = set()
        status = await uplink.sync_now()
        assert line.offered[4:] == [(earlier, 1), (earlier, 2)]
    assert status.disputed == ""
    assert enrolled(paired).ledger.held() == (0, 0)


class Cutting(TestHub):
    """It is cutting a chain in steps, and shows it to nobody until that is done."""

    cut: frozenset[ReplicaId] = frozenset()

    async def _chain(self, replica: ReplicaId, after_seq: int) -> list[Message]:
        if replica in self.cut:
            return [Refusal(RefusalCode.COME_AGAIN, "not settled yet")]
        return await super()._chain(replica, after_seq)


async def test_a_chain_that_is_being_cut_is_no_dispute(paired: Terminal, fleet: Fleet, hub: TestHub) -> None:
    """What is asked for again in a moment is nothing that a technician has to look at."""
    cutting = Cutting(fleet, hub.ledger, document=hub.document)
    line = Line(cutting)
    await taps(paired, 1)
    await synced(paired, line)
    await taps(paired, 1)
    before = enrolled(paired).identity
    again = fleet.enrol(terminal=before.certificate.terminal)
    await asyncio.to_thread(paired.enrol, again, before)
    earlier = before.replica
    cutting.cut, line.disputes = frozenset({earlier}), {earlier}
    uplink = uplink_over(paired, line)
    async with running(uplink):
        for _ in range(2):
            status = await uplink.sync_now()
            assert (status.online, status.trouble, status.disputed) == (True, "", "")
        cutting.cut, line.disputes = frozenset(), set()
        assert (await uplink.sync_now()).disputed == ""
    assert enrolled(paired).ledger.held() == (0, 0)


async def test_an_identity_that_is_being_cut_is_told_to_come_again_and_not_to_be_paired(
    paired: Terminal, fleet: Fleet, hub: TestHub
) -> None:
    """The advice of a fork is for a fork."""
    cutting = Cutting(fleet, hub.ledger, document=hub.document)
    line = Line(cutting)
    await taps(paired, 1)
    await synced(paired, line)
    await taps(paired, 1)
    current = enrolled(paired).identity.replica
    cutting.cut, line.disputes = frozenset({current}), {current}
    with pytest.raises(HubRefused, match="not settled yet"):
        await synced(paired, line)


async def test_a_tap_costs_one_exchange_while_both_sides_agree(paired: Terminal, hub: TestHub) -> None:
    """Pushed at once when online: block up, acknowledgement and settlement down, in the same exchange."""
    line, delivery = Line(hub), Delivery()
    await synced(paired, line, delivery)
    for number in range(3):
        exchanges = line.exchanges
        await taps(paired, 1)
        outcome = await synced(paired, line, delivery)
        assert (line.exchanges - exchanges, outcome.blocks, outcome.complete) == (1, 1, True), number
        assert enrolled(paired).ledger.held() == (0, 0)


async def test_blocks_sent_ahead_to_a_hub_that_has_forgotten_go_up_all_the_same(
    paired: Terminal, fleet: Fleet, hub: TestHub, tmp_path: Path
) -> None:
    """Invariant 4: the hub agreed once, and was put back from before that: nothing is taken for granted."""
    line, delivery = Line(hub), Delivery()
    await taps(paired, 2, blocks=2)
    await synced(paired, line, delivery)
    await taps(paired, 1)
    database = await asyncio.to_thread(Database.open, tmp_path / "empty.db", KEY)
    try:
        forgetful = await asyncio.to_thread(open_ledger, database, fleet)
        line.hub = TestHub(fleet, forgetful, document=hub.document)
        outcome = await synced(paired, line, delivery)
        assert outcome.complete
        assert enrolled(paired).ledger.held() == (0, 0)
        mine = await asyncio.to_thread(enrolled(paired).ledger.digest)
        assert mine == await asyncio.wrap_future(forgetful.digest())
    finally:
        await asyncio.to_thread(database.close)


async def test_a_busy_hub_disputes_nothing(paired: Terminal, fleet: Fleet, hub: TestHub) -> None:
    """Only what is said about the blocks is a dispute; everything else is told as trouble and tried again."""
    line = Line(hub)
    await taps(paired, 1)
    earlier = await re_paired(paired, fleet)
    delivery = Delivery()

    async def busy(messages: Sequence[Message]) -> Answer:
        if any(isinstance(message, BlockFrame) for message in messages):
            raise HubRefused("The hub refused: HTTP 503 Service Unavailable")
        return await line.carry(messages)

    with pytest.raises(HubRefused, match="503"):
        await Sync(paired, enrolled(paired), busy, dict, delivery).run()
    assert delivery.disputed == {}
    await synced(paired, line, delivery)
    assert line.offered == [(earlier, 1)]


async def test_offline_attempts_do_not_cut_the_taps_into_small_blocks(paired: Terminal, hub: TestHub) -> None:
    """A month offline is a few full blocks, however often the hub was called."""

    async def nobody(_messages: Sequence[Message]) -> Answer:
        raise HubUnreachable("No hub answers.")

    for card in CARDS:
        await asyncio.to_thread(ride, paired, card)
        with pytest.raises(HubUnreachable):
            await Sync(paired, enrolled(paired), nobody, dict).run()
    assert enrolled(paired).ledger.status()["open"] == 2 * len(CARDS)
    line = Line(hub)
    await synced(paired, line)
    assert line.offered == [(enrolled(paired).identity.replica, 1)]


async def test_a_slow_link_gets_smaller_pushes_until_they_arrive(paired: Terminal, hub: TestHub) -> None:
    """Each time-out halves the next push; every push that arrives is progress that stays."""
    line = Line(hub)
    await taps(paired, 1, blocks=40)
    delivery = Delivery(push_bytes=4 * MIN_PUSH_BYTES)

    async def slow(messages: Sequence[Message]) -> Answer:
        if sum(len(message.raw) for message in messages if isinstance(message, BlockFrame)) > MIN_PUSH_BYTES:
            raise HubTooSlow("The hub took too long to answer.")
        said = await line.carry(messages)
        return Answer(said.hello, said.messages, None, QUICK_MS + 1)

    for halved in (2, 1):
        with pytest.raises(HubTooSlow):
            await Sync(paired, enrolled(paired), slow, dict, delivery).run()
        assert delivery.push_bytes == halved * MIN_PUSH_BYTES
    assert (await Sync(paired, enrolled(paired), slow, dict, delivery).run()).complete
    assert delivery.push_bytes == MIN_PUSH_BYTES, "what took long is not made longer"
    assert len(line.offered) > 1


async def test_many_blocks_go_in_bounded_exchanges(paired: Terminal, hub: TestHub) -> None:
    line = Line(hub)
    await taps(paired, 1, blocks=6)
    await synced(paired, line, Delivery(push_bytes=600))
    sizes = [blocks for _, blocks in line.offered]
    assert sum(sizes) == 6
    assert max(sizes) < 6


async def test_what_a_hub_leaves_lying_goes_up_in_the_next_exchanges(paired: Terminal, hub: TestHub) -> None:
    """Invariant 8 of the hub: it takes so much at a time. The terminal goes on from what it acknowledged."""

    class OneAtATime(Line):
        async def carry(self, messages: Sequence[Message]) -> Answer:
            blocks = [one for one in messages if isinstance(one, BlockFrame | ShortBlockFrame)]
            answer = await super().carry([one for one in messages if one not in blocks[1:]])
            if not blocks[1:]:
                return answer
            return replace(answer, messages=(*answer.messages, Refusal(RefusalCode.COME_AGAIN, "too long")))

    await taps(paired, 1, blocks=4)
    outcome = await synced(paired, OneAtATime(hub))
    assert outcome.complete
    assert enrolled(paired).ledger.held() == (0, 0)


def test_a_terminal_brings_no_more_at_a_time_than_an_exchange_may_have() -> None:
    """So an honest one is never told to come again; the first block goes in any case."""
    full = HEADER.pack(1, b"", b"", b"", 1, 60_000, 0)
    assert at_a_time([full] * 3, 1000) == [full]
    assert at_a_time([full[:-3] + b"\0\1\0"] * 3, 2 * len(full)) == [full[:-3] + b"\0\1\0"] * 2
    assert at_a_time([full], 1) == [full]


def test_pushes_grow_again_on_a_quick_link_and_stay_bounded() -> None:
    delivery = Delivery()
    for _ in range(20):
        delivery.timed_out()
    assert delivery.push_bytes == MIN_PUSH_BYTES
    for _ in range(20):
        delivery.went_through(QUICK_MS)
    assert delivery.push_bytes == MAX_PUSH_BYTES


async def test_pairing_again_ends_a_sync_that_is_under_way(
    paired: Terminal, fleet: Fleet, hub: TestHub
) -> None:
    """Invariant 6: only one ledger is at work on the database. What was begun before the pairing touches
    nothing afterwards, and the next run goes on as the new identity."""
    line, delivery = Line(hub), Delivery()
    await taps(paired, 1)

    async def paired_meanwhile(messages: Sequence[Message]) -> Answer:
        answer = await line.carry(messages)
        await re_paired(paired, fleet)
        return answer

    with pytest.raises(Superseded):
        await Sync(paired, enrolled(paired), paired_meanwhile, dict, delivery).run()
    assert line.offered == []
    assert (await synced(paired, line)).complete
    assert enrolled(paired).ledger.held() == (0, 0)


def test_pairing_again_waits_for_the_step_that_uses_the_ledger(paired: Terminal, fleet: Fleet) -> None:
    before, begun = enrolled(paired), threading.Event()

    def pair_again() -> None:
        begun.set()
        pair(paired, fleet)

    pairing = threading.Thread(target=pair_again)
    with paired.syncing(before.identity):
        pairing.start()
        begun.wait()
        assert enrolled(paired) is before
        with paired.using() as enrolment:  # and a tap does not wait for either
            assert enrolment is before
    pairing.join()
    assert enrolled(paired).identity is not before.identity
    with pytest.raises(Superseded), paired.syncing(before.identity):
        pass


def test_a_pairing_that_cannot_be_stored_leaves_a_terminal_that_works(
    paired: Terminal, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and ledger go over together or not at all: the terminal is what it was, and takes taps."""
    before = enrolled(paired).identity

    def overloaded(*_args: object) -> None:
        raise Overloaded("too many writes are waiting")

    with monkeypatch.context() as patch:
        patch.setattr("crdt.store.secrets.Secrets.put", overloaded)
        with pytest.raises(Overloaded):
            paired.enrol(fleet.enrol())
    ride(paired, CARDS[0])
    assert enrolled(paired).identity is before
    assert enrolled(paired).ledger.held() == (2, 750)
