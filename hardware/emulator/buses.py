"""I2C and SPI with a chip at the other end, in the shape of CircuitPython's `busio`.

Fakes for the two buses that no pty can stand in for: Adafruit's driver classes talk to them as they do to the
real ones. Source: UM0701-02, 6.2.4 (I2C) and 6.2.5 (SPI). A read starts with a status byte whose lowest bit
says that a frame is ready; on SPI every byte travels with its lowest bit first.
"""

import time
from collections.abc import Callable
from typing import Final

from hardware.emulator.faults import FaultyLine

I2C_ADDRESS: Final = 0x24

_READY: Final = 0x01
_SPI_WRITE: Final = 0x01
_SPI_STATUS: Final = 0x02
_SPI_READ: Final = 0x03


class _FrameByFrame:
    """The chip's frames, one at a time, as both buses hand them out."""

    def __init__(self, line: FaultyLine, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._clock_s = clock_s
        self._frames: list[bytes] = []
        self._locked = False

    def try_lock(self) -> bool:
        """busio's lock: True when it was free."""
        if self._locked:
            return False
        self._locked = True
        return True

    def unlock(self) -> None:
        """Free the lock."""
        self._locked = False

    def deinit(self) -> None:
        """The host gives the bus back."""

    def _host_wrote(self, data: bytes) -> None:
        # What has not been read is lost when the host says something new.
        self._frames.clear()
        self._line.chip.wake()
        self._frames += self._line.receive(data, self._clock_s())

    def _is_ready(self) -> bool:
        self._frames += self._line.advance(self._clock_s())
        return bool(self._frames)

    def _take(self, length: int) -> bytes:
        """The next frame, cut or padded to what the host asks for in one transaction."""
        frame = self._frames.pop(0) if self._is_ready() else b""
        return frame[:length].ljust(length, b"\0")


class FakeI2c(_FrameByFrame):
    """busio.I2C with a PN532 at address 24 (hex), or nobody when `present` is false."""

    present = True

    def writeto(self, address: int, buffer: bytes, *, start: int = 0, end: int | None = None) -> None:
        """The host writes."""
        self._acknowledge(address)
        data = bytes(buffer[start:end])
        if data:
            self._host_wrote(data)

    def readfrom_into(
        self, address: int, buffer: bytearray, *, start: int = 0, end: int | None = None
    ) -> None:
        """The host reads: status, then the frame if it goes on reading."""
        self._acknowledge(address)
        length = len(range(*slice(start, end).indices(len(buffer))))
        status = bytes((_READY if self._is_ready() else 0,))
        buffer[start : start + length] = (status + self._take(length - 1)) if length > 1 else status

    def _acknowledge(self, address: int) -> None:
        if address != I2C_ADDRESS or not self.present:
            raise OSError(121, "Remote I/O error")


class FakeSpi(_FrameByFrame):
    """busio.SPI with a PN532 on it."""

    def configure(self, **_settings: int) -> None:
        """Speed and mode make no difference here."""

    def write(self, buffer: bytes) -> None:
        """The host sends."""
        data = bytes(map(_mirror, buffer))
        if data[:1] == bytes((_SPI_WRITE,)):
            self._host_wrote(data[1:])
        else:
            self._line.chip.wake()

    def write_readinto(self, out: bytes, into: bytearray) -> None:
        """The host sends a code and clocks the answer in."""
        code, length = _mirror(out[0]), len(into) - 1
        if code == _SPI_STATUS:
            answer = bytes((_READY if self._is_ready() else 0,)) * length
        else:
            answer = self._take(length) if code == _SPI_READ else bytes(length)
        into[:] = bytes(1) + bytes(map(_mirror, answer))


class FakePin:
    """A CircuitPython pin that is written to."""

    def __init__(self) -> None:
        self.value = True
        self.direction: object = None

    def switch_to_output(self, value: bool = False, **_drive: object) -> None:
        """The pin becomes an output."""
        self.value = value

    def deinit(self) -> None:
        """The host gives the pin back."""


def _mirror(byte: int) -> int:
    return int(f"{byte:08b}"[::-1], 2)
