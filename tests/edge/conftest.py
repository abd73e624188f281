"""A terminal with a real encrypted ledger, paired or not, and a passenger who watches its lights."""

import queue
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crdt.documents import FLEET_DOCUMENT, FleetDocument, SignedDocument
from crdt.fleet import FleetSettings
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from edge.clock import TerminalClock
from edge.terminal import Terminal
from hardware.feedback import Signal
from tests.edge.authority import Fleet

KEY = bytes(range(32))
PATIENCE_S = 30.0
"""A bound on waiting for another thread, not a measurement."""
FARES = FleetSettings(flat_fare_minor=250, opening_balance_minor=1_000, passback_window_s=0)


@dataclass
class Passenger:
    """A `Feedback` that a test can wait for."""

    shown: list[tuple[Signal, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._news: queue.SimpleQueue[tuple[Signal, str]] = queue.SimpleQueue()

    def show(self, signal: Signal, text: str = "") -> None:
        self.shown.append((signal, text))
        self._news.put((signal, text))

    def close(self) -> None:
        pass

    def sees(self, signal: Signal) -> str:
        """Wait for this signal, whatever comes before it; its text."""
        while True:
            seen, text = self.next()
            if seen is signal:
                return text

    def next(self) -> tuple[Signal, str]:
        """Wait for the next signal, whichever it is."""
        return self._news.get(timeout=PATIENCE_S)


def document(fleet: Fleet, fares: FleetSettings, version: int = 1) -> SignedDocument:
    """The fleet's settings, signed by its hub."""
    body = FleetDocument.new(fares).body
    return SignedDocument.seal(fleet.hub_key, fleet.id, FLEET_DOCUMENT, version, body)


def pair(terminal: Terminal, fleet: Fleet, fares: FleetSettings | None = FARES) -> None:
    """What pairing and the first sync do."""
    terminal.enrol(fleet.enrol())
    if fares is not None:
        terminal.adopt(document(fleet, fares))


def clock_of(terminal: Terminal) -> TerminalClock:
    """A clock that nothing has synchronised since boot."""
    return TerminalClock(
        floor_ms=0,
        epoch=1,
        save_epoch=terminal.save_clock_epoch,
        save_floor=terminal.save_clock_floor,
        synchronised_ms=lambda: None,
    )


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    return Fleet(1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "ledger.db", KEY, layout=TERMINAL_LAYOUT) as opened:
        yield opened


@pytest.fixture
def hub_database(tmp_path: Path) -> Iterator[Database]:
    """Another, for a hub's ledger."""
    with Database.open(tmp_path / "hub.db", KEY) as opened:
        yield opened


@pytest.fixture
def terminal(database: Database) -> Terminal:
    """Not paired yet."""
    return Terminal(database)


@pytest.fixture
def paired(terminal: Terminal, fleet: Fleet) -> Terminal:
    """Paired, with fares."""
    pair(terminal, fleet)
    return terminal


@pytest.fixture
def passenger() -> Passenger:
    return Passenger()
