"""One `Link` to the chip over whichever wires: commands out, answers in, and what helps when none come."""

import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from adafruit_pn532.adafruit_pn532 import BusyError

from hardware.commands import BAUD_RATES, DEFAULT_BAUD, Command
from hardware.drivers import ACK_S, Driver, ExactI2c, ExactSpi, ExactUart, Port
from hardware.errors import GarbledAnswer, NoSuchRung, ReaderError, ReaderFault, ReaderGone, ReaderSilent
from hardware.reader import FirmwareVersion

COMMAND_S = 0.3
"""For commands that need no card."""
SETTLE_S = 0.005
"""The chip needs a moment after an abort and after a change of speed."""
SWEEP_S = 5.0
"""No other speed is tried after that: silence takes one second for all speeds, noise at each five."""


class ResetPin(Protocol):
    """The wire to the chip's RSTPDN."""

    def pulse(self) -> None:
        """Hold the chip in reset for a moment, and wait until it has started again."""

    def close(self) -> None:
        """Give the pin back."""


class Link(Protocol):
    """A chip at the end of some wires.

    Everything raises ReaderFault when it fails; what takes the device raises the other ReaderErrors too.
    """

    def connect(self) -> FirmwareVersion:
        """Take the device if it is not held, wake the chip, set it to normal mode."""

    def call(
        self, command: Command, params: bytes = b"", answer_bytes: int = 64, timeout_s: float = COMMAND_S
    ) -> bytes:
        """One command; returns the bytes after the answer's code, of which at most `answer_bytes` come."""

    def abort(self) -> None:
        """End the running command."""

    def sweep(self) -> FirmwareVersion:
        """Look for the chip at other speeds and bring it back to ours."""

    def reset(self) -> FirmwareVersion:
        """Pulse the reset pin and connect."""

    def reopen(self) -> FirmwareVersion:
        """Give the device back, take it again and connect."""

    def close(self) -> None:
        """Give everything back; never raises."""


class Bus(Protocol):
    """An open device, with the driver class that talks over it."""

    def driver(self) -> Driver:
        """A new driver; making one wakes the chip, configures it and asks for its version."""

    def close(self) -> None:
        """Give the device back."""


class BusLink:
    """A Link over a bus without speeds: I2C or SPI."""

    def __init__(self, open_bus: Callable[[], Bus], reset_pin: ResetPin | None = None) -> None:
        self._open_bus = open_bus
        self._reset_pin = reset_pin
        self._bus: Bus | None = None
        self._driver: Driver | None = None

    def connect(self) -> FirmwareVersion:
        with _translated():
            if self._bus is None:
                self._bus = self._open_bus()
            self._driver = self._bus.driver()
            return FirmwareVersion(*self._driver.firmware_version)

    def call(
        self, command: Command, params: bytes = b"", answer_bytes: int = 64, timeout_s: float = COMMAND_S
    ) -> bytes:
        with _translated():
            driver = self._connected()
            if not driver.send_command(command, params, timeout=ACK_S):
                raise ReaderSilent("The reader did not acknowledge the command.")
            answer = driver.process_response(command, answer_bytes, timeout=timeout_s)
        if answer is None:
            raise ReaderSilent("The reader acknowledged the command and did not answer.")
        return bytes(answer)

    def abort(self) -> None:
        with _translated():
            self._connected().abort()
        time.sleep(SETTLE_S)

    def sweep(self) -> FirmwareVersion:
        raise NoSuchRung("This bus has one speed only.")

    def reset(self) -> FirmwareVersion:
        if self._reset_pin is None:
            raise NoSuchRung("No reset pin is wired.")
        self._reset_pin.pulse()
        return self.connect()

    def reopen(self) -> FirmwareVersion:
        self._close_bus()
        return self.connect()

    def close(self) -> None:
        self._close_bus()
        if self._reset_pin is not None:
            self._reset_pin.close()

    def _connected(self) -> Driver:
        if self._driver is None:
            raise ReaderGone("The reader is not connected.")
        return self._driver

    def _close_bus(self) -> None:
        if self._bus is not None:
            with suppress(OSError, termios.error):
                self._bus.close()
        self._bus = self._driver = None


class UartBus:
    """An open serial port."""

    def __init__(self, port: Port, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.port = port
        self._clock_s = clock_s

    def driver(self) -> Driver:
        driver: Driver = ExactUart(self.port, self._clock_s)
        return driver

    def close(self) -> None:
        self.port.close()


class I2cBus:
    """A CircuitPython I2C bus with a PN532 at its one address."""

    def __init__(self, i2c: Any, request: Any = None) -> None:
        self._i2c = i2c
        self._request = request

    def driver(self) -> Driver:
        try:
            driver: Driver = ExactI2c(self._i2c, req=self._request)
        except ValueError as error:  # what Adafruit's I2CDevice says when nobody acknowledges the address
            raise ReaderSilent("Nothing answers at the reader's I2C address, 24 (hex).") from error
        return driver

    def close(self) -> None:
        self._i2c.deinit()
        if self._request is not None:
            self._request.close()


class SpiBus:
    """A CircuitPython SPI bus and the pin that selects the PN532."""

    def __init__(self, spi: Any, select_pin: Any) -> None:
        self._spi = spi
        self._select_pin = select_pin

    def driver(self) -> Driver:
        driver: Driver = ExactSpi(self._spi, self._select_pin)
        return driver

    def close(self) -> None:
        self._spi.deinit()
        self._select_pin.deinit()


class UartLink(BusLink):
    """A Link over a serial line at 115200 baud; a killed program may have left the chip at another."""

    _bus: UartBus | None

    def __init__(
        self,
        open_port: Callable[[], Port],
        reset_pin: ResetPin | None = None,
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(lambda: UartBus(open_port(), clock_s), reset_pin)
        self._clock_s = clock_s

    def sweep(self) -> FirmwareVersion:
        until_s = self._clock_s() + SWEEP_S
        for baud in BAUD_RATES:
            if self._clock_s() >= until_s:
                break
            # A rate this serial port cannot do is no place the chip can be heard at.
            with suppress(ReaderFault, ValueError):
                return self._bring_home(baud)
        raise ReaderSilent("The reader does not answer at any speed.")

    def _bring_home(self, baud: int) -> FirmwareVersion:
        """Meet the chip at `baud` and lead it to ours. The port is at our speed afterwards in any case."""
        if self._bus is None or baud == DEFAULT_BAUD:
            return self.connect()
        port = self._bus.port
        with _translated():
            try:
                port.baudrate = baud
                self.connect()
                self.call(Command.SET_SERIAL_BAUD_RATE, bytes((BAUD_RATES.index(DEFAULT_BAUD),)))
                self.abort()  # the chip changes when the host has acknowledged its answer
                port.flush()
            finally:
                port.baudrate = DEFAULT_BAUD
        time.sleep(SETTLE_S)
        return self.connect()


@contextmanager
def _translated() -> Iterator[None]:
    """Adafruit's and the kernel's errors as ours."""
    try:
        yield
    except ReaderError:
        raise
    except (OSError, termios.error) as error:
        raise ReaderGone(f"The reader's device failed: {error}.") from error
    except (BusyError, RuntimeError) as error:
        raise GarbledAnswer(f"The reader's answer cannot be understood: {error}.") from error
