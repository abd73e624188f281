"""The recovery ladder: each rung by the fault it is there for, injected at the far end of the real driver."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from hardware.cards import PresentedCard
from hardware.emulator.faults import Fault
from hardware.emulator.pty_line import EmulatedReader
from hardware.errors import ReaderLost
from hardware.pn532 import WATCHDOG_S, open_reader
from hardware.recovery import Rung
from tests.hardware.benches import BUSES, Bench, bench

CARD = PresentedCard(bytes.fromhex("DEADBEEF"), b"\x00\x04", 0x08)
PASSING = (
    Fault.DROP_ACK,
    Fault.DROP_ANSWER,
    Fault.TRUNCATE,
    Fault.FLIP,
    Fault.OVERSIZE,
    Fault.REPLAY,
    Fault.ERROR_FRAME,
)


@pytest.fixture(params=BUSES)
def on(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with bench(request.param, reset_pin=True) as built:
        built.reader.open()
        yield built


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.value)
def test_a_passing_fault_costs_one_poll_and_an_abort(on: Bench, fault: Fault) -> None:
    on.present("classic:DEADBEEF")
    on.inject(fault)
    assert on.reader.poll(1) is None
    assert on.reader.recoveries[Rung.ABORT] == 1
    assert on.reader.poll(1) == CARD


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.value)
def test_a_fault_while_opening_is_mended_too(fault: Fault) -> None:
    with bench("uart") as on:
        on.inject(fault)
        on.reader.open()
        on.present("classic:DEADBEEF")
        assert on.reader.poll(1) == CARD


def test_noise_before_an_answer_is_read_past() -> None:
    with bench("uart") as on:
        on.reader.open()
        on.present("classic:DEADBEEF")
        on.inject(Fault.NOISE)
        assert on.reader.poll(1) == CARD
        assert sum(on.reader.recoveries.values()) == 0


def test_a_chip_busy_with_a_forgotten_command_is_freed_by_the_abort(on: Bench) -> None:
    on.inject(Fault.DEAF_UNTIL_ABORT)
    assert on.reader.poll(1) is None
    assert on.reader.recoveries[Rung.ABORT] == 1


def test_a_sleeping_chip_is_woken() -> None:
    with bench("uart") as on:
        on.reader.open()
        on.inject(Fault.DEAF_UNTIL_WAKE)
        assert on.reader.poll(1) is None
        assert on.reader.recoveries[Rung.WAKE] == 1


def test_a_chip_that_restarted_is_set_up_again(on: Bench) -> None:
    """A dip in the supply: the chip comes back with infinite retries, so that a look would never end."""
    on.power_cycle()
    on.present("classic:DEADBEEF")
    on.reader.poll(1)
    assert on.reader.poll(1) == CARD
    on.remove()
    assert on.reader.poll(0.05) is None


def test_a_chip_left_at_another_speed_is_found_and_brought_home() -> None:
    """A client that was killed at 921600 baud: nobody else would ever hear the chip again."""
    with EmulatedReader() as line:
        _leave_at_921600(line.path)
        assert line.baud == 921600
        reader = open_reader(f"uart:{line.path}")
        assert line.baud == 115200
        line.present("classic:DEADBEEF")
        assert reader.poll(1) == CARD
        reader.close()


def test_a_hanging_chip_is_reset(on: Bench) -> None:
    on.inject(Fault.DEAF_UNTIL_RESET)
    assert on.reader.poll(1) is None
    assert on.reader.recoveries[Rung.RESET] == 1
    on.present("classic:DEADBEEF")
    assert on.reader.poll(1) == CARD


@pytest.mark.parametrize("bus", BUSES)
def test_without_a_reset_pin_the_alarm_is_raised_until_somebody_cuts_the_power(bus: str) -> None:
    with bench(bus) as on:
        on.reader.open()
        on.inject(Fault.DEAF_UNTIL_RESET)
        for _ in range(2):
            with pytest.raises(ReaderLost, match="supply cut"):
                on.reader.poll(1)
        on.power_cycle()
        on.present("classic:DEADBEEF")
        on.reader.poll(1)
        assert on.reader.poll(1) == CARD


def test_a_fault_that_comes_back_climbs_higher(on: Bench) -> None:
    """A chip that answers the version and never a look would otherwise be "recovered" for days."""
    for first in range(4):
        on.inject(Fault.FLIP)
        assert on.reader.poll(1) is None
        assert sum(on.reader.recoveries.values()) == first + 1
    assert on.reader.recoveries[Rung.ABORT] == 1
    assert on.reader.recoveries[Rung.WAKE] == 1


def test_the_watchdog_asks_for_the_version_of_a_quiet_reader() -> None:
    with bench("uart") as on:
        on.reader.open()
        on.clock.now_s += WATCHDOG_S
        on.inject(Fault.DROP_ANSWER)  # it is the watchdog's question that goes unanswered
        assert on.reader.poll(1) is None
        assert on.reader.recoveries[Rung.ABORT] == 1
        assert on.reader.poll(0) is None
        assert sum(on.reader.recoveries.values()) == 1


def test_a_serial_adapter_that_is_pulled_out_and_put_back(tmp_path: Path) -> None:
    link = tmp_path / "reader"
    with EmulatedReader() as line:
        link.symlink_to(line.path)
        reader = open_reader(f"uart:{link}")
    with pytest.raises(ReaderLost, match="no device"):
        reader.poll(0.05)
    with EmulatedReader() as line:
        link.unlink()
        link.symlink_to(line.path)
        line.present("classic:DEADBEEF")
        assert reader.poll(1) is None
        assert reader.poll(1) == CARD
        reader.close()


def test_a_line_full_of_noise_is_given_up() -> None:
    """Invariant 8: bounded memory and time, with a typed error at the end."""
    ours, theirs = os.openpty()
    stop = threading.Event()

    def chatter() -> None:
        os.set_blocking(ours, False)
        while not stop.wait(0.001):
            try:
                os.write(ours, b"\x13\x37" * 512)
            except BlockingIOError:
                os.read(ours, 4096)

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        with pytest.raises(ReaderLost, match="No card reader answers"):
            open_reader(f"uart:{os.ttyname(theirs)}")
    finally:
        stop.set()
        thread.join()
        os.close(ours)
        os.close(theirs)


def _leave_at_921600(path: str) -> None:
    """What a client does before it is killed."""
    wake = bytes.fromhex("5555") + bytes(14)
    with serial.Serial(path, 115200, timeout=1) as port:
        port.write(wake + bytes.fromhex("0000ff03fdd41401" + "1700"))
        assert port.read(6 + 9).hex() == "0000ff00ff00" + "0000ff02fed5151600"
        port.write(bytes.fromhex("0000ff03fdd410071500"))
        assert port.read(6 + 9).hex() == "0000ff00ff00" + "0000ff02fed5111a00"
        port.write(bytes.fromhex("0000ff00ff00"))
        port.flush()
        port.baudrate = 921600
        port.write(bytes.fromhex("0000ff02fed4022a00"))
        assert port.read(6 + 13).hex() == "0000ff00ff00" + "0000ff06fad50332010607e800"
