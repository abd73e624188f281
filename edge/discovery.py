"""Finding hubs on the LAN (DNS-SD, RFC 6763). A record is a hint of an address; nothing here is trusted.

A listener goes deaf when an interface appears after the start or is made anew, as Wi-Fi and USB modems do, so
the interfaces are looked at again and again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from zeroconf import BadTypeInNameException, InterfaceChoice, IPVersion, ServiceStateChange, Zeroconf
from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from crdt.facts import FleetId
from crdt.protocol import PROTOCOL_VERSION, SERVICE_TYPE, TXT_FLEET, TXT_VERSION
from edge.addresses import HubAddress

INTERFACE_POLL_S = 5.0
"""How often the network interfaces are looked at."""
RESOLVE_TIMEOUT_MS = 3_000
MAX_RECORDS = 32
"""Most records looked at at a time; a LAN full of lies stays a small table."""

log = logging.getLogger(__name__)

Announce = Callable[[Iterable[HubAddress]], None]
"""Called in the event loop with all addresses that are announced now."""


def all_interfaces() -> AsyncZeroconf:
    """Multicast on every interface there is now. Raises OSError while the network cannot be used."""
    return AsyncZeroconf(interfaces=InterfaceChoice.All)


class Discovery:
    """Watches the LAN for hubs of one fleet (any fleet while `fleet` gives None: not paired yet)."""

    def __init__(
        self,
        announce: Announce,
        fleet: Callable[[], FleetId | None],
        *,
        network: Callable[[], AsyncZeroconf] = all_interfaces,
        poll_s: float = INTERFACE_POLL_S,
    ) -> None:
        self._announce = announce
        self._fleet = fleet
        self._network = network
        self._poll_s = poll_s
        self._names: dict[str, None] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled; a network that cannot be used yet is tried again."""
        while True:
            try:
                await self._watch()
            except (OSError, ZeroconfError) as error:
                log.warning("zeroconf cannot use the network yet: %s", error)
            await asyncio.sleep(self._poll_s)

    async def _watch(self) -> None:
        async with self._network() as network:
            browser = AsyncServiceBrowser(network.zeroconf, SERVICE_TYPE, handlers=[self._noticed])
            try:
                await self._follow(network)
            finally:
                await browser.async_cancel()

    async def _follow(self, network: AsyncZeroconf) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._poll_s)
            if not self._changed.is_set():
                await network.async_update_interfaces()
            self._changed.clear()
            self._announce(await self._resolve(network.zeroconf))

    def _noticed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed:
            self._names.pop(name, None)
        elif len(self._names) < MAX_RECORDS:
            self._names[name] = None
        self._changed.set()

    async def _resolve(self, zeroconf: Zeroconf) -> list[HubAddress]:
        found = await asyncio.gather(*(_ask(zeroconf, name) for name in self._names))
        fleet = self._fleet()
        return [address for info in found if info is not None for address in addresses_of(info, fleet)]


def addresses_of(info: AsyncServiceInfo, fleet: FleetId | None) -> list[HubAddress]:
    """The addresses in a record, IPv4 first; none when it is another fleet's or another protocol's."""
    texts = info.decoded_properties
    if texts.get(TXT_VERSION) != str(PROTOCOL_VERSION) or not info.port:
        return []
    if fleet is not None and texts.get(TXT_FLEET) != fleet.hex():
        return []
    hosts = info.parsed_scoped_addresses(IPVersion.V4Only) + info.parsed_scoped_addresses(IPVersion.V6Only)
    return [HubAddress(host, info.port) for host in hosts]


async def _ask(zeroconf: Zeroconf, name: str) -> AsyncServiceInfo | None:
    try:
        info = AsyncServiceInfo(SERVICE_TYPE, name)
    except BadTypeInNameException:
        return None
    return info if await info.async_request(zeroconf, RESOLVE_TIMEOUT_MS) else None
