"""One hub process under the exchanges of a fleet: heartbeats, and taps that come in online."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from crdt.frames import BlockFrame, CertificateFrame, Message, Pull, Status
from crdt.settlement import beginning, parse_page
from hub.control_client import ask
from tests.bench.table import Figure
from tests.hub.processes import HubProcess, hub_process
from tests.hub.terminal import Terminal, first

FLEET: Final = 10_000
TAPS_A_MINUTE: Final = 2  # of a terminal in the busy hour; 1,250 taps a day are fewer
SPEAKERS: Final = 16  # terminals that really speak, each over its own kept-alive TLS connection
_STATUS: Final = Status({"held": 0, "head_seq": 1, "position": 1, "route": "110", "name": "bus"})


@dataclass
class Speaker:
    """A paired terminal with its connection, and what it would have installed."""

    terminal: Terminal
    http: aiohttp.ClientSession
    pull: Pull

    async def heartbeat(self) -> None:
        """Nothing new on either side, but being there."""
        await self._ask()

    async def tap(self) -> None:
        """A tap as it happens, of a terminal that agreed with the hub before: block up, settlement down."""
        block = BlockFrame(self.terminal.taps(-250))
        await self._ask(CertificateFrame(self.terminal.certificate.encode()), block)

    async def _ask(self, *blocks: Message) -> None:
        terminal = self.terminal
        frontier = {terminal.key.replica: terminal.head} if terminal.chain else {}
        events = await terminal.exchange(_STATUS, self.pull, *blocks, frontier=frontier, http=self.http)
        page = parse_page(first(events, "PageFrame").raw)
        self.pull = Pull(page.series, page.position, beginning(page.position))


def measure(directory: Path, seconds: float) -> list[Figure]:
    """How many terminals' heartbeats, and heartbeats and taps, one hub process answers in a minute."""
    directory = directory / "depot"
    directory.mkdir()
    with hub_process(directory) as hub:
        hub.start()
        heartbeats, syncs = asyncio.run(_load(hub, seconds))
    carried = 60 / (1 / heartbeats + TAPS_A_MINUTE / syncs)
    detail = f"{SPEAKERS} TLS connections; hub and load share the machine's cores"
    more = f"a heartbeat and {TAPS_A_MINUTE} taps a minute each; {syncs:,.0f} tap syncs a second"
    return [
        Figure("heartbeats a second", heartbeats, FLEET / 60, at_least=True, detail=detail),
        Figure("terminals one hub process carries", carried, FLEET, at_least=True, detail=more),
    ]


async def _load(hub: HubProcess, seconds: float) -> tuple[float, float]:
    speakers = [await _paired(hub, number) for number in range(SPEAKERS)]
    try:
        heartbeats = await _rate(speakers, Speaker.heartbeat, seconds)
        return heartbeats, await _rate(speakers, Speaker.tap, seconds)
    finally:
        for speaker in speakers:
            await speaker.http.close()


async def _paired(hub: HubProcess, number: int) -> Speaker:
    socket = hub.directory / "state" / "control.sock"
    invite = await asyncio.to_thread(ask, socket, "POST", "/invite", {})
    terminal = await Terminal.pair(hub.url, invite["code"], f"bus {number}")
    return Speaker(terminal, terminal.connect(), Pull())


async def _rate(
    speakers: Sequence[Speaker], speak: Callable[[Speaker], Awaitable[None]], seconds: float
) -> float:
    """Rounds a second, every speaker going on as soon as it is answered."""
    count = 0
    began = time.perf_counter()

    async def talk(speaker: Speaker) -> None:
        nonlocal count
        while time.perf_counter() - began < seconds:
            await speak(speaker)
            count += 1

    await asyncio.gather(*map(talk, speakers))
    return count / (time.perf_counter() - began)
