"""Announcing the hub by zeroconf (DNS-SD, RFC 6763), and noticing when the network interfaces change.

A record is a hint of an address; terminals trust the certificate behind it only. zeroconf is deaf for ever on
an interface that appears after its start or is made anew, so the interfaces are polled and it is told.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import ifaddr
from zeroconf import Error as ZeroconfError
from zeroconf import InterfaceChoice, IPVersion, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from crdt.facts import FleetId
from crdt.protocol import PROTOCOL_VERSION, SERVICE_TYPE, TXT_FLEET, TXT_VERSION

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is announced: the hub's name for people, its fleet and its port."""

    name: str
    fleet: FleetId
    port: int


@dataclass(frozen=True, slots=True, order=True)
class Interface:
    """One IPv4 address of this machine, and the kernel's number of the interface that has it."""

    address: str
    index: int


def local_interfaces() -> tuple[Interface, ...]:
    """The IPv4 addresses of this machine now, sorted."""
    adapters = ifaddr.get_adapters()
    return tuple(
        sorted(
            Interface(str(ip.ip), adapter.index or 0)
            for adapter in adapters
            for ip in adapter.ips
            if ip.is_IPv4
        )
    )


def host_names() -> tuple[str, ...]:
    """Names under which a browser may ask for this machine."""
    name = socket.gethostname().split(".")[0].lower() or "farebox"
    return tuple(dict.fromkeys((name, f"{name}.local", "localhost")))


def announced_host(fleet: FleetId) -> str:
    """The host name the hub announces, which is in its certificate too."""
    return f"farebox-hub-{fleet.hex()[:8]}.local"


class Announcer:
    """Keeps the hub announced while it runs."""

    def __init__(self, announcement: Announcement, chosen: tuple[str, ...], *, enabled: bool = True) -> None:
        """`chosen`: addresses of the interfaces to use, none for all. Not `enabled` announces nothing."""
        self._announcement = announcement
        self._chosen = chosen
        self._enabled = enabled
        self._zeroconf: AsyncZeroconf | None = None
        self._announced: tuple[Interface, ...] = ()

    async def update(self, interfaces: tuple[Interface, ...]) -> None:
        """The machine has these interfaces now: announce, again if they changed. No network is no error."""
        wanted = tuple(one for one in interfaces if not self._chosen or one.address in self._chosen)
        if not self._enabled or not wanted or wanted == self._announced:
            return
        addresses = list(dict.fromkeys(one.address for one in wanted))
        try:
            if self._made_anew(wanted):
                await self.stop()
            if self._zeroconf is None:
                await self._register(addresses)
            else:
                await self._zeroconf.async_update_interfaces(addresses if self._chosen else None)
                await (await self._zeroconf.async_update_service(self._info(addresses)))
        except OSError as error:
            log.warning("cannot announce the hub for the moment: %s", error)
            return
        self._announced = wanted
        log.info("announced as %r on %s", self._announcement.name, ", ".join(addresses))

    async def stop(self) -> None:
        """Say goodbye, so that browsers forget the record at once."""
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            await zeroconf.async_unregister_all_services()
            await zeroconf.async_close()

    def _made_anew(self, wanted: tuple[Interface, ...]) -> bool:
        """Whether an address is on another interface now: zeroconf would stay deaf on it."""
        before = {one.address: one.index for one in self._announced}
        return any(before.get(one.address, one.index) != one.index for one in wanted)

    async def _register(self, addresses: list[str]) -> None:
        interfaces = addresses if self._chosen else InterfaceChoice.All
        zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=IPVersion.V4Only)
        try:
            # The first await sends the probes, the second waits until the record is announced.
            registering = await zeroconf.async_register_service(
                self._info(addresses), cooperating_responders=True, allow_name_change=True
            )
            await registering
        except BaseException:
            await zeroconf.async_close()
            raise
        self._zeroconf = zeroconf

    def _info(self, addresses: list[str]) -> ServiceInfo:
        fleet = self._announcement.fleet.hex()
        return ServiceInfo(
            SERVICE_TYPE,
            f"{self._announcement.name} {fleet[:8]}.{SERVICE_TYPE}",
            port=self._announcement.port,
            properties={TXT_FLEET: fleet, TXT_VERSION: str(PROTOCOL_VERSION)},
            server=f"{announced_host(self._announcement.fleet)}.",
            parsed_addresses=addresses,
        )


async def watch_interfaces(
    read_interfaces: Callable[[], tuple[Interface, ...]],
    seen: Callable[[tuple[Interface, ...]], Awaitable[None]],
    poll_s: float,
) -> None:
    """Tell `seen` the machine's interfaces, now and every `poll_s` seconds, until cancelled."""
    while True:
        try:
            await seen(await asyncio.to_thread(read_interfaces))
        except (OSError, ZeroconfError) as error:  # an interface went away in the middle; it is tried again
            log.warning("could not follow a change of the network interfaces: %s", error)
        await asyncio.sleep(poll_s)
