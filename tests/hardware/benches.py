"""The real driver on each of its buses, with an emulated chip at the other end."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hardware.devices import open_serial
from hardware.emulator.buses import FakeI2c, FakePin, FakeSpi
from hardware.emulator.chip import Chip
from hardware.emulator.faults import Fault, FaultyLine
from hardware.emulator.pty_line import EmulatedReader
from hardware.emulator.specs import parse_card
from hardware.links import BusLink, I2cBus, Link, SpiBus, UartLink
from hardware.pn532 import Pn532Reader

BUSES = ("uart", "i2c", "spi")


class Clock:
    """Seconds that pass only when told to, or when somebody looks (`tick_s`)."""

    def __init__(self, tick_s: float = 0.0) -> None:
        self.now_s = 100.0
        self.tick_s = tick_s
        self.looks = 0
        self.at_look: dict[int, Callable[[], None]] = {}

    def __call__(self) -> float:
        self.looks += 1
        self.at_look.pop(self.looks, lambda: None)()
        self.now_s += self.tick_s
        return self.now_s


@dataclass
class Bench:
    """A reader that is not open yet, and the hands that put cards on it."""

    reader: Pn532Reader
    clock: Clock
    present: Callable[[str], None]
    remove: Callable[[], None]
    inject: Callable[[Fault], None]
    power_cycle: Callable[[], None]


class WiredResetPin:
    """A reset pin whose wire really ends at the emulated chip."""

    def __init__(self, power_cycle: Callable[[], None]) -> None:
        self._power_cycle = power_cycle

    def pulse(self) -> None:
        self._power_cycle()

    def close(self) -> None:
        pass


@contextlib.contextmanager
def bench(bus: str, *, reset_pin: bool = False) -> Iterator[Bench]:
    """A bench on `bus`; the reader is closed at the end."""
    with _uart(reset_pin) if bus == "uart" else _fake_bus(bus, reset_pin) as built:
        try:
            yield built
        finally:
            built.reader.close()


@contextlib.contextmanager
def _uart(reset_pin: bool) -> Iterator[Bench]:
    with EmulatedReader() as line:
        pin = WiredResetPin(line.power_cycle) if reset_pin else None
        link = UartLink(lambda: open_serial(line.path), pin)
        clock = Clock(tick_s=0.02)
        reader = Pn532Reader(link, clock_s=clock)
        yield Bench(reader, clock, line.present, line.remove, line.inject, line.power_cycle)


@contextlib.contextmanager
def _fake_bus(bus: str, reset_pin: bool) -> Iterator[Bench]:
    line = FaultyLine(Chip())
    clock = Clock(tick_s=0.02)
    # The chip has a clock of its own, which runs while the driver waits for it.
    chip_clock = Clock(tick_s=0.01)
    pin = WiredResetPin(line.power_cycle) if reset_pin else None
    opened: Any = (
        I2cBus(FakeI2c(line, chip_clock)) if bus == "i2c" else SpiBus(FakeSpi(line, chip_clock), FakePin())
    )
    link: Link = BusLink(lambda: opened, pin)
    yield Bench(
        Pn532Reader(link, clock_s=clock),
        clock,
        lambda spec: line.chip.put(parse_card(spec)),
        lambda: line.chip.put(None),
        line.inject,
        line.power_cycle,
    )
