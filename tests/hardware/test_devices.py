"""Opening a reader: what works, and a sentence that says what to do for everything that does not."""

import errno
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial
from gpiozero.pins.mock import MockFactory

from hardware.cards import PresentedCard
from hardware.devices import GpioLine, GpioResetPin, ReaderSpec, parse_reader_spec
from hardware.emulator.buses import FakeI2c, FakePin, FakeSpi
from hardware.emulator.chip import Chip
from hardware.emulator.faults import FaultyLine
from hardware.emulator.pty_line import EmulatedReader
from hardware.emulator.specs import parse_card
from hardware.errors import BadSpec, ReaderBusy, ReaderForbidden, ReaderLost, ReaderMissing
from hardware.pn532 import open_reader

CARD = PresentedCard(bytes.fromhex("DEADBEEF"), b"\x00\x04", 0x08)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("uart:/dev/ttyS0", ReaderSpec("uart", "/dev/ttyS0")),
        ("uart:/dev/serial0,reset=25", ReaderSpec("uart", "/dev/serial0", 25)),
        ("i2c", ReaderSpec("i2c")),
        ("i2c,reset=25,request=12", ReaderSpec("i2c", "", 25, 12)),
        ("spi", ReaderSpec("spi", "CE0")),
        ("spi:D5,reset=0", ReaderSpec("spi", "D5", 0)),
    ],
)
def test_specs(text: str, spec: ReaderSpec) -> None:
    assert parse_reader_spec(text) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        "usb",
        "uart",
        "uart:",
        "uart:ttyS0",
        "uart:/dev/a\0b",
        "i2c:1",
        "spi,reset",
        "spi,reset=x",
        "i2c,reset=28",
    ]
    + ["i2c,power=3", "spi,reset=-1", "spi,reset=" + "1" * 5000, "UART:/dev/ttyS0"],
)
def test_bad_specs_say_what_is_expected(text: str) -> None:
    with pytest.raises(BadSpec, match="expected"):
        open_reader(text)


def test_a_serial_reader_is_opened_and_closed() -> None:
    with EmulatedReader() as line:
        line.present("classic:DEADBEEF")
        for _ in range(2):
            reader = open_reader(f"uart:{line.path}")
            assert reader.poll(1) == CARD
            reader.close()


def test_a_missing_device_says_how_to_enable_it() -> None:
    with pytest.raises(ReaderMissing, match=r"no device /dev/no-such-tty.*raspi-config"):
        open_reader("uart:/dev/no-such-tty")


def test_a_file_is_no_serial_port(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    with pytest.raises(ReaderMissing, match="cannot be used as a serial port"):
        open_reader(f"uart:{tmp_path / 'file'}")


def test_a_forbidden_device_names_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom nothing is forbidden; so pyserial says what it says to others."""

    def refuse(*_: object, **__: object) -> None:
        raise serial.SerialException(errno.EACCES, "could not open port /dev/null: Permission denied")

    monkeypatch.setattr(serial, "Serial", refuse)
    with pytest.raises(ReaderForbidden, match="usermod -aG"):
        open_reader("uart:/dev/null")


def test_a_device_in_use_is_left_alone() -> None:
    with EmulatedReader() as line:
        reader = open_reader(f"uart:{line.path}")
        with pytest.raises(ReaderBusy, match="Another program"):
            open_reader(f"uart:{line.path}")
        assert reader.poll(0) is None
        reader.close()


def test_a_line_with_nothing_at_its_end_says_what_to_check() -> None:
    import os

    ours, theirs = os.openpty()
    try:
        with pytest.raises(ReaderLost, match="TX and RX are crossed"):
            open_reader(f"uart:{os.ttyname(theirs)}")
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyLine]:
    """A board as Blinka would show it, its buses ending at an emulated chip."""
    wired = FaultyLine(Chip())
    wired.chip.put(parse_card("classic:DEADBEEF"))
    board = types.ModuleType("board")
    vars(board).update({name: name for name in ("SCL", "SDA", "SCK", "MOSI", "MISO", "CE0")})
    busio = types.ModuleType("busio")
    vars(busio).update(I2C=lambda *_: FakeI2c(wired), SPI=lambda *_: FakeSpi(wired))
    monkeypatch.setitem(sys.modules, "board", board)
    monkeypatch.setitem(sys.modules, "busio", busio)
    monkeypatch.setattr("digitalio.DigitalInOut", lambda _: FakePin())
    yield wired


@pytest.mark.parametrize("spec", ["i2c", "spi", "spi:CE0"])
def test_bus_readers_are_opened_through_blinka(line: FaultyLine, spec: str) -> None:
    reader = open_reader(spec)
    assert reader.poll(1) == CARD
    reader.close()


def test_a_chip_select_that_the_board_has_not(line: FaultyLine) -> None:
    with pytest.raises(ReaderMissing, match="offers no SPI bus"):
        open_reader("spi:CE9")


def test_nobody_on_the_i2c_bus(line: FaultyLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeI2c, "present", False)
    with pytest.raises(ReaderLost, match="its switches"):
        open_reader("i2c")


def test_a_machine_without_buses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "board", None)
    for spec, name in (("i2c", "I2C"), ("spi", "SPI")):
        with pytest.raises(ReaderMissing, match=f"offers no {name} bus"):
            open_reader(spec)


def test_a_forbidden_bus(line: FaultyLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/dev/i2c-1")

    monkeypatch.setattr(sys.modules["busio"], "I2C", refuse)
    with pytest.raises(ReaderForbidden, match=r"may not open /dev/i2c-1"):
        open_reader("i2c")


def test_the_reset_pin_is_held_low_for_a_moment() -> None:
    factory = MockFactory()
    states: list[bool] = []
    pin = GpioResetPin(25, factory, rest=lambda _: states.append(bool(factory.pin(25).state)))
    assert factory.pin(25).state
    pin.pulse()
    assert states == [False, True]
    pin.close()
    factory.close()


def test_a_request_pin_is_driven_like_a_circuitpython_pin() -> None:
    factory = MockFactory()
    request = GpioLine(12, factory)
    request.value = False
    assert not request.value
    assert not factory.pin(12).state
    request.close()
    factory.close()


def test_a_pin_in_use_is_a_sentence() -> None:
    factory = MockFactory()
    held = GpioLine(25, factory)
    with pytest.raises(ReaderMissing, match="GPIO 25"):
        GpioResetPin(25, factory)
    held.close()
    factory.close()
