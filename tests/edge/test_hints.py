"""What the LAN announces hurries an attempt at the hub, and lets no liar say how often a terminal calls."""

import asyncio
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import web

from crdt.frames import Message
from crdt.store.database import Database
from edge.addresses import MAX_HINTS, AddressBook, HubAddress
from edge.backoff import Backoff
from edge.terminal import Terminal
from edge.uplink import HINTED_AT_ONCE, HINTED_EVERY_S, Uplink
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, document
from tests.edge.jobs import running
from tests.edge.test_uplink import uplink_of
from tests.edge.testhub import TestHub, open_ledger

LOOK_S = 0.2
"""From one look at the LAN to the next, while somebody keeps changing what is on it."""
FLOOD_S = 300.0
NOWHERE = HubAddress("127.0.0.1", 1)


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    return TestHub(fleet, ledger, document=document(fleet, FARES))


def lies() -> Iterator[HubAddress]:
    """Addresses at which nobody answers, never the same."""
    for number in range(2**16):
        yield HubAddress(f"127.1.{number >> 8}.{number & 255}", 1)


@dataclass
class Lan:
    """The time, which passes while an uplink waits, and what is announced meanwhile."""

    announced: Callable[[], list[HubAddress]]
    until_s: float = FLOOD_S
    now_s: float = 0.0
    attempts_s: list[float] = field(default_factory=list)
    """When each attempt but the first began."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    uplink: Uplink | None = None

    async def wait(self, due: asyncio.Event, delay_s: float) -> None:
        """For the uplink: until it is due, or so many seconds have passed."""
        assert self.uplink is not None
        until_s = self.now_s + delay_s
        while not due.is_set() and self.now_s < until_s:
            if self.now_s >= self.until_s or self.uplink.status.online:
                self.over.set()
                await asyncio.Event().wait()
            self.now_s = min(until_s, self.now_s + LOOK_S)
            self.uplink.hinted(self.announced())
        self.attempts_s.append(self.now_s)

    async def watch(self, terminal: Terminal, addresses: AddressBook, backoff: Backoff) -> Uplink:
        """Run the uplink until it is online, or the time is over."""
        self.uplink = uplink_of(
            terminal, addresses, wait=self.wait, backoff=backoff, elapsed_s=lambda: self.now_s
        )
        async with running(self.uplink):
            await asyncio.wait_for(self.over.wait(), 60)
        return self.uplink


def slow() -> Backoff:
    """No attempt by itself within any of these tests."""
    return Backoff(3_600, 3_600, lambda: 0.5)


@pytest.mark.parametrize("flapping", [False, True], ids=["new each time", "the same come and go"])
async def test_made_up_records_do_not_set_the_pace(paired: Terminal, flapping: bool) -> None:
    """Invariant 8: zeroconf is never trusted, not with how often a terminal calls either."""
    names = lies()
    two = [[next(names)], [next(names)]]

    def announced() -> list[HubAddress]:
        two.reverse()
        return two[0] if flapping else [next(names)]

    lan = Lan(announced)
    await lan.watch(paired, AddressBook(NOWHERE, None), slow())
    assert lan.attempts_s[0] == LOOK_S
    assert len(lan.attempts_s) <= HINTED_AT_ONCE + FLOOD_S / HINTED_EVERY_S


async def test_a_hub_that_moved_is_found_at_once(paired: Terminal, hub: TestHub, tmp_path: Path) -> None:
    async with hub.serving(tmp_path) as address:
        lan = Lan(lambda: [address])
        uplink = await lan.watch(paired, AddressBook(NOWHERE, None), slow())
    assert uplink.status.hub == address
    assert lan.now_s == LOOK_S


async def test_a_hub_that_moved_is_found_beside_lies_too(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """An address that came too soon after others is not forgotten until somebody makes up another one."""
    names = lies()
    async with hub.serving(tmp_path) as address:

        def announced() -> list[HubAddress]:
            if lan.now_s < FLOOD_S / 2:
                return [next(names)]
            return [address]

        lan = Lan(announced)
        await lan.watch(paired, AddressBook(NOWHERE, None), slow())
    assert FLOOD_S / 2 <= lan.now_s <= FLOOD_S / 2 + HINTED_EVERY_S + LOOK_S


async def test_a_hub_among_many_lies_is_found_in_its_turn(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """They stay, and it is announced last; nothing else than what is announced brings an attempt on."""
    names = lies()
    made_up = [next(names) for _ in range(12 * MAX_HINTS)]
    async with hub.serving(tmp_path) as address:
        lan = Lan(lambda: [*made_up, address])
        await lan.watch(paired, AddressBook(None, None), slow())
    assert len(lan.attempts_s) == 13
    assert lan.now_s <= (13 - HINTED_AT_ONCE) * HINTED_EVERY_S + 1


async def test_what_the_lan_says_shortens_no_wait_that_a_busy_hub_asks_for(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """It is found; and a liar could have a whole depot knock at it."""
    names = lies()
    async with replace(hub, busy="40").serving(tmp_path) as address:
        lan = Lan(lambda: [next(names)], until_s=100)
        uplink = await lan.watch(paired, AddressBook(address, None), Backoff(1, 60, lambda: 0.0))
    assert lan.attempts_s == pytest.approx([40, 80])
    assert uplink.status.trouble == "The hub refused: Come again."


async def test_a_hub_that_refuses_has_been_found(paired: Terminal, hub: TestHub, tmp_path: Path) -> None:
    """A full disk, or a terminal that was revoked: its other address is no news, and the backoff rules."""

    async def fail(_request: web.Request, _honest: list[Message]) -> web.Response:
        return web.json_response({"error": "internal", "message": "The disk is full."}, status=500)

    async with replace(hub, misbehave=fail).serving(tmp_path) as address:
        lan = Lan(lambda: [address, HubAddress("127.0.0.2", address.port)])
        uplink = await lan.watch(paired, AddressBook(None, address), slow())
    assert "The disk is full." in uplink.status.trouble
    assert lan.attempts_s == []


async def test_what_fails_by_a_bug_is_not_hurried(paired: Terminal) -> None:
    """It would fail at the next address in the same way, and fill the log."""

    class Broken(AddressBook):
        def candidates(self, _but: Container[HubAddress] = ()) -> list[HubAddress]:
            raise ZeroDivisionError

    lan = Lan(lambda: [NOWHERE])
    uplink = await lan.watch(paired, Broken(None, None), slow())
    assert "bug" in uplink.status.trouble
    assert lan.attempts_s == []
