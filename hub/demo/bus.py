"""One bus of the demo: a terminal, the reader that cards are held to, and the router that can be cut."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from .cast import BusRole
from .compare import Witness
from .console import READY, Shown, read_line
from .control import Control, Refused
from .errors import DemoError, NotAnswering
from .home import Place, terminal_settings, write_settings
from .process import Child
from .proxy import Router
from .readings import read_terminal
from .state import BusState, Display, Power, Reading

START_TIMEOUT_S: Final = 60.0
PAIR_TIMEOUT_S: Final = 20.0
ANSWER_TIMEOUT_S: Final = 8.0
SHOWN_FOR_S: Final = 4.0  # how long the page keeps a verdict
# The reader looks four times a second, and calls a card gone when it was not there for half a second.
AWAY_S: Final = 1.2

_NOT_FOUND: Final = """\
{name} could not be paired: {why}
  The terminals look for the hub by zeroconf on this machine's own interface (UDP port 5353, multicast).
  A firewall or a container that forbids multicast stops them."""


class Tally:
    """What a terminal told its passengers: accepted, refused, and the taps it never answered."""

    def __init__(self) -> None:
        self.accepted: Counter[tuple[str, int]] = Counter()
        self.refused: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()

    def count(self, uid: str, shown: Shown | None) -> None:
        """Counts one presentation; `shown` is None when no line came."""
        if shown is None:
            self.unanswered[uid] += 1
        elif shown.accepted:
            # A green light that names no fare is counted as one of 0, and so found out by the checker.
            self.accepted[uid, shown.fare_minor or 0] += 1
        else:
            self.refused[uid] += 1

    def witness(self, terminal: str, replica: str) -> Witness:
        """The tally as the checker takes it."""
        return Witness(terminal, replica, Counter(self.accepted), Counter(self.unanswered))


class Bus:
    """Starts, taps on, cuts, kills, reads a bus. `on_death` is told when a process of it ends unasked."""

    def __init__(
        self, role: BusRole, place: Place, router: Router, on_death: Callable[[Child], None]
    ) -> None:
        self.role = role
        self.tally = Tally()
        self.router = router
        self.replica = ""
        self.power = Power.OFF
        self.reading: Reading | None = None
        self._place = place
        self._reader = Child(
            f"the reader of {role.name}",
            ["-m", "hardware.emulator", "--link", str(place.reader)],
            place.directory / "reader-log.txt",
            on_death=on_death,
        )
        self._terminal = Child(
            f"{role.name}'s terminal",
            ["-m", "edge", "--settings", str(place.settings)],
            place.log,
            on_line=self._heard,
            on_death=on_death,
        )
        self._control = Control(place.control_socket, f"{role.name}'s terminal")
        self._one_card_at_a_time = asyncio.Lock()
        self._answer: asyncio.Future[Shown | None] | None = None
        self._resting: Display = READY
        self._shown: Display = READY
        self._shown_until_s = 0.0
        self._last_seen_s: dict[str, float] = {}

    async def start(self) -> None:
        """Starts router, reader and terminal; returns when the terminal can be asked."""
        await self.router.start()
        settings = terminal_settings(self._place, self.role, self.router.url)
        await asyncio.to_thread(write_settings, self._place, settings)
        await self._reader.start()
        await self._reader.wait_for(lambda line: str(self._place.reader) in line, START_TIMEOUT_S)
        await self.switch_on()

    async def switch_on(self) -> None:
        """Starts the terminal's process, for the first time or again."""
        self.power = Power.STARTING
        await self._terminal.start()
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not await self._answers():
            if not self._terminal.running:
                raise await self._terminal.obituary("ended while it started")
            if time.monotonic() > deadline_s:
                raise await self._terminal.obituary(f"was not ready within {START_TIMEOUT_S:.0f} s")
            await asyncio.sleep(0.05)
        self.power = Power.ON

    async def pair(self, code: str) -> None:
        """Gives the terminal a one-time code; it has to find the hub by itself. DemoError when it does not.

        Other hubs may be announced where this machine is; they do not know the code, and the router does not
        reach them. So a terminal that has heard of them only is asked again.
        """
        deadline_s = time.monotonic() + PAIR_TIMEOUT_S
        while True:
            try:
                paired = await self._control.post("/pair", {"code": code})
            except Refused as refused:
                if time.monotonic() > deadline_s:
                    raise DemoError(_NOT_FOUND.format(name=self.role.name, why=refused)) from refused
                await asyncio.sleep(0.2)
            else:
                self.replica = str(paired["replica"])
                return

    async def present(self, uid: str) -> Shown | None:
        """Holds a card to the reader and takes it away again; what the terminal said, or None if nothing.

        None means that the terminal was killed before it said anything, or was silent for too long.
        """
        async with self._one_card_at_a_time:
            await self._until_it_was_away(uid)
            if self.power is not Power.ON:
                raise NotAnswering(f"{self.role.name} is off. Start it again first.")
            self._answer = asyncio.get_running_loop().create_future()
            shown = None
            await self._reader.say(f"present ntag215:{uid}")
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    shown = await self._answer
            self._answer = None
            await self._reader.say("remove")
            self._last_seen_s[uid] = time.monotonic()
            self.tally.count(uid, shown)
            return shown

    async def kill(self) -> None:
        """kill -9 of the terminal."""
        self.power = Power.OFF
        await self._terminal.kill()
        # Everything it had printed has been heard by now: whoever waits for an answer gets none.
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    async def read(self, uids: list[str]) -> Reading | None:
        """Asks the terminal what its ledger says; None when it does not answer."""
        with suppress(NotAnswering):
            self.reading = await read_terminal(self._control, uids, self.reading)
            return self.reading
        return None

    def state(self, now_s: float) -> BusState:
        """How the bus stands."""
        display = self._shown if now_s < self._shown_until_s else self._resting
        return BusState(self.role, self.power, self.router.is_cut, display, self.reading)

    async def stop(self) -> None:
        """Ends the bus's processes."""
        self.power = Power.OFF
        await self._terminal.stop()
        await self._reader.stop()
        await self._control.close()
        await self.router.close()

    async def _answers(self) -> bool:
        with suppress(NotAnswering):
            await self._control.get("/status")
            return True
        return False

    def _heard(self, line: str) -> None:
        shown = read_line(line)
        if shown is None:
            return
        if not shown.is_verdict:
            self._resting = shown.display
            return
        self._shown, self._shown_until_s = shown.display, time.monotonic() + SHOWN_FOR_S
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(shown)

    async def _until_it_was_away(self, uid: str) -> None:
        wait_s = self._last_seen_s.get(uid, 0.0) + AWAY_S - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
