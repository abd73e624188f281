"""The tap path with the real reader driver, an emulated PN532 on a pty and a real encrypted ledger."""

import contextlib
import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlcipher3.dbapi2

from crdt.facts import CardId, Kind
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from edge.clock import TerminalClock
from edge.taps import FAULT_S, Place, TapPath
from edge.terminal import Terminal
from edge.words import NO_FARES, NOT_PAIRED, NOT_PERMITTED, READER_FAILED, STORE_FAILED
from hardware.cards import PresentedCard
from hardware.emulator.faults import Fault
from hardware.emulator.pty_line import EmulatedReader, PtyLine
from hardware.errors import ReaderMissing
from hardware.feedback import Signal
from hardware.pn532 import open_reader
from hardware.reader import Reader
from tests.edge.authority import TERMINAL_LIMITS, Fleet
from tests.edge.conftest import FARES, KEY, PATIENCE_S, Passenger, clock_of, document, pair

UID = "04A1B2C3D4E5F6"
CARD = CardId(bytes.fromhex(UID))
BUS = Place("12", "front")


class Watching(Passenger):
    """Looks into the database file with a connection of its own at the moment the light turns green."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.committed: list[list[tuple[int, int]]] = []

    def show(self, signal: Signal, text: str = "") -> None:
        if signal is Signal.ACCEPTED:
            self.committed.append(committed(self._path))
        super().show(signal, text)


class Eager:
    """The real reader; `seen` runs whenever it has seen a card, before anybody is told."""

    def __init__(self, reader: Reader, seen: Callable[[], object]) -> None:
        self._reader = reader
        self._seen = seen
        self.open, self.transceive, self.close = reader.open, reader.transceive, reader.close

    def poll(self, timeout_s: float) -> PresentedCard | None:
        card = self._reader.poll(timeout_s)
        if card is not None:
            self._seen()
        return card


def committed(path: Path) -> list[tuple[int, int]]:
    """(kind, amount) of every open delta that another connection can see: what is committed and no more."""
    connection = sqlcipher3.dbapi2.connect(str(path))
    try:
        connection.execute(f"PRAGMA key = \"x'{KEY.hex()}'\"")
        connection.execute(f"PRAGMA cipher_page_size = {TERMINAL_LAYOUT.page_bytes}")
        query = "SELECT kind, amount_minor FROM open_delta ORDER BY place"
        return [(kind, amount) for kind, amount in connection.execute(query)]
    finally:
        connection.close()


@pytest.fixture
def line() -> Iterator[PtyLine]:
    with EmulatedReader() as line:
        yield line


@contextlib.contextmanager
def taking_taps(
    terminal: Terminal,
    line: PtyLine,
    passenger: Passenger,
    tapped: threading.Event | None = None,
    *,
    elapsed_s: Callable[[], float] = time.monotonic,
    clock: TerminalClock | None = None,
) -> Iterator[TapPath]:
    def open_it() -> Reader:
        return open_reader(f"uart:{line.path}")

    wake = (tapped or threading.Event()).set
    clock = clock or clock_of(terminal)
    taps = TapPath(terminal, clock, open_it, passenger, BUS, wake, elapsed_s=elapsed_s)
    taps.start()
    try:
        yield taps
    finally:
        taps.stop()


def tap(line: PtyLine, passenger: Passenger, signal: Signal, uid: str = UID) -> str:
    """Hold a card to the reader, wait for the light, take it away again; the text shown."""
    line.present(f"ntag215:{uid}")
    text = passenger.sees(signal)
    line.remove()
    return text


def test_green_means_durable(paired: Terminal, line: PtyLine, tmp_path: Path) -> None:
    """Invariant 1: when the light turns green, another connection to the file already sees the tap."""
    passenger = Watching(tmp_path / "ledger.db")
    with taking_taps(paired, line, passenger):
        assert tap(line, passenger, Signal.ACCEPTED) == "2.50 EUR paid, 7.50 EUR left, card registered"
        tap(line, passenger, Signal.ACCEPTED, "04000000000001")
    opening, fare = (int(Kind.OPENING), 1_000), (int(Kind.FARE), -250)
    assert passenger.committed == [[opening, fare], [opening, fare, opening, fare]]


def test_an_accepted_tap_wakes_the_uplink_and_a_refused_one_does_not(
    terminal: Terminal, fleet: Fleet, line: PtyLine, passenger: Passenger
) -> None:
    pair(terminal, fleet, dataclasses.replace(FARES, unknown_card="refuse"))
    tapped = threading.Event()
    with taking_taps(terminal, line, passenger, tapped):
        assert tap(line, passenger, Signal.REFUSED) == "Card not known here"
        assert not tapped.is_set()
        terminal.adopt(document(fleet, FARES, version=2))
        tap(line, passenger, Signal.ACCEPTED, "04000000000001")
        assert tapped.wait(PATIENCE_S)


def test_a_card_that_lies_on_the_reader_pays_once(
    paired: Terminal, line: PtyLine, passenger: Passenger
) -> None:
    with taking_taps(paired, line, passenger) as taps:
        line.present(f"ntag215:{UID}")
        passenger.sees(Signal.ACCEPTED)
        looks: set[float] = set()
        while len(looks) < 10:
            looks.add(taps.beat_s)
            time.sleep(0.01)
    assert [signal for signal, _ in passenger.shown].count(Signal.ACCEPTED) == 1


def test_a_full_disk_shows_out_of_service_and_never_green(
    paired: Terminal, database: Database, line: PtyLine, passenger: Passenger
) -> None:
    """Invariant 1, the other half: a commit that fails is no acceptance. SQLite really runs out of space."""
    pages = database.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one()).result()
    database.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}")).result()
    with taking_taps(paired, line, passenger):
        passenger.sees(Signal.READY)
        number, seen = 0, Signal.ACCEPTED
        while seen is Signal.ACCEPTED:  # there is some room left in the last pages
            number += 1
            line.present(f"ntag215:04{number:012X}")
            seen, text = passenger.next()
            line.remove()
        assert (seen, text) == (Signal.OUT_OF_SERVICE, STORE_FAILED)
        assert paired.failed
        line.present("ntag215:04FFFFFFFFFFFF")
        after = [passenger.next() for _ in ("at rest", "the card")]
    assert after == [(Signal.OUT_OF_SERVICE, STORE_FAILED)] * 2


def test_unpaired_is_out_of_service_and_pairing_is_noticed(
    terminal: Terminal, fleet: Fleet, line: PtyLine, passenger: Passenger
) -> None:
    with taking_taps(terminal, line, passenger):
        assert passenger.sees(Signal.OUT_OF_SERVICE) == NOT_PAIRED
        assert tap(line, passenger, Signal.OUT_OF_SERVICE) == NOT_PAIRED
        pair(terminal, fleet, None)
        assert passenger.sees(Signal.OUT_OF_SERVICE) == NO_FARES
        terminal.adopt(document(fleet, FARES))
        passenger.sees(Signal.READY)
        tap(line, passenger, Signal.ACCEPTED, "04000000000001")


def test_green_stays_when_the_terminal_has_only_just_become_ready(
    terminal: Terminal, fleet: Fleet, line: PtyLine, passenger: Passenger
) -> None:
    """The fares arrive while a card is being read: READY must not wipe the verdict away."""
    pair(terminal, fleet, None)
    taps = TapPath(
        terminal,
        clock_of(terminal),
        lambda: Eager(open_reader(f"uart:{line.path}"), lambda: terminal.adopt(document(fleet, FARES))),
        passenger,
        BUS,
        lambda: None,
    )
    taps.start()
    try:
        assert passenger.sees(Signal.OUT_OF_SERVICE) == NO_FARES
        line.present(f"ntag215:{UID}")
        passenger.sees(Signal.ACCEPTED)
        line.remove()
        line.present("ntag215:04000000000001")
        assert passenger.next()[0] is Signal.ACCEPTED, "nothing was shown in between"
    finally:
        taps.stop()


def test_an_unreadable_card_does_not_make_an_unpaired_terminal_look_ready(
    terminal: Terminal, line: PtyLine, passenger: Passenger
) -> None:
    """A refusal gives way to READY by itself; so it is not shown where READY would be a lie."""
    with taking_taps(terminal, line, passenger):
        assert passenger.sees(Signal.OUT_OF_SERVICE) == NOT_PAIRED
        line.present("classic:08ADBEEF")
        assert passenger.next() == (Signal.OUT_OF_SERVICE, NOT_PAIRED)


def test_a_fare_beyond_the_certificate_is_no_acceptance(
    terminal: Terminal, fleet: Fleet, line: PtyLine, passenger: Passenger
) -> None:
    """Invariant 10 at the source: a terminal does not write what every peer would refuse."""
    pair(terminal, fleet, dataclasses.replace(FARES, flat_fare_minor=20_000, opening_balance_minor=20_000))
    now_s = 0.0
    with taking_taps(terminal, line, passenger, elapsed_s=lambda: now_s):
        passenger.sees(Signal.READY)
        assert tap(line, passenger, Signal.OUT_OF_SERVICE) == NOT_PERMITTED
        now_s = FAULT_S
        assert passenger.next()[0] is Signal.READY, "the tap failed, and not the terminal"
    enrolment = terminal.enrolment
    assert enrolment is not None
    assert enrolment.ledger.status()["head_seq"] == 0


def test_a_clock_that_is_set_right_forgives_no_second_boarding(
    paired: Terminal, fleet: Fleet, line: PtyLine, passenger: Passenger
) -> None:
    """Passback counts the time that has passed, also when the clock comes back from 2099 in between."""
    paired.adopt(document(fleet, dataclasses.replace(FARES, passback_window_s=60), 2))
    wall = 4_080_000_000_000
    clock = TerminalClock(
        floor_ms=0,
        epoch=1,
        save_epoch=paired.save_clock_epoch,
        save_floor=paired.save_clock_floor,
        wall_ms=lambda: wall,
        elapsed_ms=lambda: 0,
        synchronised_ms=lambda: None,
    )
    with taking_taps(paired, line, passenger, clock=clock):
        tap(line, passenger, Signal.ACCEPTED)
    wall = 1_780_000_000_000
    clock.read()
    clock.compare(wall, 1_000)
    with taking_taps(paired, line, passenger, clock=clock):
        tap(line, passenger, Signal.REFUSED)
        tap(line, passenger, Signal.ACCEPTED, "04000000000002")
    enrolment = paired.enrolment
    assert enrolment is not None
    assert enrolment.ledger.last_at_ms() == wall


def test_a_card_that_is_no_identity_is_refused_with_the_reason(
    paired: Terminal, line: PtyLine, passenger: Passenger
) -> None:
    """Invariant 8: a random UID never becomes somebody's account."""
    with taking_taps(paired, line, passenger):
        line.present("classic:08ADBEEF")
        assert "new number each time" in passenger.sees(Signal.REFUSED)


