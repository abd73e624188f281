"""A small world: a hub, some terminals, some cards, and everything that can go wrong, drawn from one seed."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import accumulate
from random import Random
from typing import Final

from crdt.facts import CardId, Kind
from crdt.frames import Message
from edge.decide import Accepted
from edge.errors import UplinkError
from edge.exchange import Answer
from tests.simulation.buses import Bus
from tests.simulation.hubs import Backup, Hub
from tests.simulation.inline_loop import InlineLoop
from tests.simulation.intruders import Intruder
from tests.simulation.meetings import cut_short, exported, imported, meet
from tests.simulation.network import NO_FAULTS, Faults, Network
from tests.simulation.oracle import Broken, Oracle, expect
from tests.simulation.power import PowerCut

START_MS: Final = 1_790_000_000_000
MIN_STEPS, MAX_STEPS = 16, 32
BUSES: Final = (2, 2, 2, 3, 3, 4)
MAX_EXCHANGES: Final = 60  # of one run; a run that needs more does not come forward
PAGE_ROWS: Final = (1, 2, 3, 500, 500)  # of a settlement page: few, so that there are several
THEMES: Final = 3  # of seeds: a stranger is hotlisted for a while; storage is put back; a hub is put back
MAX_ROUNDS: Final = 4  # of everybody syncing, until all agree
CARDS: Final = (
    CardId(bytes.fromhex("04a1b2c3d4e5f6")),
    CardId(bytes.fromhex("04a1b2c3d4e5f7")),
    CardId(bytes.fromhex("deadbeef")),
    CardId(bytes.fromhex("00112233445566778899aabbccddeeff")),
    CardId(bytes.fromhex("0411111111111111111a")[:10]),
)
WORLD_FAULTS: Final = (
    NO_FAULTS,
    Faults(lost=0.1, unanswered=0.1),
    Faults(lost=0.1, unanswered=0.15, late=0.15, twice=0.15),
    Faults(stale=0.4),
    Faults(unanswered=0.1, late=0.05, twice=0.05, damaged=0.1, stale=0.25),
)


class World:
    """One seed's world. `run` plays it, heals it, and raises Broken where a promise is."""

    def __init__(self, seed: int) -> None:
        self.theme = seed % THEMES
        self.random = Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self.trace: list[tuple[object, ...]] = []
        self.oracle = Oracle()
        self.loop = InlineLoop()
        self.hub = Hub(self.oracle, self.loop, self.random.choice(PAGE_ROWS))
        self.buses = [
            Bus(n, self.oracle, self.loop, START_MS) for n in range(1, 1 + self.random.choice(BUSES))
        ]
        self.cards = CARDS[: self.random.randint(3, len(CARDS))]
        self.network = Network(self.hub, self.random)
        self.faults = self.random.choice(WORLD_FAULTS)
        self.intruder = Intruder(self)
        self.backups: list[Backup] = []
        self.now_ms = START_MS
        self._bookings = 0
        self._restored = False
        self._sticks: list[bytes] = []

    def run(self) -> None:
        """Play, heal, compare."""
        self.network.faults = self.faults
        steps = self.random.randint(MIN_STEPS, MAX_STEPS)
        script = _SCRIPTS[self.theme]
        at = sorted(self.random.sample(range(2, steps), len(script)))
        for number in range(steps):
            self.step(script[at.index(number)] if number in at else self._draw())
        self.heal()

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

    # ---- One step ----

    def step(self, action: Callable[[World], None]) -> None:
        """Something happens; then every promise is looked at where it could have been broken."""
        passed = self.random.choice((50, 2_000, 45_000, 3_600_000))
        self.now_ms += passed
        for bus in self.buses:
            bus.wall.pass_time(passed)
        self.trace.append((action.__name__.strip("_"), passed))
        action(self)

    def _draw(self) -> Callable[[World], None]:
        return _ACTIONS[bisect(_LUCK, self.random.random() * _LUCK[-1], hi=len(_LUCK) - 1)][1]

    def bus(self) -> Bus:
        """Any bus."""
        return self.random.choice(self.buses)

    def card(self) -> CardId:
        """Any card; the last one is seldom seen."""
        return self.random.choice(self.cards if self.random.random() < 0.2 else self.cards[:-1])

    def note(self, *what: object) -> None:
        """Add to the last line of the trace."""
        self.trace[-1] += what

    def _tap(self) -> None:
        bus, card = self.bus(), self.card()
        self._maybe_cut(bus, 2)
        try:
            verdict = bus.tap(card)
        except PowerCut:
            self._restart(bus)
            return
        finally:
            bus.power.keep()
        self.note(bus.name, card.hex(), type(verdict).__name__)
        bus.check([card])
        if isinstance(verdict, Accepted):
            expect(
                bus.ledger.view(card).balance_minor == verdict.balance_after_minor,
                "the driver was told another balance",
            )

    def _sync(self) -> None:
        self.sync(self.bus(), cuts=True)

    def sync(self, bus: Bus, *, cuts: bool = False) -> bool:
        """One sync run of a bus; whether it came to its end."""

        left = iter(range(MAX_EXCHANGES))

        async def exchange(messages: Sequence[Message]) -> Answer:
            expect(next(left, None) is not None, f"{bus.name} syncs without end")
            return await self.network.exchange(bus.number, bus.replica, messages)

        if cuts:
            self._maybe_cut(bus, 14)
            self._maybe_cut(self.hub, 10)
        try:
            outcome = bus.sync(exchange)
        except PowerCut:
            self._restart(bus)
            return False
        finally:
            bus.power.keep()
            self.hub.power.keep()
        bus.check(self.cards)
        if isinstance(outcome, UplinkError):
            self.note(bus.name, type(outcome).__name__, str(outcome)[:200])
            return False
        self.note(bus.name, "complete" if outcome.complete else "incomplete")
        return outcome.complete

    def _sync_copied(self) -> None:
        """Deliver what a copy of the storage does not have."""
        copied = [bus for bus in self.present() if bus.copy is not None]
        if copied:
            bus = self.random.choice(copied)
            bus.tap(self.cards[0])
            self.sync(bus)

    def _seal(self) -> None:
        bus = self.bus()
        self._maybe_cut(bus, 2)
        try:
            bus.ledger.seal()
        except PowerCut:
            self._restart(bus)
        finally:
            bus.power.keep()
        self.note(bus.name)
        bus.check(self.cards)

    def _tidy(self) -> None:
        bus = self.bus()
        self._maybe_cut(bus, 6)
        try:
            self.note(bus.name, bus.database.run_background(self.random.choice((1, 4, 16))))
        except PowerCut:
            self._restart(bus)
        finally:
            bus.power.keep()
        bus.check(self.cards)

    def _power_cycle(self) -> None:
        bus = self.bus()
        self.note(bus.name)
        self._restart(bus)

    def _restart(self, bus: Bus) -> None:
        self.note("power cut", bus.name)
        bus.start()
        bus.check(self.cards)

    def _hub_power_cycle(self) -> None:
        self.hub.start()

    def _book(self) -> None:
        self._bookings += 1
        number = self._bookings - (self.random.random() < 0.25 and self._bookings > 1)
        card = self.cards[number % (len(self.cards) - 1)]
        kind = Kind.TOPUP if number % 4 else Kind.ADJUSTMENT
        self.note(card.hex(), number)
        self._maybe_cut(self.hub, 2)
        try:
            self.hub.book(card, kind, 100 * number, self.now_ms, f"request {number}")
        except PowerCut:
            self._restart_hub()
        finally:
            self.hub.power.keep()

    def _block(self) -> None:
        self._list(self.card())

    def _list_stranger(self) -> None:
        self._list(self.cards[-1])

    def _list(self, card: CardId) -> None:
        """Put a card on the hotlist, or take it off."""
        listed = card not in self.oracle.hub.listed
        self.note(card.hex(), listed)
        self._maybe_cut(self.hub, 2)
        try:
            self.hub.block(card, listed)
        except PowerCut:
            self._restart_hub()
        finally:
            self.hub.power.keep()

    def _restart_hub(self) -> None:
        self.note("power cut", "hub")
        self.hub.start()

    def _hub_chores(self) -> None:
        self._maybe_cut(self.hub, 4)
        try:
            self.note(self.hub.database.run_background(self.random.choice((1, 4, 16))))
        except PowerCut:
            self._restart_hub()
        finally:
            self.hub.power.keep()

    def _publish(self) -> None:
        self.hub.publish_fares()

    def _backup(self) -> None:
        self.backups = [*self.backups[-1:], self.hub.backup()]

    def _restore_hub(self) -> None:
        if self.backups:
            self.hub.restore(self.random.choice(self.backups))
            self.note("restored")

    def _late(self) -> None:
        if self.network.late:
            self.network.deliver_late()
            self.note("delivered")

    def _partition(self) -> None:
        bus = self.bus()
        self.network.partitioned ^= {bus.number}
        self.note(bus.name, bus.number in self.network.partitioned)

    def _clock(self) -> None:
        bus = self.bus()
        wall = bus.wall
        match self.random.randrange(4):
            case 0:
                wall.wall_ms = self.random.randrange(86_400_000)  # 1970: the Pi has no battery
            case 1:
                wall.wall_ms += self.random.choice((10_000, 86_400_000, 400 * 86_400_000))
            case 2:
                wall.wall_ms = max(0, wall.wall_ms - self.random.choice((10_000, 86_400_000)))
            case _:
                wall.wall_ms = wall.synchronised_ms = self.now_ms
        self.note(bus.name, wall.wall_ms)

    def _pair_anew(self) -> None:
        bus = self.bus()
        if len(bus.replicas) < 3 and bus.branch is None and bus.replica not in self.network.revoked:
            bus.pair_anew()
        self.note(bus.name)
        bus.check(self.cards)

    def _meet(self) -> None:
        honest = [bus for bus in self.buses if bus.branch is None]
        if len(honest) < 2:
            return
        giver, taker = self.random.sample(honest, 2)
        self._maybe_cut(taker, 3)
        try:
            self.note(giver.name, taker.name, meet(giver, taker))
        except PowerCut:
            self._restart(taker)
        finally:
            taker.power.keep()
        taker.check(self.cards)

    def _courier(self) -> None:
        """A technician fills a stick on some bus, or brings one to the hub: again, or half of it."""
        bus = self.bus()
        if bus.branch is None and (not self._sticks or self.random.random() < 0.5):
            self._sticks = [*self._sticks[-2:], exported(bus)]
            self.note(bus.name)
        elif self._sticks:
            file = self.random.choice(self._sticks)
            file = cut_short(file, self.random) if self.random.random() < 0.3 else file
            self._maybe_cut(self.hub, 2)
            try:
                self.note("hub", imported(self.hub, file))
            except PowerCut:
                self._restart_hub()
            finally:
                self.hub.power.keep()

    def _copy_storage(self) -> None:
        bus = self.bus()
        if bus.copy is None or self.random.random() < 0.3:
            bus.copy_storage()
        self.note(bus.name)

    def _restore_storage(self) -> None:
        copied = [bus for bus in self.present() if bus.copy is not None]
        if not copied or self._restored:
            return
        bus = self.random.choice(copied)
        held = self.oracle.hub.reach.get(bus.replica, 0)
        others = [other for other in self.buses if other is not bus]
        if any(other.reach().get(bus.replica, 0) > held for other in others):
            return  # two chains that nobody has judged: whichever comes to the hub first counts
        self._restored = True
        self._sticks = []
        for other in others:
            other.forget(bus)
        self.network.late = [late for late in self.network.late if late[0] != bus.replica]
        self.backups = []  # what only a hub has is lost when that is put back as well
        with_marks = self.random.random() < 0.6
        bus.restore_storage(held, with_marks=with_marks)
        self.note(bus.name, "with marks" if with_marks else "", bus.branch is not None)
        bus.check(self.cards)

    def _revoke(self) -> None:
        if len(self.buses) > 2 and not self.network.revoked:
            bus = self.bus()
            if bus.branch is None:
                self.network.revoked.update(bus.replicas)
            self.note(bus.name)

    def _intrude(self) -> None:
        self.note(self.intruder.act())

    def _maybe_cut(self, computer: Bus | Hub, steps: int) -> None:
        if self.random.random() < 0.12:
            computer.power.cut_after(self.random.randrange(steps))

    # ---- The end ----

    def heal(self) -> None:
        """Everything works again; within MAX_ROUNDS of syncing, everybody agrees with the truth."""
        self.trace.append(("heal",))
        self.network.faults = NO_FAULTS
        self.network.partitioned.clear()
        while self.network.late:
            self.network.deliver_late()
        for bus in self.buses:
            bus.wall.wall_ms = bus.wall.synchronised_ms = self.now_ms
            for stopped in self.buses:
                if stopped.replica in self.network.revoked and stopped is not bus:
                    bus.forget(stopped)  # it is not answered any more
        for _ in range(MAX_ROUNDS):
            behind = [bus for bus in self.present() if not bus.agrees()]
            if not behind:
                break
            for bus in behind:
                expect(
                    self.sync(bus), f"{bus.name} cannot sync though everything works: {self.trace[-1][-1]}"
                )
        else:
            raise Broken(f"no agreement after {MAX_ROUNDS} rounds")
        self._compare()

    def present(self) -> list[Bus]:
        """The buses that may speak to the hub."""
        return [bus for bus in self.buses if bus.replica not in self.network.revoked]

    def _compare(self) -> None:
        oracle = self.oracle
        present = {replica for bus in self.present() for replica in bus.replicas}
        for replica in present:
            count = len(oracle.facts[replica])
            expect(oracle.hub.reach.get(replica, 0) == count, f"the hub lacks facts of {replica.hex()}")
        states = oracle.believed(oracle.hub, {})
        for bus in self.present():
            expect(bus.installed() == oracle.hub, f"{bus.name} has another settlement")
            expect(bus.ledger.held() == (0, 0), f"{bus.name} still holds something")
            for card in self.cards:
                expect(
                    bus.ledger.view(card).balance_minor == sum(states.get(card, (0, 0))), "balances differ"
                )
        for bus in self.random.sample(self.present(), 1):
            expect(bus.ledger.digest() == self.hub.ledger.digest().result(), f"{bus.name} has another digest")
            expect(bus.ledger.books().balance, f"the books of {bus.name} do not balance")
        books = self.hub.ledger.books().result()
        expect(books.balance, "the hub's books do not balance")


_ACTIONS: Final[tuple[tuple[float, Callable[[World], None]], ...]] = (
    (30, World._tap),
    (16, World._sync),
    (6, World._book),
    (4, World._intrude),
    (3, World._seal),
    (3, World._tidy),
    (4, World._block),
    (3, World._late),
    (3, World._clock),
    (2, World._power_cycle),
    (2, World._backup),
    (2, World._partition),
    (2, World._restore_hub),
    (1, World._hub_chores),
    (1, World._hub_power_cycle),
    (1, World._pair_anew),
    (1, World._publish),
    (4, World._meet),
    (3, World._courier),
    (2, World._copy_storage),
    (2, World._restore_storage),
    (0.5, World._revoke),
)
_LUCK: Final = tuple(accumulate(weight for weight, _ in _ACTIONS))
_SCRIPTS: Final[tuple[tuple[Callable[[World], None], ...], ...]] = (  # what happens for certain, in order
    (World._list_stranger, World._sync, World._list_stranger),
    (World._copy_storage, World._sync_copied, World._restore_storage),
    (World._backup, World._book, World._restore_hub, World._book),
)
assert len(_SCRIPTS) == THEMES
