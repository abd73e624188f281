"""Real zeroconf on loopback: the hub is found, follows its addresses, and says goodbye."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from crdt.facts import FleetId
from crdt.protocol import SERVICE_TYPE
from hub.announce import (
    EVERY,
    Announcement,
    Announcer,
    Interface,
    announced_host,
    answering,
    host_names,
    local_interfaces,
    watch_interfaces,
)
from hub.app import Hub
from tests.hub.conftest import running

FLEET = FleetId(bytes.fromhex("f1ee7000000000000000000000000001"))
NAME = f"Farebox test {FLEET.hex()[:8]}.{SERVICE_TYPE}"
LOOPBACK = "127.0.0.1"
HERE = Interface(LOOPBACK, 1)
HERE_6 = Interface("::1", 1)
THERE = Interface("192.0.2.7", 2)
THERE_6 = Interface("2001:db8::7", 2)
ALIAS = Interface("192.0.2.8", 2)
ALL = tuple(EVERY.values())


def announcement(*bound: str) -> Announcement:
    """Of a hub that listens at these addresses, all of this machine's where none is named."""
    return Announcement("Farebox test", FLEET, 8443, bound or ALL)


class Listener:
    """Browses like a terminal; waits for what happens to our own record and ignores other hubs."""

    def __init__(self, name: str = NAME) -> None:
        self._name = name
        self.zeroconf = AsyncZeroconf(interfaces=[LOOPBACK])
        self._changes: asyncio.Queue[ServiceStateChange] = asyncio.Queue()
        self._browser = AsyncServiceBrowser(self.zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._changed])

    def _changed(self, name: str, state_change: ServiceStateChange, **_more: Any) -> None:
        if name == self._name:
            self._changes.put_nowait(state_change)

    async def until(self, wanted: ServiceStateChange) -> None:
        while await self._changes.get() is not wanted:
            pass

    async def record(self) -> tuple[int | None, list[str], dict[bytes, bytes | None], str | None]:
        info = await self.zeroconf.async_get_service_info(SERVICE_TYPE, self._name)
        assert info is not None
        return info.port, sorted(info.parsed_addresses()), info.properties, info.server

    async def aclose(self) -> None:
        await self._browser.async_cancel()
        await self.zeroconf.async_close()


@pytest_asyncio.fixture
async def listener() -> AsyncIterator[Listener]:
    async with aclosing(Listener()) as listener:
        yield listener


@pytest_asyncio.fixture
async def announcer() -> AsyncIterator[Announcer]:
    announcer = Announcer(announcement(), (LOOPBACK,))
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
    announcer = Announcer(announcement(), (LOOPBACK, "127.0.0.2"))
    await announcer.update((HERE,))
    await listener.until(ServiceStateChange.Added)
    await announcer.update((HERE, Interface("127.0.0.2", 1)))
    await listener.until(ServiceStateChange.Updated)
    assert (await listener.record())[1] == [LOOPBACK, "127.0.0.2"]
    await announcer.stop()


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (ALL, [THERE, ALIAS, THERE_6]),
        ((EVERY[4],), [THERE, ALIAS]),
        ((EVERY[6],), [THERE_6]),
        ((LOOPBACK,), [HERE]),
        (("::1",), [HERE_6]),
        (("192.0.2.8",), [ALIAS]),
        (("2001:db8::7",), [THERE_6]),
        (("192.0.2.9",), []),
    ],
)
def test_announced_is_where_the_hub_listens(bound: tuple[str, ...], expected: list[Interface]) -> None:
    """Each address at which nobody answers costs every terminal an attempt, and loopback is its own."""
    assert answering((HERE, THERE, ALIAS, HERE_6, THERE_6), bound) == tuple(expected)


def test_a_machine_that_is_all_alone_has_terminals_of_its_own() -> None:
    assert answering((HERE, HERE_6), ALL) == (HERE, HERE_6)


@pytest.mark.parametrize(
    ("bound", "expected"),
    [((LOOPBACK,), [LOOPBACK]), (("::1",), ["::1"]), ((LOOPBACK, "::1"), [LOOPBACK, "::1"])],
)
async def test_a_hub_for_this_machine_alone_is_announced_on_it_alone(
    listener: Listener, bound: tuple[str, ...], expected: list[str]
) -> None:
    """Also over the other kind of address than it listens at: terminals listen on IPv4."""
    announcer = Announcer(announcement(*bound), ())
    await announcer.update((HERE, THERE, HERE_6, THERE_6))
    await listener.until(ServiceStateChange.Added)
    assert (await listener.record())[1] == expected
    await announcer.stop()


async def test_what_a_hub_announces_is_what_it_listens_at(founded: Hub) -> None:
    """The whole of it, with the addresses of this machine: bound to loopback, it names no other."""
    settings = replace(founded.settings, announce=True)
    fleet = founded.authority.fleet.hex()[:8]
    async with (
        running(replace(founded, settings=settings)) as depot,
        aclosing(Listener(f"{settings.announce_name} {fleet}.{SERVICE_TYPE}")) as listener,
    ):
        await listener.until(ServiceStateChange.Added)
        assert (await listener.record())[:2] == (depot.served.port, [LOOPBACK])


async def test_an_address_that_is_gone_is_announced_no_more(listener: Listener) -> None:
    announcer = Announcer(announcement(LOOPBACK), ())
    await announcer.update((HERE, THERE))
    await listener.until(ServiceStateChange.Added)
    await announcer.update((THERE,))
    await listener.until(ServiceStateChange.Removed)
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
    announcer = Announcer(announcement(), (), enabled=False)
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
