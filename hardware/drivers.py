"""Adafruit's PN532 classes, with reads of our own.

Adafruit's classes know how each bus is addressed, woken and waited for. What they read is left to our frames:
on the serial line they would ask for more bytes than come and so wait for the time-out at each answer, they
know no extended frames, and they stumble over noise with whatever error Python happens to have.
"""

import select
import time
from collections.abc import Callable
from typing import Any, Protocol

from adafruit_pn532.i2c import PN532_I2C
from adafruit_pn532.spi import PN532_SPI
from adafruit_pn532.uart import PN532_UART

from hardware import framing
from hardware.commands import Command
from hardware.errors import CommandRejected, GarbledAnswer, ReaderSilent
from hardware.framing import Body, Broken, Frame, FrameDecoder, Mark

ACK_S = 0.25
"""The chip acknowledges within 15 ms; serial adapters on USB add 16 ms each way, and a busy Pi more."""
WAKE_S = 0.1
"""The same while it is only being looked for, at one speed after another."""
GAP_S = 0.25
"""Longest pause inside a frame: the time-out that the serial port has to have."""

FRAME_S = 0.25
"""Longest time for a whole frame and the noise before it, which fill 0.11 s at 115200 baud; the last read may
end a GAP_S later. Without it, a line that dribbles would be listened to for minutes."""

_MAX_NOISE_BYTES = 1024


class Port(Protocol):
    """What is used of serial.Serial."""

    baudrate: int

    def fileno(self) -> int: ...
    def read(self, size: int = 1, /) -> bytes: ...
    def write(self, data: bytes, /) -> int | None: ...
    def flush(self) -> None: ...
    def reset_input_buffer(self) -> None: ...
    def close(self) -> None: ...


class Driver(Protocol):
    """What is used of Adafruit's classes, as this module extends them."""

    def send_command(self, command: int, params: bytes = b"", timeout: float = 1) -> bool: ...
    def process_response(self, command: int, response_length: int = 0, timeout: float = 1) -> Any: ...
    def abort(self) -> None: ...
    @property
    def firmware_version(self) -> tuple[int, int, int, int]: ...


class _OurFrames:
    """Replaces what Adafruit's base class does with bytes; it stands before one of its classes."""

    _write_data: Callable[[bytes], None]
    _read_data: Callable[[int], bytes]
    call_function: Callable[..., bytes | None]

    def abort(self) -> None:
        """End whatever command is running: a host's ACK frame does that."""
        self._write_data(framing.ACK)

    def SAM_configuration(self) -> None:  # noqa: N802  (Adafruit's name)
        """Normal mode, no time-out, IRQ on; Adafruit's waits a whole second for a chip that is not there."""
        if self.call_function(Command.SAM_CONFIGURATION, params=b"\x01\x14\x01", timeout=WAKE_S) is None:
            raise ReaderSilent("The reader does not answer.")

    def _write_frame(self, data: bytearray) -> None:
        self._write_data(framing.encode(bytes(data)))

    def _read_frame(self, length: int) -> bytes:
        # On a bus the whole answer is one transaction, so its length has to be guessed beforehand.
        frames = FrameDecoder().feed(bytes(self._read_data(length + framing.OVERHEAD_BYTES)))
        return _body(frames[0] if frames else None)


class ExactUart(_OurFrames, PN532_UART):  # type: ignore[misc]  # Adafruit ships no type information
    """The serial line: reads the bytes of one frame and not one more."""

    _uart: Port

    def __init__(self, uart: Port, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        super().__init__(uart)  # which talks to the chip already

    def _wait_ready(self, timeout: float = 1) -> bool:
        # Adafruit's looks every 10 ms; a tap waits for two of those.
        waiting = select.poll()
        waiting.register(self._uart.fileno(), select.POLLIN)
        return bool(waiting.poll(max(timeout, 0) * 1000))

    def _read_data(self, count: int) -> bytes:
        # Only ever asked for the ACK, as _read_frame is ours.
        if self._next_frame() is not Mark.ACK:
            raise GarbledAnswer("The reader did not acknowledge the command.")
        return framing.ACK

    def _read_frame(self, length: int) -> bytes:
        return _body(self._next_frame())

    def _next_frame(self) -> Frame:
        decoder, read_bytes = FrameDecoder(), 0
        until_s = self._clock_s() + FRAME_S
        while read_bytes <= _MAX_NOISE_BYTES and self._clock_s() < until_s:
            data = self._uart.read(decoder.missing)
            if not data:
                raise GarbledAnswer("The reader's answer stopped in the middle of a frame.")
            read_bytes += len(data)
            for frame in decoder.feed(data):
                return frame
        raise GarbledAnswer("Nothing but noise comes down the serial line, or a frame that does not end.")


class ExactI2c(_OurFrames, PN532_I2C):  # type: ignore[misc]  # Adafruit ships no type information
    """I2C."""


class ExactSpi(_OurFrames, PN532_SPI):  # type: ignore[misc]  # Adafruit ships no type information
    """SPI."""


def _body(frame: Frame | None) -> bytes:
    """What Adafruit's process_response goes on with: TFI, code, data."""
    match frame:
        case Body(data) if data[0] == framing.ERROR_CODE:
            raise CommandRejected("The reader does not know the command: is it a PN532?")
        case Body(data) if len(data) >= 2:
            return data
        case Broken(reason):
            raise GarbledAnswer(f"The reader's answer is damaged: {reason}.")
        case _:
            raise GarbledAnswer("The reader's answer is not a frame.")
