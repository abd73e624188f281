"""Announcing the hub by zeroconf (DNS-SD, RFC 6763), and noticing when the network interfaces change.

A record is a hint of an address; terminals trust the certificate behind it only. It names the addresses at
which the hub listens, of both kinds, and nothing else: each that nobody answers at costs every terminal an
attempt. It goes out over IPv4, because that is where terminals listen, and only on the interfaces that have
those addresses.

zeroconf is deaf for ever on an interface that appears after its start or is made anew, so the interfaces are
polled and it is told.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, NamedTuple

import ifaddr
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from crdt.facts import FleetId
from crdt.protocol import PROTOCOL_VERSION, SERVICE_TYPE, TXT_FLEET, TXT_VERSION

EVERY: Final = {4: "0.0.0.0", 6: "::"}  # noqa: S104  (by IP version: bound to that is bound to each address)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is announced: the hub's name for people, its fleet, and where it listens."""

    name: str
    fleet: FleetId
    port: int
    bound: tuple[str, ...]  # addresses; all of a kind as in EVERY


@dataclass(frozen=True, slots=True, order=True)
class Interface:
    """One address of this machine, and the kernel's number of the interface that has it."""

    address: str
    index: int

    @property
    def version(self) -> int:
        """Of the Internet Protocol: 4 or 6."""
        return ip_address(self.address).version

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine itself is there."""
        return ip_address(self.address).is_loopback

    @property
    def is_link_local(self) -> bool:
        """Whether it means something on one link only."""
        return ip_address(self.address).is_link_local


class Record(NamedTuple):
    """What is to be announced where."""

    told: tuple[Interface, ...] = ()  # whose addresses it has
    on: tuple[Interface, ...] = ()  # from whose addresses it goes out


def local_interfaces() -> tuple[Interface, ...]:
    """The addresses of this machine now, sorted; of IPv6 without those that take the name of a link too."""
    found = (
        Interface(str(ip.ip) if ip.is_IPv4 else ip.ip[0], adapter.index or 0)
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
    )
    return tuple(sorted(one for one in found if not (one.version == 6 and one.is_link_local)))


def answering(interfaces: Iterable[Interface], bound: Collection[str]) -> tuple[Interface, ...]:
    """Those of these where somebody answers who is bound to these addresses.

    Loopback is among them only where there is nothing else: on another machine it is that machine.
    """
    here = [one for one in interfaces if one.address in bound or EVERY[one.version] in bound]
    return tuple([one for one in here if not one.is_loopback] or here)


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
        self._announced: Record | None = None

    async def update(self, interfaces: tuple[Interface, ...]) -> None:
        """The machine has these interfaces now: announce, again if they changed. No network is no error."""
        chosen = [one for one in interfaces if not self._chosen or one.address in self._chosen]
        told = answering(chosen, self._announcement.bound)
        wanted = Record(told, _heard_on(interfaces, told))
        if not self._enabled or wanted == self._announced:
            return
        try:
            await self._announce(wanted)
        except OSError as error:
            log.warning("cannot announce the hub for the moment: %s", error)
            return
        self._announced = wanted

    async def stop(self) -> None:
        """Say goodbye, so that browsers forget the record at once."""
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            await zeroconf.async_unregister_all_services()
            await zeroconf.async_close()

    async def _announce(self, wanted: Record) -> None:
        """This, in place of what was announced before."""
        if not wanted.on or self._made_anew(wanted.on):
            await self.stop()
        if not wanted.on:
            log.warning(
                "not announced: no IPv4 network of this machine leads to where the hub listens (server.host, "
                "announce.interfaces); terminals find it by hub.address in their settings only"
            )
            return
        addresses, on = _addresses(wanted.told), _addresses(wanted.on)
        if self._zeroconf is None:
            await self._register(addresses, on)
        else:
            await self._zeroconf.async_update_interfaces(on)
            await (await self._zeroconf.async_update_service(self._info(addresses)))
        log.info("announced as %r on %s", self._announcement.name, ", ".join(addresses))

    def _made_anew(self, on: Iterable[Interface]) -> bool:
        """Whether an address is on another interface now: zeroconf would stay deaf on it."""
        before = {} if self._announced is None else {one.address: one.index for one in self._announced.on}
        return any(before.get(one.address, one.index) != one.index for one in on)

    async def _register(self, addresses: list[str], on: list[str]) -> None:
        zeroconf = AsyncZeroconf(interfaces=on, ip_version=IPVersion.V4Only)
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


def _heard_on(interfaces: Iterable[Interface], told: Collection[Interface]) -> tuple[Interface, ...]:
    """From where a record with these addresses goes out: they themselves, or another IPv4 address beside one
    that is of IPv6."""
    from_itself = {one for one in told if one.version == 4}
    others = {one.index for one in told} - {one.index for one in from_itself}
    beside = {one for one in interfaces if one.version == 4 and one.index in others}
    return tuple(sorted(from_itself | beside))


def _addresses(interfaces: Iterable[Interface]) -> list[str]:
    return list(dict.fromkeys(one.address for one in interfaces))


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
