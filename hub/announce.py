"""Announcing the hub by zeroconf (DNS-SD, RFC 6763), and noticing when the network interfaces change.

A record is a hint of an address; terminals trust the certificate behind it only. zeroconf is deaf for ever on
an interface that appears after its start or is made anew, so the interfaces are polled and it is told.
"""

import asyncio
import contextlib
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


def local_addresses(chosen: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The IPv4 addresses of this machine, sorted; those of `chosen` only, if it names any."""
    found = {str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4}
    return tuple(sorted(found & set(chosen) if chosen else found, key=ipaddress.ip_address))


def host_names() -> tuple[str, ...]:
    """Names under which a browser may ask for this machine."""
    name = socket.gethostname().split(".")[0].lower() or "farebox"
    return tuple(dict.fromkeys((name, f"{name}.local", "localhost")))


class Announcer:
    """Keeps the hub announced while it runs."""

    def __init__(
        self,
        announcement: Announcement,
        interfaces: tuple[str, ...],
    ) -> None:
        self._announcement = announcement
        self._interfaces = interfaces
        self._zeroconf: AsyncZeroconf | None = None
        self._announced: tuple[str, ...] = ()

    async def start(self, addresses: tuple[str, ...]) -> None:
        """Announce on these addresses; when there is no usable network yet, `update` does it later."""
        with contextlib.suppress(OSError):
            await self._register(addresses)

    async def update(self, addresses: tuple[str, ...]) -> None:
        """The machine has these addresses now: announce again if they changed or it failed so far."""
        if addresses == self._announced:
            return
        if self._zeroconf is None:
            await self._register(addresses)
            return
        await self._zeroconf.async_update_interfaces()
        await (await self._zeroconf.async_update_service(self._info(addresses)))
        self._announced = addresses
        log.info("announced again on %s", ", ".join(addresses))

    async def stop(self) -> None:
        """Say goodbye, so that browsers forget the record at once."""
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            await zeroconf.async_unregister_all_services()
            await zeroconf.async_close()

    async def _register(self, addresses: tuple[str, ...]) -> None:
        if not addresses:
            return
        interfaces = list(self._interfaces) or InterfaceChoice.All
        zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=IPVersion.V4Only)
        try:
            # The first await sends the probes, the second waits until the record is announced.
            await (
                await zeroconf.async_register_service(
                    self._info(addresses), cooperating_responders=True, allow_name_change=True
                )
            )
        except BaseException:
            await zeroconf.async_close()
            raise
        self._zeroconf, self._announced = zeroconf, addresses
        log.info("announced as %r on %s", self._announcement.name, ", ".join(addresses))

    def _info(self, addresses: tuple[str, ...]) -> ServiceInfo:
        fleet = self._announcement.fleet.hex()
        return ServiceInfo(
            SERVICE_TYPE,
            f"{self._announcement.name} {fleet[:8]}.{SERVICE_TYPE}",
            port=self._announcement.port,
            properties={TXT_FLEET: fleet, TXT_VERSION: str(PROTOCOL_VERSION)},
            server=f"farebox-hub-{fleet[:8]}.local.",
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
