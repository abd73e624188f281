"""Real zeroconf on loopback: the hub is found, follows its addresses, and says goodbye."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from crdt.facts import FleetId
from crdt.protocol import SERVICE_TYPE
from hub.announce import (
    Announcement,
    Announcer,
    Interface,
    announced_host,
    host_names,
    local_interfaces,
    watch_interfaces,
)

FLEET = FleetId(bytes.fromhex("f1ee7000000000000000000000000001"))
NAME = f"Farebox test {FLEET.hex()[:8]}.{SERVICE_TYPE}"
LOOPBACK = "127.0.0.1"
HERE = Interface(LOOPBACK, 1)
THERE = Interface("192.0.2.7", 2)


class Listener:
    """Browses like a terminal; waits for what happens to our own record and ignores other hubs."""

    def __init__(self) -> None:
        self.zeroconf = AsyncZeroconf(interfaces=[LOOPBACK])
        self._changes: asyncio.Queue[ServiceStateChange] = asyncio.Queue()
        self._browser = AsyncServiceBrowser(self.zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._changed])

    def _changed(self, name: str, state_change: ServiceStateChange, **_more: Any) -> None:
        if name == NAME:
            self._changes.put_nowait(state_change)

    async def until(self, wanted: ServiceStateChange) -> None:
        while await self._changes.get() is not wanted:
            pass

    async def record(self) -> tuple[int | None, list[str], dict[bytes, bytes | None], str | None]:
        info = await self.zeroconf.async_get_service_info(SERVICE_TYPE, NAME)
        assert info is not None
        return info.port, sorted(info.parsed_addresses()), info.properties, info.server

    async def close(self) -> None:
        await self._browser.async_cancel()
        await self.zeroconf.async_close()


@pytest_asyncio.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()
    yield listener
    await listener.close()


@pytest_asyncio.fixture
async def announcer() -> AsyncIterator[Announcer]:
    announcer = Announcer(Announcement("Farebox test", FLEET, 8443), (LOOPBACK,))
    yield announcer
    await announcer.stop()


async def test_the_hub_is_found_with_its_fleet_and_port(listener: Listener, announcer: Announcer) -> None:
    await announcer.update((HERE, THERE))
    await listener.until(ServiceStateChange.Added)
    properties: dict[bytes, bytes | None] = {b"fleet": FLEET.hex().encode(), b"v": b"1"}
    # The address of another interface than the chosen one is not given out.
    assert await listener.record() == (8443, [LOOPBACK], properties, f"{announced_host(FLEET)}.")
    await announcer.stop()
    await listener.until(ServiceStateChange.Removed)


async def test_a_new_address_is_announced(listener: Listener) -> None:
    announcer = Announcer(Announcement("Farebox test", FLEET, 8443), (LOOPBACK, "127.0.0.2"))
    await announcer.update((HERE,))
    await listener.until(ServiceStateChange.Added)
    await announcer.update((HERE, Interface("127.0.0.2", 1)))
    await listener.until(ServiceStateChange.Updated)
    assert (await listener.record())[1] == [LOOPBACK, "127.0.0.2"]
    await announcer.stop()


async def test_an_interface_that_was_made_anew_is_joined_anew(
    listener: Listener, announcer: Announcer
) -> None:
    await announcer.update((HERE,))
    await listener.until(ServiceStateChange.Added)
    await announcer.update((Interface(LOOPBACK, 7),))
    await listener.until(ServiceStateChange.Removed)
    await listener.until(ServiceStateChange.Added)


async def test_without_a_network_it_waits_for_one(listener: Listener, announcer: Announcer) -> None:
    for nothing in ((), (THERE,)):
        await announcer.update(nothing)
    await announcer.update((HERE, THERE))
    await listener.until(ServiceStateChange.Added)


async def test_not_announcing_is_an_option() -> None:
    announcer = Announcer(Announcement("Farebox test", FLEET, 8443), (), enabled=False)
    await announcer.update((HERE,))
    await announcer.stop()


async def test_the_interfaces_are_looked_at_again_and_again_also_after_an_error() -> None:
    readings: Iterator[tuple[Interface, ...] | OSError]
    readings = iter([(HERE,), OSError("an interface went away"), (HERE, THERE)])
    seen: asyncio.Queue[tuple[Interface, ...]] = asyncio.Queue()

    def read() -> tuple[Interface, ...]:
        reading = next(readings, ())
        if isinstance(reading, OSError):
            raise reading
        return reading

    watching = asyncio.create_task(watch_interfaces(read, seen.put, 0.001))
    assert [await seen.get(), await seen.get()] == [(HERE,), (HERE, THERE)]
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


def test_this_machines_addresses_and_names() -> None:
    assert LOOPBACK in [interface.address for interface in local_interfaces()]
    names = host_names()
    assert "localhost" in names
    assert any(name.endswith(".local") for name in names)
