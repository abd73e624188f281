"""The round that `farebox-hub demo --headless` plays: all that goes wrong on a bad day, in twenty seconds.

Seeded: the same seed plays the same taps in the same order on each bus. What is being checked besides the
ledgers (a ride into the negative, a card that two offline buses meet first) is noted as broken promises, in
sentences.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from .bus import Bus
from .cast import CardRole
from .console import Shown
from .errors import NotAnswering
from .stage import Stage

ONLINE_SHARE: Final = 0.35
OFFLINE_SHARE: Final = 0.75  # until here of the time two buses are cut off
MOST_KILL_DELAY_S: Final = 0.08  # a tap takes about 0.05 s here
TAPS_BEFORE_KILL: Final = 4
TRIES: Final = 2

SHARED: Final = CardRole("04A1B2C3D4E511", "Shared", 5000)  # on both cut buses
POOR: Final = CardRole("04A1B2C3D4E512", "Poor", 300)  # rides into the negative
STRANGER: Final = CardRole("04A1B2C3D4E513", "Stranger", 0)  # first met by two buses that are cut off
# So many that none comes back to a bus before it has been away for long enough.
CROWD: Final = tuple(CardRole(f"04A1B2C3D4E6{n:02X}", f"Passenger {n}", 400_000) for n in range(30))
DECK: Final = (SHARED, POOR, STRANGER, *CROWD)

Say = Callable[[str], None]


class Round:
    """Plays one round on a started stage. `broken` collects what did not come out as the script demands."""

    def __init__(self, stage: Stage, seed: int, seconds: float, say: Say) -> None:
        self.broken: list[str] = []
        self._stage = stage
        self._buses = list(stage.buses.values())
        self._seconds = seconds
        self._say = say
        # One source for each bus, so that how fast one answers does not change what another is asked.
        self._chance = {bus.role.key: _chance(f"{seed} {bus.role.key}") for bus in self._buses}
        self._queue: dict[str, list[str]] = {bus.role.key: [] for bus in self._buses}

    async def play(self) -> None:
        """Taps, cuts, kills and reconnects; returns when the last card has been taken away."""
        begin_s = time.monotonic()
        first, second, third = self._buses
        self._say("three buses are online and take taps")
        await self._together(begin_s + ONLINE_SHARE * self._seconds)
        self._say(f"{second.role.name} and {third.role.name} are cut off and go on taking taps")
        second.router.cut()
        third.router.cut()
        await asyncio.gather(self._meet_stranger(second, third), self._ride_into_the_negative(first))
        await self._stage.depot.top_up(SHARED.uid, 1000)
        await self._together(begin_s + 0.5 * (ONLINE_SHARE + OFFLINE_SHARE) * self._seconds)
        self._say(
            f"{second.role.name}'s terminal is killed with kill -9 in the middle of a tap, and started again"
        )
        await self._kill_in_a_tap(second)
        await self._together(begin_s + OFFLINE_SHARE * self._seconds)
        self._say("both are connected again, and all go on taking taps")
        second.router.restore()
        third.router.restore()
        await self._together(begin_s + self._seconds)

    async def _together(self, until_s: float) -> None:
        await asyncio.gather(*(self._crowd(bus, until_s) for bus in self._buses))

    async def _crowd(self, bus: Bus, until_s: float) -> None:
        """One passenger after the other on one bus: a few at least, then until the time is over."""
        for _ in range(3):
            await self._tap(bus, self._next_card(bus))
        while time.monotonic() < until_s:
            await self._tap(bus, self._next_card(bus))

    def _next_card(self, bus: Bus) -> str:
        """Everybody once, in any order, then everybody again in another."""
        queue = self._queue[bus.role.key]
        if not queue:
            queue += self._chance[bus.role.key].sample([card.uid for card in CROWD], len(CROWD))
        return queue.pop()

    async def _tap(self, bus: Bus, uid: str) -> Shown | None:
        """Holds a card to a reader, and once more when nothing happens, as people do."""
        for _ in range(TRIES):
            if (shown := await bus.present(uid)) is not None:
                return shown
        self.broken.append(f"{bus.role.name} was running and gave card {uid} no answer.")
        return None

    async def _accepted(self, bus: Bus, card: CardRole, why: str) -> None:
        shown = await self._tap(bus, card.uid)
        if shown is not None and not shown.accepted:
            self.broken.append(f"{bus.role.name} refused card {card.uid} ({shown.display.main}): {why}.")

    async def _meet_stranger(self, *buses: Bus) -> None:
        """Two buses that cannot ask anybody meet the same new card, and the same old one."""
        for card, why in (
            (STRANGER, "a card that nobody has met gets an opening balance"),
            (SHARED, "it has money"),
        ):
            await asyncio.gather(*(self._accepted(bus, card, why) for bus in buses))

    async def _ride_into_the_negative(self, bus: Bus) -> None:
        """3.00 on the card, 2.50 a ride: the second ride is lent, the third is not."""
        for why in ("it has the fare", "one ride may go into the negative"):
            await self._accepted(bus, POOR, why)
        shown = await self._tap(bus, POOR.uid)
        if shown is not None and shown.accepted:
            self.broken.append(f"{bus.role.name} let card {POOR.uid} ride into the negative twice.")

    async def _kill_in_a_tap(self, bus: Bus) -> None:
        chance = self._chance[bus.role.key]
        for _ in range(TAPS_BEFORE_KILL):
            await self._tap(bus, self._next_card(bus))
        await kill_in_a_tap(bus, self._next_card(bus), chance.uniform(0, MOST_KILL_DELAY_S))
        await bus.switch_on()


async def kill_in_a_tap(bus: Bus, uid: str, delay_s: float) -> None:
    """Holds a card to a terminal and kills it `delay_s` later, answered or not."""
    tap = asyncio.create_task(bus.present(uid))
    await asyncio.sleep(delay_s)
    await bus.kill()
    with suppress(NotAnswering):
        await tap


def _chance(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311  (a script to play again, not a secret)
