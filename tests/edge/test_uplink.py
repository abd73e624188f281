"""The uplink against a real TLS server with a real hub ledger behind it: pushes, resumes, backs off."""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from crdt.facts import CardId, CardView, Draft, Kind
from crdt.frames import BlockFrame, Message, PageFrame, ShortBlockFrame
from crdt.protocol import MAX_PAGE_ROWS
from crdt.pull import Pull
from crdt.store.database import Database
from edge.addresses import AddressBook, HubAddress
from edge.backoff import Backoff
from edge.calling import Caller
from edge.exchange import ExchangeClient
from edge.https import Limits
from edge.identity import Identity
from edge.terminal import Enrolment, Terminal
from edge.tls import client_context
from edge.uplink import Uplink
from edge.waiting import Wait, happens
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, clock_of, document, pair
from tests.edge.jobs import running
from tests.edge.testhub import TestHub, answer, open_ledger

LIMITS = Limits(total_s=20, read_s=20)
_MOMENTS = itertools.count(1_780_000_000_000)  # a card is in one place at a time
CARDS = [CardId(bytes([4, 0, 0, number])) for number in range(1, 8)]
NOWHERE = HubAddress("127.0.0.1", 1)


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    return TestHub(fleet, ledger, document=document(fleet, FARES))


def enrolled(terminal: Terminal) -> Enrolment:
    assert terminal.enrolment is not None
    return terminal.enrolment


def ride(terminal: Terminal, card: CardId, fare_minor: int = 250) -> None:
    """A tap as the ledger sees it; blocks, as taps do."""

    def choose(view: CardView) -> tuple[tuple[Draft, ...], None]:
        opening = () if view.known else (Draft(Kind.OPENING, 1_000),)
        return (*opening, Draft(Kind.FARE, -fare_minor)), None

    enrolled(terminal).ledger.transact(card, choose, at_ms=next(_MOMENTS))


def uplink_of(
    terminal: Terminal,
    addresses: AddressBook,
    *,
    wait: Wait = happens,
    elapsed_s: Callable[[], float] = time.monotonic,
    proven: Callable[[HubAddress], object] = lambda _address: None,
    limits: Limits = LIMITS,
    heartbeat_s: float = 3_600,
    backoff: Backoff | None = None,
) -> Uplink:
    async def connect(identity: Identity) -> ExchangeClient:
        context = await asyncio.to_thread(client_context, identity)
        return ExchangeClient(identity.fleet, identity.replica, context, limits)

    clock = clock_of(terminal)
    return Uplink(
        terminal,
        addresses,
        Caller(terminal, connect, lambda: {"name": "Bus 12 front"}, clock),
        clock,
        backoff or Backoff(3_600, 3_600, lambda: 0.5),
        heartbeat_s,
        proven=proven,
        wait=wait,
        elapsed_s=elapsed_s,
    )


async def test_taps_go_up_settlement_and_fares_come_down_and_both_ledgers_agree(
    terminal: Terminal, fleet: Fleet, hub: TestHub, tmp_path: Path
) -> None:
    await asyncio.to_thread(pair, terminal, fleet, None)
    await asyncio.to_thread(ride, terminal, CARDS[0])
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(terminal, AddressBook(address, None))
        async with running(uplink):
            status = await uplink.sync_now()
    assert (status.online, status.hub, status.trouble) == (True, address, "")
    ledger = enrolled(terminal).ledger
    assert ledger.held() == (0, 0)
    mine = await asyncio.to_thread(ledger.digest)
    assert mine == await asyncio.wrap_future(hub.ledger.digest())
    assert await asyncio.wrap_future(hub.ledger.balance(CARDS[0])) == 750
    assert enrolled(terminal).fares == FARES
    assert hub.statuses[0] == {"name": "Bus 12 front"}
    assert hub.peers[0] is not None, "the terminal showed its certificate"


async def test_a_tap_is_pushed_at_once_when_online(paired: Terminal, hub: TestHub, tmp_path: Path) -> None:
    """Woken by a tap, not by the heartbeat, which is an hour away."""
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(address, None))
        async with running(uplink):
            await uplink.sync_now()
            assert not hub.merged.is_set()

            def tap() -> None:
                ride(paired, CARDS[0])
                uplink.tapped()

            await asyncio.to_thread(tap)
            await asyncio.wait_for(hub.merged.wait(), 30)


