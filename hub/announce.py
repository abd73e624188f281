"""Announcing the hub by zeroconf (DNS-SD, RFC 6763), and noticing when the network interfaces change.

A record is a hint of an address; terminals trust the certificate behind it only. zeroconf is deaf for ever on
an interface that appears after its start or is made anew, so the interfaces are polled and it is told.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import ifaddr
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


def local_addresses() -> tuple[str, ...]:
    """The IPv4 addresses of this machine, sorted."""
    found = {str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4}
    return tuple(sorted(found, key=ipaddress.ip_address))


def host_names() -> tuple[str, ...]:
    """Names under which a browser may ask for this machine."""
    name = socket.gethostname().split(".")[0].lower() or "farebox"
    return tuple(dict.fromkeys((name, f"{name}.local", "localhost")))


def announced_host(fleet: FleetId) -> str:
    """The host name the hub announces, which is in its certificate too."""
    return f"farebox-hub-{fleet.hex()[:8]}.local"


class Announcer:
    """Keeps the hub announced while it runs."""

    def __init__(
        self, announcement: Announcement, interfaces: tuple[str, ...], *, enabled: bool = True
    ) -> None:
        """`interfaces`: their addresses; none means all. Not `enabled` announces nothing."""
        self._announcement = announcement
        self._interfaces = interfaces
        self._enabled = enabled
        self._zeroconf: AsyncZeroconf | None = None
        self._announced: tuple[str, ...] = ()

    async def update(self, addresses: tuple[str, ...]) -> None:
        """The machine has these addresses now: announce, again if they changed. No network is no error."""
        wanted = tuple(a for a in addresses if not self._interfaces or a in self._interfaces)
        if not self._enabled or not wanted or wanted == self._announced:
            return
        try:
            if self._zeroconf is None:
                await self._register(wanted)
            else:
                await self._zeroconf.async_update_interfaces()
                await (await self._zeroconf.async_update_service(self._info(wanted)))
        except OSError as error:
            log.warning("cannot announce the hub for the moment: %s", error)
            return
        self._announced = wanted
        log.info("announced as %r on %s", self._announcement.name, ", ".join(wanted))

    async def stop(self) -> None:
        """Say goodbye, so that browsers forget the record at once."""
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            await zeroconf.async_unregister_all_services()
            await zeroconf.async_close()

    async def _register(self, addresses: tuple[str, ...]) -> None:
        interfaces = list(self._interfaces) or InterfaceChoice.All
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

    def _info(self, addresses: tuple[str, ...]) -> ServiceInfo:
        fleet = self._announcement.fleet.hex()
        return ServiceInfo(
            SERVICE_TYPE,
            f"{self._announcement.name} {fleet[:8]}.{SERVICE_TYPE}",
            port=self._announcement.port,
            properties={TXT_FLEET: fleet, TXT_VERSION: str(PROTOCOL_VERSION)},
            server=f"{announced_host(self._announcement.fleet)}.",
            parsed_addresses=list(addresses),
        )


async def watch_addresses(
    read_addresses: Callable[[], tuple[str, ...]],
    seen: Callable[[tuple[str, ...]], Awaitable[None]],
    poll_s: float,
) -> None:
    """Tell `seen` the machine's addresses every `poll_s` seconds, until cancelled."""
    while True:
        await asyncio.sleep(poll_s)
        try:
            await seen(await asyncio.to_thread(read_addresses))
        except OSError as error:  # an interface went away in the middle; the next round sees how it ended
            log.warning("could not follow a change of the network interfaces: %s", error)
