"""Garbage, truncated, oversized and replayed bytes where the reader should be: a typed error, and no more.

Invariant 8, and "Bad input" of the tap's issue. The bytes reach the real driver: Adafruit's classes over a
port or a bus that says anything at all.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware import framing
from hardware.cards import PresentedCard
from hardware.commands import Command
from hardware.drivers import FRAME_S, GAP_S
from hardware.emulator.buses import FakeI2c, FakePin, FakeSpi
from hardware.emulator.chip import Chip
from hardware.emulator.faults import FaultyLine
from hardware.errors import CardError, CardGarbled, GarbledAnswer, ReaderFault, ReaderLost
from hardware.framing import ACK
from hardware.links import BusLink, I2cBus, SpiBus, UartLink
from hardware.pn532 import MAX_ANSWER_PARTS, Pn532Reader
from tests.hardware.benches import Clock

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


class DribblingPort(LyingPort):
    """Once told to lie, there is always one more byte of noise, just before each read's time-out."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def read(self, size: int = 1, /) -> bytes:
        if self.lie is None:
            return super().read(size)
        self._clock.now_s += GAP_S
        return b"\x55"

    def reset_input_buffer(self) -> None:
        if self.lie is None:
            super().reset_input_buffer()

    def close(self) -> None:
        """The ladder takes the same port again; `LyingPort.close` ends it."""


class LyingLine(FaultyLine):
    """The same for the buses, which hand out one frame at a time."""

    lie: tuple[bytes, ...] | None = None
    lies = 0

    def receive(self, data: bytes, now_s: float, baud: int | None = None) -> list[bytes]:
        frames = super().receive(data, now_s, baud)
        if self.lie is None:
            return frames
        self.lies += 1
        if self.lies > 1000:
            pytest.fail("the driver goes on asking")
        return list(self.lie)


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


@pytest.fixture
def dribbling() -> Iterator[tuple[DribblingPort, Clock]]:
    clock = Clock()
    port = DribblingPort(clock)
    yield port, clock
    LyingPort.close(port)


def test_a_frame_has_a_deadline_however_its_bytes_dribble(dribbling: tuple[DribblingPort, Clock]) -> None:
    """Counting bytes is not enough: a thousand of them, each just in time, are four minutes."""
    port, clock = dribbling
    link = UartLink(lambda: port, clock_s=clock)
    link.connect()
    port.lie, began_s = b"\x55", clock.now_s
    with pytest.raises(GarbledAnswer, match="noise"):
        link.call(Command.GET_FIRMWARE_VERSION)
    assert clock.now_s - began_s <= FRAME_S + GAP_S


def test_a_dribbling_line_does_not_hold_a_poll(dribbling: tuple[DribblingPort, Clock]) -> None:
    """A poll climbs the whole ladder and still ends before the terminal's watchdog misses the tap thread."""
    port, clock = dribbling
    reader = Pn532Reader(UartLink(lambda: port, clock_s=clock), clock_s=clock)
    reader.open()
    port.lie, began_s = b"\x55", clock.now_s
    with pytest.raises(ReaderLost):
        reader.poll(0.25)
    assert clock.now_s - began_s <= 10
    reader.close()


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


def _asked(part: bytes, tick_s: float) -> int:
    """How often a card is asked that answers each time with `part` and says that more follows."""
    line, clock = LyingLine(Chip()), Clock()
    reader = Pn532Reader(BusLink(lambda: SpiBus(FakeSpi(line), FakePin())), clock_s=clock)
    reader.open()
    line.lie = (ACK, framing.encode(bytes.fromhex("d54b010100040804deadbeef")))
    reader.poll(0)
    line.lie, line.lies = (ACK, framing.encode(b"\xd5\x41\x40" + part)), 0
    clock.tick_s = tick_s
    with pytest.raises(CardGarbled):
        reader.transceive(b"\x30\x00", 0.5)
    line.lie = None
    reader.close()
    return line.lies


def test_an_empty_part_that_claims_more_ends_the_answer() -> None:
    """It brings an answer no nearer to any limit of bytes."""
    assert _asked(b"", 0) == 1


def test_an_answer_has_a_bounded_number_of_parts() -> None:
    assert _asked(b"\x00", 0) == MAX_ANSWER_PARTS


def test_all_parts_of_an_answer_share_one_time_out() -> None:
    assert _asked(b"\x00", 0.125) == 4
