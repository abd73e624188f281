"""The hub's own figures of the exposure, against what a fleet of real ledgers then does."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from random import Random

import pytest

from crdt.exposure import Rules
from crdt.facts import CardId, Draft, Kind
from crdt.fleet import REFUSE, REGISTER, FleetSettings
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from edge.decide import Accepted, decide
from hub.exposure import ExposureView, judge, standings
from hub.published import Published
from hub.registry import Terminal
from tests.crdt import world
from tests.crdt.store.fleet import KEY, Fleet, OpenTerminal, card
from tests.hub.registered import registered

CARDS = [card(number) for number in range(3)]
MINUTE_MS = 60_000
LENDING = FleetSettings(flat_fare_minor=250, unknown_card=REFUSE)
STRICT = replace(LENDING, negative_ride=False)
OPENING = replace(LENDING, unknown_card=REGISTER, opening_balance_minor=500)
DEAR = replace(STRICT, flat_fare_minor=500, passback_window_s=0)
POLICIES = ((LENDING, STRICT), (STRICT, DEAR), (STRICT, OPENING), (LENDING, STRICT, OPENING, DEAR))


class TellingFleet(Fleet):
    """Its hub knows what a terminal has that has installed a settlement, as a hub that runs does."""

    def open_hub(self) -> None:
        self.hub_database = Database.open(self._directory / "hub.db", KEY, readers=2)
        self.hub = HubLedger(
            self.hub_database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB, sharing=True
        )


@dataclass
class Bus:
    """A terminal, with the version of the settings that it was given last, and its row of the registry."""

    terminal: OpenTerminal
    row: Terminal
    version: int = 1


@dataclass
class Depot:
    """Buses and their hub, at some time; which settings it has published, the newest last."""

    fleet: Fleet
    random: Random
    choice: Sequence[FleetSettings]
    now_ms: int = 0
    policies: list[FleetSettings] = field(default_factory=list)
    buses: list[Bus] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Everybody is in touch."""
        self.policies.append(self.choice[0])
        for number, terminal in enumerate(self.fleet.terminals):
            row = registered(number, replica=terminal.ledger.replica)
            self.buses.append(Bus(terminal, row))
            self.sync(self.buses[-1])

    def step(self) -> None:
        """Something that happens on a day."""
        self.now_ms += self.random.choice((0, 1000, MINUTE_MS))
        match self.random.randrange(8):
            case 0:
                self.policies.append(self.random.choice(self.choice))
            case 1 | 2:
                self.sync(self.random.choice(self.buses))
            case 3:
                amount_minor = self.random.choice((250, 1000))
                self.fleet.book(self.random.choice(CARDS), Draft(Kind.TOPUP, amount_minor))
            case _:
                self.tap(self.random.choice(self.buses), self.random.choice(CARDS))

    def tap(self, bus: Bus, which: CardId) -> None:
        """A card on a bus, which decides as buses do."""
        verdict = decide(bus.terminal.ledger.view(which), self.policies[bus.version - 1], "", self.now_ms)
        if isinstance(verdict, Accepted):
            bus.terminal.write(which, verdict.drafts, self.now_ms)

    def sync(self, bus: Bus) -> None:
        """All up and down. That it was given the newest settings it says only with the next one."""
        assert not self.fleet.push(bus.terminal).refused
        while self.fleet.hub.lag().result():
            pass
        self.fleet.pull(bus.terminal)
        installed = self.fleet.hub.installed(bus.terminal.ledger.settled()[1])
        assert installed is not None
        bus.row = replace(
            bus.row,
            seen_ms=self.now_ms,
            status={"fares_version": bus.version},
            settled_ms=self.now_ms,
            settled_fact=installed.last_fact,
        )
        bus.version = len(self.policies)

    def view(self, away: list[Bus]) -> ExposureView:
        """What the page says."""
        while self.fleet.hub.lag().result():
            pass
        since = min((bus.row.settled_fact for bus in away), default=None)
        cards = self.fleet.hub_database.read(lambda sql: standings(sql, since)).result()
        rules = Published({version: Rules.of(one) for version, one in enumerate(self.policies, 1)})
        return judge(rules, [bus.row for bus in self.buses], [bus.row for bus in away], cards, self.now_ms)

    def owed(self) -> dict[CardId, int]:
        """What each card that the hub knows owes by what the hub holds."""
        states = self.fleet.hub.cards(limit=len(CARDS)).result()
        return {one.card: max(0, -one.state.balance_minor) for one in states}

    def ride_out(self, away: Sequence[Bus], minutes: int) -> None:
        """Every card on every bus, as often as there is time for; buses in touch hear of it at once."""
        for _ in range(minutes):
            self.now_ms += MINUTE_MS
            for bus, which in product(self.buses, CARDS):
                self.tap(bus, which)
                if bus not in away:
                    self.meet(away)

    def meet(self, away: Sequence[Bus]) -> None:
        """Those that are not away hear of everything."""
        for bus in [bus for bus in self.buses if bus not in away] * 2:
            self.sync(bus)


@pytest.fixture(params=range(8))
def depot(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Depot]:
    """A fleet some days old."""
    with closing(TellingFleet(tmp_path, 3)) as fleet:
        depot = Depot(fleet, Random(request.param), POLICIES[request.param % len(POLICIES)])  # noqa: S311
        for _ in range(30):
            depot.step()
        yield depot


def more(before: dict[CardId, int], after: dict[CardId, int]) -> int:
    return sum(max(0, after[which] - owed) for which, owed in before.items())


def test_cards_never_owe_more_than_the_page_said(depot: Depot) -> None:
    """When a terminal goes, at most in all; whenever it is asked, at most by now."""
    away = depot.buses[: depot.random.randrange(1, 4)]
    for policy, absent in ((depot.choice[0], []), (depot.choice[-1], away)):
        depot.policies.append(policy)
        depot.meet(absent)
    told, before = depot.view(away), depot.owed()
    depot.ride_out(away, depot.random.choice((1, 8)))
    told_then, then = depot.view(away), depot.owed()
    depot.meet([])
    assert more(before, depot.owed()) <= told.fleet_minor
    assert more(then, depot.owed()) <= told_then.by_now_minor <= told_then.fleet_minor