async def test_it_resumes_where_it_stopped_and_sends_nothing_twice(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    ledger = enrolled(paired).ledger
    for card in CARDS[:3]:
        await asyncio.to_thread(ride, paired, card)
        await asyncio.to_thread(ledger.seal)
    lost = False

    async def lose_the_first_answer(_request: web.Request, honest: list[Message]) -> web.StreamResponse:
        nonlocal lost
        if not lost and hub.blocks_received:
            lost = True
            return web.Response(status=502)
        return answer(honest)

    hub.misbehave = lose_the_first_answer
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(address, None))
        async with running(uplink):
            assert not (await uplink.sync_now()).online
            assert (await uplink.sync_now()).online
    assert lost
    assert hub.blocks_received == 3, "the acknowledged blocks were not sent again"
    assert ledger.held() == (0, 0)


async def test_a_settlement_in_many_pages_resumes_after_a_cut(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """Invariant 6: half a settlement changes no balance; the rest comes without starting again."""
    for card in CARDS:
        booking = hub.ledger.append(card, [Draft(Kind.TOPUP, 2_000)], 1_780_000_000_000)
        await asyncio.wrap_future(booking)
    hub.page_rows = 2

    async def break_after_two_pages(_request: web.Request, honest: list[Message]) -> web.StreamResponse:
        return web.Response(status=502) if len(hub.heard) == 3 else answer(honest)

    hub.misbehave = break_after_two_pages
    ledger = enrolled(paired).ledger
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(address, None))
        async with running(uplink):
            assert not (await uplink.sync_now()).online
            assert not (await asyncio.to_thread(ledger.view, CARDS[0])).known
            assert (await uplink.sync_now()).online
    assert (await asyncio.to_thread(ledger.view, CARDS[6])).balance_minor == 2_000
    pulls = [message.after for heard in hub.heard for message in heard if isinstance(message, Pull)]
    assert len(set(pulls)) == len(pulls) - 1, "only the page that was lost was asked for twice"


async def test_the_next_page_is_under_way_while_one_is_stored(
    paired: Terminal, database: Database, hub: TestHub, tmp_path: Path
) -> None:
    """A first load takes as long as the slower of hub and terminal, not as long as both."""
    for card in CARDS:
        booking = hub.ledger.append(card, [Draft(Kind.TOPUP, 2_000)], 1_780_000_000_000)
        await asyncio.wrap_future(booking)
    hub.page_rows = 2
    asked_again = threading.Event()
    storing: list[Future[bool]] = []

    async def hold_the_disk_until_asked_again(
        _request: web.Request, honest: list[Message]
    ) -> web.StreamResponse:
        if storing:
            asked_again.set()
        elif any(isinstance(message, PageFrame) for message in honest):
            storing.append(database.write(lambda _connection: asked_again.wait(30)))
        return answer(honest)

    hub.misbehave = hold_the_disk_until_asked_again
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(address, None))
        async with running(uplink):
            assert (await uplink.sync_now()).online
    assert await asyncio.wrap_future(storing[0]), "nothing was asked until the page was stored"
    assert (await asyncio.to_thread(enrolled(paired).ledger.view, CARDS[6])).balance_minor == 2_000


async def test_offline_it_waits_longer_each_time_and_taps_do_not_hurry_it(paired: Terminal) -> None:
    """Bounded, jittered backoff with the waiting and the randomness injected."""
    waits: list[float] = []
    enough = asyncio.Event()

    async def wait(event: asyncio.Event, delay_s: float) -> None:
        waits.append(delay_s)
        uplink.tapped()
        await asyncio.sleep(0)
        assert not event.is_set(), "a tap offline is no reason to knock again"
        if len(waits) == 6:
            enough.set()
            await asyncio.Event().wait()

    backoff = Backoff(1, 8, random=lambda: 0.5)
    uplink = uplink_of(paired, AddressBook(NOWHERE, None), wait=wait, backoff=backoff)
    async with running(uplink):
        await asyncio.wait_for(enough.wait(), 30)
    assert waits == [0.75, 1.5, 3.0, 6.0, 6.0, 6.0]
    assert uplink.status.trouble.startswith("No hub answers at 127.0.0.1:1 (")


@pytest.mark.parametrize(
    ("asked", "waited_s"), [("20", 21.5), ("999999999", 63.5), ("0", 1.55), ("-5", 0.75), ("soon", 0.75)]
)
async def test_a_busy_hub_is_left_alone_for_as_long_as_it_asks_within_bounds(
    asked: str, waited_s: float, paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """Taps go on and knock no earlier; no hub makes a terminal wait beyond `uplink.backoff_max_s` or so."""
    waits: list[float] = []
    waiting = asyncio.Event()

    async def wait(event: asyncio.Event, delay_s: float) -> None:
        await asyncio.to_thread(ride, paired, CARDS[0])
        uplink.tapped()
        await asyncio.sleep(0)
        assert not event.is_set(), "a tap is no reason to knock again"
        waits.append(delay_s)
        waiting.set()
        await asyncio.Event().wait()

    hub.busy = asked
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(address, None), wait=wait, backoff=Backoff(1, 60, lambda: 0.5))
        async with running(uplink):
            await asyncio.wait_for(waiting.wait(), 30)
    assert waits == [waited_s]
    assert uplink.status.trouble == "The hub refused: Come again."


