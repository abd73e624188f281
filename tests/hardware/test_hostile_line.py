"""Garbage, truncated, oversized and replayed bytes where the reader should be: a typed error, and no more.

Invariant 8, and "Bad input" of the tap's issue. The bytes reach the real driver: Adafruit's classes over a
port or a bus that says anything at all.
"""

import os
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware import framing
from hardware.cards import PresentedCard
from hardware.commands import Command
from hardware.emulator.buses import FakeI2c, FakePin, FakeSpi
from hardware.emulator.chip import Chip
from hardware.emulator.faults import FaultyLine
from hardware.errors import CardError, GarbledAnswer, ReaderFault
from hardware.framing import ACK
from hardware.links import BusLink, I2cBus, SpiBus, UartLink
from hardware.pn532 import Pn532Reader

anything = st.one_of(
    st.binary(max_size=300),
    st.binary(min_size=1, max_size=framing.MAX_BODY_BYTES).map(framing.encode),
    st.binary(max_size=263).map(lambda data: framing.encode(b"\xd5\x4b" + data)),
    st.binary(max_size=263).map(lambda data: framing.encode(b"\xd5\x41" + data)),
)


class LyingPort:
    """A serial port whose other end answers as the real chip does, until it is told what to say instead."""

    baudrate = 115200

    def __init__(self) -> None:
        self._line = FaultyLine(Chip())
        self._from_chip, self._to_host = os.pipe()
        os.set_blocking(self._from_chip, False)
        self.lie: bytes | None = None

    def fileno(self) -> int:
        return self._from_chip

    def read(self, size: int = 1, /) -> bytes:
        with suppress(BlockingIOError):
            return os.read(self._from_chip, size)
        return b""  # nothing comes any more: what pyserial says at its time-out

    def write(self, data: bytes, /) -> int:
        answer = b"".join(self._line.receive(data, 0.0))
        os.write(self._to_host, answer if self.lie is None else self.lie)
        return len(data)

    def flush(self) -> None:
        pass

    def reset_input_buffer(self) -> None:
        while self.read(4096):
            pass

    def close(self) -> None:
        os.close(self._from_chip)
        os.close(self._to_host)


class LyingLine(FaultyLine):
    """The same for the buses, which hand out one frame at a time."""

    lie: tuple[bytes, ...] | None = None

    def receive(self, data: bytes, now_s: float, baud: int | None = None) -> list[bytes]:
        frames = super().receive(data, now_s, baud)
        return frames if self.lie is None else list(self.lie)


@given(anything, st.booleans())
def test_the_serial_line_may_say_anything(lie: bytes, acknowledged: bool) -> None:
    port = LyingPort()
    link = UartLink(lambda: port)
    link.connect()
    # A lie that is empty or a bare ACK is silence, which the driver waits out: see the recovery tests.
    port.lie = (ACK if acknowledged else b"") + (lie or b"\x00")
    with suppress(ReaderFault):
        assert len(link.call(Command.IN_LIST_PASSIVE_TARGET, b"\x01\x00", timeout_s=0.01)) <= 263
    link.close()


@pytest.mark.parametrize(
    "make", [lambda line: I2cBus(FakeI2c(line)), lambda line: SpiBus(FakeSpi(line), FakePin())]
)
@given(first=anything, second=anything)
def test_a_bus_may_say_anything(
    make: Callable[[FaultyLine], I2cBus | SpiBus], first: bytes, second: bytes
) -> None:
    line = LyingLine(Chip())
    link = BusLink(lambda: make(line))
    link.connect()
    line.lie = (first, second)
    with suppress(ReaderFault):
        assert len(link.call(Command.IN_DATA_EXCHANGE, b"\x01\x30\x00", 263)) <= 263
    link.close()


@given(st.binary(max_size=263))
def test_a_card_may_answer_anything_to_a_look(answer: bytes) -> None:
    """A well-formed frame with nonsense in it is a card, nothing or a CardError; no reason to climb."""
    line = LyingLine(Chip())
    reader = Pn532Reader(BusLink(lambda: SpiBus(FakeSpi(line), FakePin())))
    reader.open()
    line.lie = (ACK, framing.encode(b"\xd5\x4b" + answer[:80]))
    with suppress(CardError):
        seen = reader.poll(0)
        assert seen is None or isinstance(seen, PresentedCard)
    assert sum(reader.recoveries.values()) == 0
    line.lie = None
    reader.close()


@given(st.binary(max_size=263))
def test_a_card_may_answer_anything_to_a_command(answer: bytes) -> None:
    """Bounded too: a card whose answer never ends is refused after 4 KiB."""
    line = LyingLine(Chip())
    reader = Pn532Reader(BusLink(lambda: SpiBus(FakeSpi(line), FakePin())))
    reader.open()
    line.lie = (ACK, framing.encode(bytes.fromhex("d54b010100040804deadbeef")))
    reader.poll(0)
    line.lie = (ACK, framing.encode(b"\xd5\x41" + answer))
    with suppress(CardError, GarbledAnswer):
        assert len(reader.transceive(b"\x30\x00", 0.1)) <= 4096 + 262
    line.lie = None
    reader.close()