def test_a_noisy_line_costs_no_tap(paired: Terminal, line: PtyLine, passenger: Passenger) -> None:
    with taking_taps(paired, line, passenger):
        passenger.sees(Signal.READY)
        for fault in (Fault.NOISE, Fault.TRUNCATE, Fault.FLIP, Fault.DROP_ACK, Fault.ERROR_FRAME):
            line.inject(fault)
        assert "paid" in tap(line, passenger, Signal.ACCEPTED)


def test_a_dead_reader_is_out_of_service_and_comes_back_by_itself(
    paired: Terminal, line: PtyLine, passenger: Passenger
) -> None:
    with taking_taps(paired, line, passenger) as taps:
        passenger.sees(Signal.READY)
        line.inject(Fault.DEAF_UNTIL_RESET)
        assert passenger.sees(Signal.OUT_OF_SERVICE) == READER_FAILED
        assert taps.reader != "ready"
        line.power_cycle()
        passenger.sees(Signal.READY)
        assert taps.reader == "ready"
        tap(line, passenger, Signal.ACCEPTED)


def test_a_reader_that_is_not_there_yet_is_waited_for(
    paired: Terminal, line: PtyLine, passenger: Passenger, caplog: pytest.LogCaptureFixture
) -> None:
    missing = [ReaderMissing("There is no device."), ReaderMissing("There is no device.")]

    def open_it() -> Reader:
        if missing:
            raise missing.pop()
        return open_reader(f"uart:{line.path}")

    taps = TapPath(paired, clock_of(paired), open_it, passenger, BUS, lambda: None)
    taps.start()
    try:
        assert passenger.sees(Signal.OUT_OF_SERVICE) == READER_FAILED
        passenger.sees(Signal.READY)
    finally:
        taps.stop()
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "card reader lost: There is no device."
    ], "said once, not at every attempt"


