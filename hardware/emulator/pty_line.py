"""The serial line: a pty whose other end is a chip."""

import contextlib
import os
import selectors
import termios
import threading
import time
import tty
from collections.abc import Callable
from typing import Final

from hardware.emulator.chip import Chip
from hardware.emulator.faults import Fault, FaultyLine
from hardware.emulator.specs import parse_card

_CHUNK_BYTES: Final = 4096
_SPEEDS: Final = {
    getattr(termios, f"B{baud}"): baud for baud in (9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)
}


class PtyLine:
    """A chip behind a pty. `serve()` runs until `stop()`; the other methods may be called from any thread."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._line = FaultyLine(Chip())
        self._lock = threading.Lock()
        self._stopping = False
        # We keep the client's end open too: clients come and go, and the line stays.
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs)
        _set_speed(self._theirs, termios.B115200)
        os.set_blocking(self._ours, False)
        self._woken, self._waker = os.pipe()
        self.path = os.ttyname(self._theirs)
        """What a client opens: /dev/pts/N."""

    def present(self, spec: str) -> None:
        """Put a new card (see `specs.parse_card`) in front of the antenna. Raises BadSpec."""
        card = parse_card(spec)
        with self._lock:
            self._line.chip.put(card)
        self._wake()

    def remove(self) -> None:
        """Take the card away."""
        with self._lock:
            self._line.chip.put(None)

    def inject(self, fault: Fault) -> None:
        """Let something go wrong."""
        with self._lock:
            self._line.inject(fault)

    def power_cycle(self) -> None:
        """What a pulse on RSTPDN does."""
        with self._lock:
            self._line.power_cycle()

    @property
    def baud(self) -> int:
        """The speed the chip is at."""
        with self._lock:
            return self._line.chip.baud

    def stop(self) -> None:
        """Let `serve()` return."""
        self._stopping = True
        self._wake()

    def close(self) -> None:
        """Give the pty back; after `serve()` has returned."""
        for descriptor in (self._ours, self._theirs, self._woken, self._waker):
            os.close(descriptor)

    def serve(self, also: int | None = None, on_also: Callable[[], None] = lambda: None) -> None:
        """Answer the client until `stop()`; `on_also` is called when the descriptor `also` can be read."""
        # Not epoll: standard input may be a file, or /dev/null.
        with selectors.PollSelector() as selector:
            selector.register(self._ours, selectors.EVENT_READ, self._hear)
            selector.register(self._woken, selectors.EVENT_READ, self._woke)
            if also is not None:
                selector.register(also, selectors.EVENT_READ, on_also)
            while not self._stopping:
                for key, _ in selector.select(self._patience_s()):
                    key.data()
                with self._lock:
                    self._write(self._line.advance(self._clock_s()))

    def _hear(self) -> None:
        data = os.read(self._ours, _CHUNK_BYTES)
        with self._lock:
            baud = _SPEEDS.get(termios.tcgetattr(self._ours)[4], 0)
            self._write(self._line.receive(data, self._clock_s(), baud))

    def _woke(self) -> None:
        os.read(self._woken, _CHUNK_BYTES)

    def _wake(self) -> None:
        os.write(self._waker, b"\0")

    def _patience_s(self) -> float | None:
        with self._lock:
            deadline_s = self._line.chip.deadline_s
        return None if deadline_s is None else max(0.0, deadline_s - self._clock_s())

    def _write(self, frames: list[bytes]) -> None:
        # A client that does not read loses what does not fit, as on a serial line without flow control.
        for frame in frames:
            with contextlib.suppress(BlockingIOError):
                os.write(self._ours, frame)


class EmulatedReader:
    """A `PtyLine` served by a thread of its own, for programs that want the reader in the same process."""

    def __init__(self) -> None:
        self.line = PtyLine()
        self._thread = threading.Thread(target=self.line.serve, name="emulated reader", daemon=True)

    def __enter__(self) -> PtyLine:
        self._thread.start()
        return self.line

    def __exit__(self, *_: object) -> None:
        self.line.stop()
        self._thread.join()
        self.line.close()


def _set_speed(descriptor: int, speed: int) -> None:
    attributes = termios.tcgetattr(descriptor)
    attributes[4] = attributes[5] = speed
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