async def test_where_one_hub_process_is_busy_another_one_is_asked(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """Several serve one ledger: only where none has room the terminal has to wait, and taps with it."""
    other = replace(hub, busy="20")
    await asyncio.to_thread(ride, paired, CARDS[0])
    async with other.serving(tmp_path) as fixed, hub.serving(tmp_path) as hinted:
        addresses = AddressBook(fixed, None)
        addresses.hint([NOWHERE, hinted])
        uplink = uplink_of(paired, addresses)
        async with running(uplink):
            status = await uplink.sync_now()
    assert (status.online, status.hub) == (True, hinted)
    assert enrolled(paired).ledger.held() == (0, 0)


async def test_what_another_hub_refuses_does_not_hide_that_one_is_busy(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """A spare one that does not know this terminal, say: the turn at the first would be lost."""
    waits: list[float] = []
    waiting = asyncio.Event()

    async def wait(_event: asyncio.Event, delay_s: float) -> None:
        waits.append(delay_s)
        waiting.set()
        await asyncio.Event().wait()

    async def refuse(_request: web.Request, _honest: list[Message]) -> web.StreamResponse:
        return web.json_response({"error": "unknown_author", "message": "Who?"}, status=403)

    async with (
        replace(hub, busy="20").serving(tmp_path) as fixed,
        replace(hub, misbehave=refuse).serving(tmp_path) as spare,
    ):
        addresses = AddressBook(fixed, None)
        addresses.hint([spare])
        uplink = uplink_of(paired, addresses, wait=wait, backoff=Backoff(1, 60, lambda: 0))
        async with running(uplink):
            await asyncio.wait_for(waiting.wait(), 30)
    assert waits == [20]
    assert uplink.status.trouble == "The hub refused: Come again."


async def test_a_fleet_that_is_busy_everywhere_is_not_asked_everywhere_each_time(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """Else each terminal would ask as often again as there are hubs, and give them more to do. It comes back
    to the first one, which keeps its turn, when that said."""
    waits: list[float] = []

    async def wait(_event: asyncio.Event, delay_s: float) -> None:
        waits.append(delay_s)
        if len(waits) == 20:
            done.set()
            await asyncio.Event().wait()

    done = asyncio.Event()
    hubs = [replace(hub, busy=asked) for asked in ("20", "9", "9", "9")]
    async with contextlib.AsyncExitStack() as stack:
        found = [await stack.enter_async_context(one.serving(tmp_path)) for one in hubs]
        addresses = AddressBook(found[0], None)
        addresses.hint([NOWHERE, *found[1:]])
        uplink = uplink_of(paired, addresses, wait=wait, backoff=Backoff(1, 60, lambda: 0))
        async with running(uplink):
            await asyncio.wait_for(done.wait(), 30)
    assert waits == [20] * 20
    assert [one.refused for one in hubs] == [20, 3, 2, 2], "two in the attempts 1, 3, 6, 11 and 20, in turns"
    assert uplink.status.trouble == "The hub refused: Come again."


@pytest.mark.parametrize("page_rows", [MAX_PAGE_ROWS, 1], ids=["", "in the middle of a settlement"])
async def test_what_gathers_while_the_hub_is_busy_goes_up_in_one_exchange(
    page_rows: int, paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """A hub with more to do than it can must not be asked three times by each that it let wait."""

    async def busy_from_here(_request: web.Request, honest: list[Message]) -> web.StreamResponse:
        hub.busy = "20"
        return answer(honest)

    await opened(hub, CARDS[3:])
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(address, None))
        async with running(uplink):
            assert (await uplink.sync_now()).online
            await opened(hub, CARDS[3:])
            hub.page_rows, hub.misbehave = page_rows, busy_from_here
            assert (await uplink.sync_now()).online is (page_rows > 1)
            for card in CARDS[:2]:
                await asyncio.to_thread(ride, paired, card)
                assert not (await uplink.sync_now()).online
            hub.busy = hub.misbehave = None
            hub.page_rows = MAX_PAGE_ROWS
            before = len(hub.heard)
            assert (await uplink.sync_now()).online
    assert enrolled(paired).ledger.held() == (0, 0)
    asked = [[type(message) for message in messages] for messages in hub.heard[before:]]
    assert [Pull in kinds for kinds in asked].count(True) == 1
    assert [ShortBlockFrame in kinds or BlockFrame in kinds for kinds in asked][0]


async def opened(hub: TestHub, cards: Sequence[CardId]) -> None:
    """The hub learns of something about these cards."""
    for card in cards:
        drafts = [Draft(Kind.TOPUP, 100)]
        await asyncio.wrap_future(hub.ledger.append(card, drafts, at_ms=1_780_000_000_000))


async def test_a_new_address_is_tried_at_once_and_kept_as_proven(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    kept: list[HubAddress] = []
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(NOWHERE, None), proven=kept.append)
        async with running(uplink):
            assert not (await uplink.sync_now()).online
            uplink.hinted([address])
            while not uplink.status.online:  # noqa: ASYNC110  (the loop below is woken by the hint alone)
                await asyncio.sleep(0.01)
    assert kept == [address]


async def test_a_spoofed_record_cannot_take_the_hub_away(
    paired: Terminal, hub: TestHub, tmp_path: Path, hub_database: Database
) -> None:
    """A record is a hint: a stranger's server is refused by TLS, and the next address is tried."""
    stranger = TestHub(Fleet(9), hub.ledger)
    async with hub.serving(tmp_path) as address, stranger.serving(tmp_path) as spoof:
        book = AddressBook(None, None)
        book.hint([spoof, address])
        uplink = uplink_of(paired, book)
        async with running(uplink):
            assert (await uplink.sync_now()).hub == address
            book.hint([spoof])
            assert (await uplink.sync_now()).hub == address, "the proven address outlives its record"
    assert stranger.heard == [], "the stranger learnt nothing"


async def test_an_unpaired_terminal_says_so_and_an_unfound_hub_too(terminal: Terminal, fleet: Fleet) -> None:
    uplink = uplink_of(terminal, AddressBook(None, None))
    async with running(uplink):
        assert (await uplink.sync_now()).trouble == "not paired yet"
        await asyncio.to_thread(pair, terminal, fleet)
        assert "No hub was found yet" in (await uplink.sync_now()).trouble


async def test_the_hubs_clock_bounds_the_terminals_error(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """Invariant 9: the authenticated Date header tells how wrong the terminal's clock may be."""
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(address, None))
        async with running(uplink):
            await uplink.sync_now()
        reading = await asyncio.to_thread(uplink._clock.read)
    assert reading.error_ms < 60_000


async def test_a_re_paired_terminal_also_sends_what_its_earlier_identity_left(
    paired: Terminal, fleet: Fleet, hub: TestHub, tmp_path: Path
) -> None:
    """Re-pairing keeps every unsettled delta."""
    await asyncio.to_thread(ride, paired, CARDS[0])
    await asyncio.to_thread(paired.enrol, fleet.enrol())
    await asyncio.to_thread(ride, paired, CARDS[0])
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(address, None))
        async with running(uplink):
            assert (await uplink.sync_now()).online
    assert enrolled(paired).ledger.held() == (0, 0)
    assert await asyncio.wrap_future(hub.ledger.balance(CARDS[0])) == 500


async def test_going_down_in_the_middle_leaves_nothing_behind(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """Cancelled while the hub is silent: the checks of every test find no task and no socket left."""
    asked, release = asyncio.Event(), asyncio.Event()

    async def silence(_request: web.Request, honest: list[Message]) -> web.StreamResponse:
        asked.set()
        await release.wait()
        return answer(honest)

    hub.misbehave = silence
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(address, None))
        async with running(uplink):
            await asyncio.wait_for(asked.wait(), 30)
        release.set()


async def test_a_tap_never_waits_for_the_network(paired: Terminal, hub: TestHub, tmp_path: Path) -> None:
    """Invariant 7: the hub has taken the request and says nothing; taps go on, and are durable, meanwhile."""
    asked, release = asyncio.Event(), asyncio.Event()

    async def stall(_request: web.Request, honest: list[Message]) -> web.StreamResponse:
        asked.set()
        await release.wait()
        return answer(honest)

    hub.misbehave = stall
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(address, None))
        async with running(uplink):
            await asyncio.wait_for(asked.wait(), 30)
            for card in CARDS:
                await asyncio.to_thread(ride, paired, card)
            assert enrolled(paired).ledger.status()["head_seq"] == 14
            release.set()
            assert (await uplink.sync_now()).online


def test_a_tap_after_the_loop_has_closed_is_no_error(paired: Terminal) -> None:
    """Going down: the tap thread may finish its tap when the event loop is already gone."""

    async def make() -> Uplink:
        return uplink_of(paired, AddressBook(None, None))

    uplink = asyncio.run(make())
    thread = threading.Thread(target=uplink.tapped)
    thread.start()
    thread.join()