def test_the_light_comes_before_the_log(paired: Terminal, line: PtyLine) -> None:
    """Invariant 7: a log that is slow to write keeps no passenger waiting, accepted or refused."""
    order: list[str] = []

    class Lights(Passenger):
        def show(self, signal: Signal, text: str = "") -> None:
            order.append(signal.name)
            super().show(signal, text)

    class Log(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("tap "):
                order.append("log")

    passenger, handler, logger = Lights(), Log(), logging.getLogger("edge.taps")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        with taking_taps(paired, line, passenger):
            tap(line, passenger, Signal.ACCEPTED)
            line.present("classic:08ADBEEF")  # no identity
            passenger.sees(Signal.REFUSED)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    seen = [what for what in order if what != Signal.READY.name]
    assert seen == ["ACCEPTED", "log", "REFUSED", "log"]


def test_each_tap_is_one_structured_line_without_keys(
    paired: Terminal, line: PtyLine, passenger: Passenger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edge.taps")
    with taking_taps(paired, line, passenger):
        tap(line, passenger, Signal.ACCEPTED)
    (said,) = [record.message for record in caplog.records if record.message.startswith("tap ")]
    fields = json.loads(said.removeprefix("tap "))
    assert fields["card"] == UID.lower()
    assert (fields["result"], fields["fare_minor"], fields["balance_minor"]) == ("accepted", 250, 750)
    assert {"at_ms", "clock_error_ms", "took_ms", "notes"} <= fields.keys()
    enrolment = paired.enrolment
    assert enrolment is not None
    assert enrolment.identity.keys.seed.hex() not in caplog.text


def test_the_delta_carries_route_clock_epoch_and_error(
    paired: Terminal, line: PtyLine, passenger: Passenger
) -> None:
    """Invariant 9: a time is stored with how wrong it may be."""
    with taking_taps(paired, line, passenger):
        tap(line, passenger, Signal.ACCEPTED)
    enrolment = paired.enrolment
    assert enrolment is not None
    fare = enrolment.ledger.history(CARD)[0]
    assert (fare.kind, fare.context.route, fare.context.clock_epoch) == (Kind.FARE, "12", 1)
    assert fare.context.clock_error_ms > 0


def test_an_opening_beyond_the_allowance_is_refused_with_a_reason(
    terminal: Terminal, fleet: Fleet, line: PtyLine, passenger: Passenger, caplog: pytest.LogCaptureFixture
) -> None:
    """Invariant 10: the passenger is sent to a sales point, and the operator warned."""
    limits = dataclasses.replace(TERMINAL_LIMITS, allowance_minor=FARES.opening_balance_minor)
    terminal.enrol(fleet.enrol(limits=limits))
    terminal.adopt(document(fleet, FARES))
    with taking_taps(terminal, line, passenger):
        tap(line, passenger, Signal.ACCEPTED)
        text = tap(line, passenger, Signal.REFUSED, "04A1B2C3D4E5F7")
        assert text == "New card: please try at a sales point"
    assert terminal.enrolment is not None
    assert terminal.enrolment.ledger.status()["head_seq"] == 2
    assert "0 minor units are left" in caplog.text
