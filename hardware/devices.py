"""From the words in a settings file to an open bus, with a sentence for everything that can be wrong."""

import errno
import getpass
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import serial
from gpiozero import GPIOZeroError, OutputDevice

from hardware.commands import DEFAULT_BAUD
from hardware.drivers import GAP_S, Port
from hardware.errors import BadSpec, ReaderBusy, ReaderError, ReaderForbidden, ReaderMissing
from hardware.links import Bus, BusLink, I2cBus, Link, SpiBus, UartLink

_EXPECTED = '"uart:/dev/serial0" (or another serial device), "i2c" or "spi:CE0"; ",reset=25" if that is wired'
_PINS = frozenset(map(str, range(28)))
_RESET_S = 0.1
"""Adafruit's driver holds and waits as long; the datasheet asks for microseconds and 2 ms."""


@dataclass(frozen=True, slots=True)
class ReaderSpec:
    """One reader as a settings file names it."""

    bus: str
    """"uart", "i2c" or "spi"."""
    device: str = ""
    """The serial device's path, or Blinka's name of the chip select pin."""
    reset_pin: int | None = None
    request_pin: int | None = None
    """BCM numbers. Without P32 wired, I2C relies on clock stretching, which a Pi does badly."""

    @property
    def hint(self) -> str:
        """What to look at when nothing answers there."""
        return {
            "uart": "Check its power, that TX and RX are crossed, and its switches: both off (HSU).",
            "i2c": "Check its power, SDA and SCL, its switches (I2C), and that P32 is wired (request=).",
            "spi": "Check its power, the four wires, its switches (SPI), and the chip select pin.",
        }[self.bus]


def parse_reader_spec(text: str) -> ReaderSpec:
    """Read `BUS[:DEVICE][,reset=PIN][,request=PIN]`. Raises BadSpec."""
    head, *options = text.split(",")
    bus, _, device = head.partition(":")
    usable = {"uart": device.startswith("/") and "\0" not in device, "i2c": not device, "spi": True}
    if not usable.get(bus, False):
        raise BadSpec(f'"{text}" names no card reader; expected {_EXPECTED}.')
    pins: dict[str, int] = {}
    for option in options:
        name, _, number = option.partition("=")
        if name not in ("reset", "request") or number not in _PINS:
            raise BadSpec(f'"{option}" in "{text}": expected reset=PIN or request=PIN with PIN 0 to 27.')
        pins[name] = int(number)
    return ReaderSpec(bus, device or ("CE0" if bus == "spi" else ""), pins.get("reset"), pins.get("request"))


def open_link(spec: ReaderSpec) -> Link:
    """The way to the reader; the device is taken at `connect()`. Raises ReaderMissing for a bad pin."""
    reset_pin = None if spec.reset_pin is None else GpioResetPin(spec.reset_pin)
    if spec.bus == "uart":
        return UartLink(lambda: open_serial(spec.device), reset_pin)
    open_bus = _open_i2c if spec.bus == "i2c" else _open_spi
    return BusLink(lambda: open_bus(spec), reset_pin)


def open_serial(path: str) -> Port:
    """The serial device at 115200 baud, for us alone. Raises ReaderMissing, ReaderForbidden or ReaderBusy."""
    try:
        port: Port = serial.Serial(path, DEFAULT_BAUD, timeout=GAP_S, write_timeout=1, exclusive=True)
    except OSError as error:
        raise _explain(path, error) from error
    return port


def _open_i2c(spec: ReaderSpec) -> Bus:
    with _blinka("I2C"):
        import board
        import busio

        i2c = busio.I2C(board.SCL, board.SDA)
    return I2cBus(i2c, None if spec.request_pin is None else GpioLine(spec.request_pin))


def _open_spi(spec: ReaderSpec) -> Bus:
    with _blinka("SPI"):
        import board
        import busio
        import digitalio

        return SpiBus(
            busio.SPI(board.SCK, board.MOSI, board.MISO), digitalio.DigitalInOut(getattr(board, spec.device))
        )


@contextmanager
def _blinka(bus: str) -> Iterator[None]:
    """Blinka finds out what board it is on while it is imported, and says no with whatever comes to hand."""
    try:
        yield
    except PermissionError as error:
        raise _explain(str(error.filename or f"the {bus} bus"), error) from error
    except Exception as error:
        raise ReaderMissing(
            f"This machine offers no {bus} bus ({type(error).__name__}: {error}). On a Pi enable it with"
            f" raspi-config (Interface Options, {bus}) and install the extra: pip install 'farebox[pi]'."
        ) from error


class GpioLine:
    """An output pin with the attributes that Adafruit's driver sets on a CircuitPython pin."""

    def __init__(self, pin: int, pin_factory: Any = None) -> None:
        self.direction: object = None
        try:
            self._line = OutputDevice(pin, initial_value=True, pin_factory=pin_factory)
        except (GPIOZeroError, OSError) as error:
            raise ReaderMissing(f"GPIO {pin}, which the settings name, cannot be used: {error}.") from error

    @property
    def value(self) -> bool:
        return bool(self._line.value)

    @value.setter
    def value(self, high: bool) -> None:
        self._line.value = high

    def close(self) -> None:
        self._line.close()


class GpioResetPin:
    """A `ResetPin` on a GPIO of the Pi, wired to the reader's RSTPDN."""

    def __init__(
        self, pin: int, pin_factory: Any = None, rest: Callable[[float], object] = time.sleep
    ) -> None:
        self._rest = rest
        self._line = GpioLine(pin, pin_factory)

    def pulse(self) -> None:
        self._line.value = False
        self._rest(_RESET_S)
        self._line.value = True
        self._rest(_RESET_S)

    def close(self) -> None:
        self._line.close()


def _explain(path: str, error: OSError) -> ReaderError:
    """pyserial's error as a sentence that says what to do."""
    number = error.errno
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return ReaderMissing(
            f"There is no device {path}. Check the plug; the Pi's own serial port is enabled with"
            " raspi-config (Interface Options, Serial Port: login shell no, hardware yes)."
        )
    if number in (errno.EACCES, errno.EPERM):
        group = _group_of(path)
        return ReaderForbidden(
            f"{getpass.getuser()} may not open {path}. Add that user to the device's group"
            f" (sudo usermod -aG {group} {getpass.getuser()}) and log in again."
        )
    if number in (errno.EAGAIN, errno.EBUSY):
        return ReaderBusy(f"Another program uses {path}. Stop it first; `fuser {path}` names it.")
    return ReaderMissing(f"{path} cannot be used as a serial port: {error}.")


def _group_of(path: str) -> str:
    with suppress(OSError, KeyError):
        return Path(path).group()
    return "dialout"
