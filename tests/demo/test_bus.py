"""One bus without a hub: a real terminal on an emulated reader, and what is said when it cannot be paired."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.demo import bus as bus_module
from hub.demo.bus import Bus
from hub.demo.cast import BUSES, CARDS
from hub.demo.errors import DemoError, NotAnswering
from hub.demo.home import Home
from hub.demo.proxy import Router
from hub.demo.state import Light, Power

NOWHERE = 1  # a port on which no hub can be


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    bus = Bus(BUSES[0], Home(tmp_path).place("bus-1"), Router(NOWHERE), lambda _child: None)
    try:
        await bus.start()
        yield bus
    finally:
        await bus.stop()


async def test_a_terminal_that_cannot_be_paired_is_explained(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing multicast is the likely cause on somebody's machine, and it is named."""
    monkeypatch.setattr(bus_module, "PAIR_TIMEOUT_S", 0.0)
    with pytest.raises(DemoError, match=r"Bus 1 could not be paired: .+\n.*zeroconf.*multicast"):
        await bus.pair("no code at all")


async def test_a_terminal_that_is_not_paired_takes_no_fare(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "ANSWER_TIMEOUT_S", 0.5)
    assert await bus.present(CARDS[0].uid) is None
    assert bus.tally.accepted.total() == 0
    assert bus.state(0.0).display.light is Light.OFF


async def test_a_killed_terminal_takes_no_card_and_starts_again(bus: Bus) -> None:
    await bus.kill()
    assert bus.power is Power.OFF
    with pytest.raises(NotAnswering, match="Bus 1 is off"):
        await bus.present(CARDS[0].uid)
    await bus.switch_on()
    reading = await bus.read([])
    assert reading is not None
    assert reading.balanced
