"""kill -9 of the hub in a loop, under load: what it acknowledged is there, once (invariants 2, 3, 4)."""

import asyncio
import contextlib
import random
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from crdt.facts import CardId
from crdt.frames import Ack, BlockFrame, CertificateFrame, Refusal
from crdt.frontier import Head
from crdt.ledger import Ledger
from hub import founding
from hub.control_client import ask
from hub.errors import HubNotRunning
from hub.settings import load
from tests.hub.processes import HubProcess, hub_process
from tests.hub.terminal import Terminal, first

KILLS = 6
BUSES = 3
ACKS_BETWEEN_KILLS = 12
MOST_BLOCKS = 8  # of one exchange
CARDS = [CardId(bytes([4, 0, 0, number])) for number in range(7)]
TOP_UP_MINOR = 100


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with hub_process(tmp_path) as hub:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]  # the same one after every start
        hub.settings.write_text(hub.settings.read_text().replace("port = 0", f"port = {port}"))
        yield hub


class Progress:
    """Counts acknowledgements of all kinds; lets the killer wait for some."""

    def __init__(self) -> None:
        self._count = 0
        self._grown = asyncio.Condition()
        self.enough = False

    async def one_more(self) -> None:
        async with self._grown:
            self._count += 1
            self._grown.notify_all()

    async def some_more(self, number: int) -> None:
        wanted = self._count + number
        async with self._grown:
            await self._grown.wait_for(lambda: self._count >= wanted)


@dataclass
class Bus:
    """A terminal that taps and syncs, and holds the hub to what it acknowledged."""

    terminal: Terminal
    dice: random.Random
    acknowledged: Head = field(default_factory=lambda: Head(0, b""))
    blocks_acknowledged: int = 0

    async def drive(self, progress: Progress) -> None:
        while not progress.enough:
            if len(self.terminal.chain) < self.blocks_acknowledged + MOST_BLOCKS:
                amounts = [-self.dice.randint(0, 400) for _ in range(self.dice.randint(1, 40))]
                self.terminal.taps(*amounts, card=self.dice.choice(CARDS))
            try:
                await self.push()
                await progress.one_more()
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.01)  # the hub is gone; it will be back

    async def push(self) -> None:
        """Send the next blocks, and sometimes again some that were acknowledged."""
        start = max(0, self.blocks_acknowledged - self.dice.randint(0, 2))
        blocks = self.terminal.chain[start : start + MOST_BLOCKS]
        certificate = CertificateFrame(self.terminal.certificate.encode())
        events = await self.terminal.exchange(certificate, *map(BlockFrame, blocks))
        assert not [event for event in events if isinstance(event, Refusal)]
        head = first(events, Ack.__name__).frontier[self.terminal.key.replica]
        assert head.seq >= self.acknowledged.seq, "the hub forgot what it had acknowledged"
        self.acknowledged, self.blocks_acknowledged = head, start + len(blocks)


@dataclass
class Till:
    """Sells top-ups over the control socket; an unanswered one is sent again under its request id."""

    control_socket: Path
    dice: random.Random
    booked: int = 0

    async def sell(self, progress: Progress) -> None:
        while not progress.enough:
            card = self.dice.choice(CARDS).hex()
            request: dict[str, Any] = {"card": card, "amount": "1.00", "request": f"till-{self.booked:06}"}
            while True:
                with contextlib.suppress(HubNotRunning):
                    await asyncio.to_thread(ask, self.control_socket, "POST", "/topup", request)
                    break
                await asyncio.sleep(0.01)
            self.booked += 1
            await progress.one_more()


@pytest.mark.timeout(300)
async def test_a_hub_killed_in_a_loop_keeps_every_block_and_booking_it_acknowledged(hub: HubProcess) -> None:
    dice = random.Random(20)  # noqa: S311  (a drill, not a secret)
    await asyncio.to_thread(hub.start)
    settings = await asyncio.to_thread(load, hub.settings)
    buses, till = [], Till(settings.control_socket, dice)
    for number in range(BUSES):
        invite = await asyncio.to_thread(ask, settings.control_socket, "POST", "/invite", {})
        buses.append(Bus(await Terminal.pair(hub.url, invite["code"], f"Bus {number}"), dice))
    progress = Progress()
    async with asyncio.TaskGroup() as group:
        for bus in buses:
            group.create_task(bus.drive(progress))
        group.create_task(till.sell(progress))
        for _ in range(KILLS):
            await progress.some_more(ACKS_BETWEEN_KILLS)
            await asyncio.sleep(dice.random() * 0.05)
            await asyncio.to_thread(hub.stop, signal.SIGKILL)
            await asyncio.to_thread(hub.start)
        await progress.some_more(ACKS_BETWEEN_KILLS)
        progress.enough = True
    for bus in buses:
        while bus.acknowledged != bus.terminal.head:
            await bus.push()
    assert await asyncio.to_thread(hub.stop, signal.SIGTERM) == 0
    await asyncio.to_thread(check, hub, buses, till)


def check(hub: HubProcess, buses: list[Bus], till: Till) -> None:
    """The ledger on disk is what the model makes of everything sent, and the till was booked exactly."""
    settings = load(hub.settings)
    with (
        founding.opened(settings, {}) as (database, secrets),
        founding.open_ledger(settings, database, secrets) as (authority, ledger),
    ):
        own = ledger.blocks_after(ledger.replica, 0, 10**9).result()
        heads, digest, books = ledger.heads().result(), ledger.digest().result(), ledger.books().result()
    tills = Ledger(authority.fleet_key.public_key)
    assert not tills.merge(own, [authority.hub_certificate]).refused
    assert tills.books().deltas_minor == till.booked * TOP_UP_MINOR
    model = tills
    for bus in buses:
        assert not model.merge(bus.terminal.chain, [bus.terminal.certificate]).refused
        assert heads[bus.terminal.key.replica] == bus.terminal.head
    assert (digest, books) == (model.digest(), model.books())
    assert books.balance
