"""The whole demo as one thing: starts it, does what the visitor asks, and knows how everything stands."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from . import story
from .board import Board
from .bus import Bus
from .cast import BUSES, NEW_CARD_NAMES, CardRole, fleet_changes, new_uid
from .depot import Depot
from .errors import ChildDied, DemoError
from .home import Home, free_port
from .process import Child
from .proxy import Router
from .state import Power, State
from .view import snapshot

LOOK_EVERY_S: Final = 0.35
AGREE_TIMEOUT_S: Final = 90.0

Progress = Callable[[str], None]


class Stage:
    """A hub and three buses. `died` is done as soon as one of their processes has ended unasked."""

    def __init__(self, home: Home, cards: Sequence[CardRole], passback_s: int) -> None:
        port = free_port(secrets.SystemRandom())
        self.board = Board()
        self.died: asyncio.Future[ChildDied] = asyncio.get_running_loop().create_future()
        self.depot = Depot(home.place("hub"), port, self._mourn)
        self.buses = {role.key: Bus(role, home.place(role.key), Router(port), self._mourn) for role in BUSES}
        self.cards = {card.uid: card.name for card in cards}
        self.story = story.Story(lambda: time.strftime("%H:%M:%S"))
        self._sold = {card.uid: card.topup_minor for card in cards}
        self._passback_s = passback_s
        self._steps: set[str] = set()
        self._look_now = asyncio.Event()
        self._mourners: set[asyncio.Task[None]] = set()

    async def start(self, progress: Progress) -> None:
        """Starts all, from an empty directory to four ledgers that agree; `progress` gets lines to show."""
        progress("making a fleet and starting the hub")
        await self.depot.start()
        await self.depot.set_fleet(fleet_changes(self._passback_s))
        for uid, amount_minor in self._sold.items():
            await self.depot.top_up(uid, amount_minor)
        progress("starting three terminals, each with a reader and an encrypted ledger of its own")
        await self._each(lambda bus: bus.start())
        progress("pairing each with a one-time code; they look for the hub by zeroconf")
        await self._each(self._pair)
        progress("letting every terminal hear the fares and the cards")
        if not await self.agree(AGREE_TIMEOUT_S):
            raise DemoError(
                f"The terminals are paired and have not caught up with the hub in {AGREE_TIMEOUT_S:.0f} s. "
                "Start the demo with --directory DIR and look at the logs there."
            )

    async def stop(self) -> None:
        """Ends every process."""
        self.board.close()
        await self._each(lambda bus: bus.stop())
        await self.depot.stop()
        await asyncio.gather(*self._mourners)

    async def agree(self, timeout_s: float) -> bool:
        """Waits until all four ledgers agree and nothing is held; False when they do not in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    if await self._agree_now():
                        return True
                    await asyncio.sleep(LOOK_EVERY_S)
        return False

    async def watch(self) -> None:
        """Keeps the board up to date until cancelled."""
        while True:
            await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._look_now.wait()
            self._look_now.clear()

    async def look(self) -> bool:
        """Reads all ledgers and shows them; whether every one of them answered."""
        uids = list(self.cards)
        read = await asyncio.gather(self.depot.read(), *(bus.read(uids) for bus in self.buses.values()))
        state = self.state()
        self.story.follow(state)
        if state.agree and "offline" in self._steps:
            self._steps.add("agreed")
        self.board.publish(snapshot(self.state()))
        return None not in read

    def state(self) -> State:
        """How everything stands, as of the last look."""
        now_s = time.monotonic()
        return State(
            self.depot.reading,
            [bus.state(now_s) for bus in self.buses.values()],
            list(self.cards.items()),
            self.story.entries,
            frozenset(self._steps),
        )

    async def present(self, bus_key: str, uid: str) -> None:
        """Taps a card on a bus and tells what came of it."""
        bus = self._bus(bus_key)
        if uid not in self.cards:
            raise DemoError("There is no such card.")
        was_cut = bus.router.is_cut
        shown = await bus.present(uid)
        self._steps.add("tap")
        if was_cut and shown is not None and shown.accepted:
            self._steps.add("offline")
        self._tell(story.tapped(bus.role, self.cards[uid], shown, was_cut))

    def set_network(self, bus_key: str, connected: bool) -> None:
        """Plugs a bus's network in or pulls it."""
        bus = self._bus(bus_key)
        if connected:
            bus.router.restore()
            self._tell(story.restored(bus.role, bus.reading, bus.power is Power.ON))
            return
        bus.router.cut()
        self._steps.add("cut")
        self._tell(story.cut(bus.role, bus.power is Power.ON))

    async def kill(self, bus_key: str) -> None:
        """kill -9 of a bus's terminal."""
        bus = self._bus(bus_key)
        await bus.kill()
        self._tell(story.killed(bus.role, bus.reading))

    async def restart(self, bus_key: str) -> None:
        """Starts a killed terminal again."""
        bus = self._bus(bus_key)
        if bus.power is not Power.OFF:
            raise DemoError(f"{bus.role.name} is on already, or starting.")
        self._look_now.set()
        await bus.switch_on()
        await bus.read(list(self.cards))
        self._tell(story.started(bus.role, bus.reading))

    def new_card(self) -> str:
        """A card that no ledger has met; its uid."""
        names = [name for name in NEW_CARD_NAMES if name not in self.cards.values()]
        if not names:
            raise DemoError("That is all the cards there are.")
        uid = new_uid(secrets.token_bytes(6))
        self.cards[uid] = names[0]
        self._tell(
            f"{names[0]} has a new card. The first bus to meet it gives it an opening balance, by itself."
        )
        return uid

    async def _agree_now(self) -> bool:
        all_answered = await self.look()
        readings = [bus.reading for bus in self.buses.values()]
        nothing_held = all(reading is not None and reading.held == 0 for reading in readings)
        return all_answered and nothing_held and self.state().agree

    async def _pair(self, bus: Bus) -> None:
        await bus.pair(await self.depot.invite())

    async def _each(self, work: Callable[[Bus], Awaitable[None]]) -> None:
        tasks = [asyncio.ensure_future(work(bus)) for bus in self.buses.values()]
        try:
            await asyncio.gather(*tasks)
        finally:
            # When one fails, the others must not go on starting what is about to be stopped.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _bus(self, key: str) -> Bus:
        if key not in self.buses:
            raise DemoError("There is no such bus.")
        return self.buses[key]

    def _tell(self, text: str) -> None:
        self.story.tell(text)
        self._look_now.set()

    def _mourn(self, child: Child) -> None:
        async def report() -> None:
            death = await child.obituary("has ended unexpectedly")
            if not self.died.done():
                self.died.set_result(death)

        task = asyncio.create_task(report())
        self._mourners.add(task)
        task.add_done_callback(self._mourners.discard)
