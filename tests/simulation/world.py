"""A small world: a hub, some terminals, some cards, and everything that can go wrong, drawn from one seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Final

from crdt.facts import CardId, ReplicaId
from crdt.frames import Message
from edge.errors import UplinkError
from edge.exchange import Answer
from tests.simulation.actions import DAYS, SCRIPTS, STORAGE, STRANGER, THEMES, draw
from tests.simulation.buses import Bus
from tests.simulation.diary import check_days
from tests.simulation.healing import heal
from tests.simulation.hubs import Backup, Hub
from tests.simulation.inline_loop import InlineLoop
from tests.simulation.intruders import Intruder
from tests.simulation.keeping import check_remembered
from tests.simulation.network import NO_FAULTS, Faults, Network
from tests.simulation.oracle import Oracle, expect
from tests.simulation.power import PowerCut

if TYPE_CHECKING:
    from tests.simulation.actions import Action

START_MS: Final = 1_790_000_000_000
DRAWN: Final = (4, 12)  # steps beside those of the script: at least, at most
BUSES: Final = (2, 2, 2, 2, 3, 3, 4)
DAYS_TOO: Final = 0.25  # of the worlds in which storage is put back: in these days are looked at as well
LOOK_EVERY: Final = 4  # steps in which the days are looked at; it takes as long as a step
MAX_EXCHANGES: Final = 60  # of one run; a run that needs more does not come forward
PAGE_ROWS: Final = (1, 2, 3, 500, 500)  # of a settlement page: few, so that there are several
CARDS: Final = (
    CardId(bytes.fromhex("04a1b2c3d4e5f6")),
    CardId(bytes.fromhex("04a1b2c3d4e5f7")),
    CardId(bytes.fromhex("deadbeef")),
    CardId(bytes.fromhex("00112233445566778899aabbccddeeff")),
    CardId(bytes.fromhex("0411111111111111111a")[:10]),
)
STALE: Final = Faults(stale=0.4)
WORLD_FAULTS: Final = (
    NO_FAULTS,
    Faults(lost=0.1, unanswered=0.1),
    Faults(lost=0.1, unanswered=0.15, late=0.15, twice=0.15),
    STALE,
    Faults(unanswered=0.1, late=0.05, twice=0.05, damaged=0.1, stale=0.25),
)
FAULTS: Final = {  # of some themes
    STORAGE: [replace(faults, stale=0.0) for faults in WORLD_FAULTS],  # an old answer hides what the hub has
    STRANGER: [*WORLD_FAULTS, STALE, STALE, STALE],
}


@dataclass
class Fate:
    """Whether the power failed meanwhile."""

    cut: bool = False


class World:
    """One seed's world. `run` plays it, heals it, and raises Broken where a promise is."""

    def __init__(self, seed: int) -> None:
        self.theme = seed % THEMES
        self.random = Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self.trace: list[tuple[object, ...]] = []
        self.oracle = Oracle(START_MS)
        self.loop = InlineLoop()
        self.hub = Hub(self.oracle, self.loop, self.random.choice(PAGE_ROWS), seed)
        self.buses = [
            Bus(n, self.oracle, self.loop, START_MS) for n in range(1, 1 + self.random.choice(BUSES))
        ]
        self.cards = CARDS[: self.random.randint(3, len(CARDS))]
        self.network = Network(self.hub, self.random)
        self.days = self.theme == DAYS or (self.theme == STORAGE and self.random.random() < DAYS_TOO)
        self.faults = self.random.choice(FAULTS.get(self.theme, WORLD_FAULTS))
        self.intruder = Intruder(self)
        self.backups: list[Backup] = []
        self.sticks: list[bytes] = []  # courier files
        self.bookings = 0
        self.sharer: Bus | None = None  # whose blocks somebody else carries for certain
        self.restored: set[bool] = set()  # a terminal's storage was put back: without, with a promise

    def run(self) -> None:
        """Play, heal, compare."""
        self.network.faults = self.faults
        script = SCRIPTS[self.theme]
        steps = len(script) + self.random.randint(*DRAWN)
        at = sorted(self.random.sample(range(2, steps), len(script)))
        for number in range(steps):
            self.step(script[at.index(number)] if number in at else draw(self.random))
        heal(self)

    def step(self, action: Action) -> None:
        """Something happens; then every promise is looked at where it could have been broken."""
        passed = self.random.choice((50, 2_000, 45_000, 3_600_000))
        self.pass_time(passed)
        self.trace.append((action.__name__, passed))
        action(self)
        if self.days and len(self.trace) % LOOK_EVERY == 0:
            check_days(self)

    def close(self) -> None:
        """Give the disks back."""
        for disk in (self.hub.disk, *(bus.disk for bus in self.buses)):
            disk.give_back()

    def digest(self) -> str:
        """A hash of everything that happened."""
        hub = self.oracle.hub
        sets = (sorted(hub.reach.items()), sorted(hub.cards.items()), sorted(hub.listed))
        state = (self.trace, self.network.log, sorted(self.oracle.facts.items()), sets)
        return sha256(repr(state).encode()).hexdigest()

    # ---- For the actions ----

    @property
    def now_ms(self) -> int:
        """The true time."""
        return self.oracle.now_ms

    def pass_time(self, ms: int) -> None:
        """Time passes for everybody."""
        self.oracle.now_ms += ms
        for bus in self.buses:
            bus.wall.pass_time(ms)

    def bus(self) -> Bus:
        """Any bus."""
        return self.random.choice(self.buses)

    def card(self) -> CardId:
        """Any card; the last one is seldom seen."""
        return self.random.choice(self.cards if self.random.random() < 0.2 else self.cards[:-1])

    def present(self) -> list[Bus]:
        """The buses that may speak to the hub."""
        return [bus for bus in self.buses if bus.replica not in self.network.revoked]

    def note(self, *what: object) -> None:
        """Add to the last line of the trace."""
        self.trace[-1] += what

    @contextmanager
    def risking(self, computer: Bus | Hub, steps: int) -> Iterator[Fate]:
        """The power may fail within so many steps; then the computer is started again, and that is all."""
        fate = Fate()
        self._maybe_cut(computer, steps)
        try:
            yield fate
        except PowerCut:
            fate.cut = True
            self.restart(computer)
        finally:
            computer.power.keep()

    def restart(self, computer: Bus | Hub) -> None:
        """The power comes back."""
        self.note("power cut", computer.power.name)
        computer.start()
        if isinstance(computer, Bus):
            computer.check(self.cards)

    def sync(self, bus: Bus, *, cuts: bool = False) -> bool:
        """One sync run of a bus; whether it came to its end."""

        left, before = iter(range(MAX_EXCHANGES)), bus.replica
        ended = bus.ledger.revocations().cut_offs.keys()

        async def exchange(messages: Sequence[Message]) -> Answer:
            expect(next(left, None) is not None, f"{bus.name} syncs without end")
            promised = bus.promised is not None
            return await self.network.exchange(bus.number, bus.speaks_as, messages, promised=promised)

        async def as_before(messages: Sequence[Message]) -> Answer:
            return await self.network.exchange(bus.number, bus.replica, messages, fresh=True)

        if cuts:
            self._maybe_cut(bus, 14)
            self._maybe_cut(self.hub, 10)
        try:
            outcome = bus.sync(exchange, as_before, lambda: self._renew(bus))
        except PowerCut:
            self.restart(bus)
            check_remembered(bus, ended)
            return False
        finally:
            bus.power.keep()
            self.hub.power.keep()
            if bus.replica != before:
                self._met_anew(bus, before)
        bus.check(self.cards)
        check_remembered(bus, ended)
        if isinstance(outcome, UplinkError):
            self.note(bus.name, type(outcome).__name__, str(outcome)[:200])
            return False
        self.note(bus.name, "complete" if outcome.complete else "incomplete")
        return outcome.complete

    def pair_restored(self, bus: Bus) -> None:
        """A technician pairs a terminal that knows that its storage is old."""
        before = bus.replica

        async def exchange(messages: Sequence[Message]) -> Answer:
            promised = bus.promised is not None
            return await self.network.exchange(bus.number, bus.speaks_as, messages, promised=promised)

        try:
            bus.pair_restored(exchange, lambda: self._renew(bus))
        except UplinkError as error:
            self.note(type(error).__name__)
            return
        self._met_anew(bus, before)

    def promise(self, bus: Bus) -> None:
        """The hub gives a terminal a new identity, and that goes out of reach."""
        with suppress(UplinkError):
            bus.promise(lambda: self._renew(bus))

    def _renew(self, bus: Bus) -> None:
        promised = None if bus.promised is None else bus.promised.identity.author
        forgotten = promised if promised in bus.forgotten else None
        self.network.renew(bus.number, bus.next_author, bus.since_pairing, forgotten)

    def _met_anew(self, bus: Bus, before: ReplicaId) -> None:
        """The doors around it meet it under its new name, and so know that the old one says nothing more."""
        for other in self.buses:
            if other is not bus:
                other.beliefs.forget(before)

    def _maybe_cut(self, computer: Bus | Hub, steps: int) -> None:
        if self.random.random() < 0.12:
            computer.power.cut_after(self.random.randrange(steps))
