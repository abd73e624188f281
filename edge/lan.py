"""Hearing a LAN, and being heard on it (DNS-SD, RFC 6763). Records are hints; nothing here is trusted.

A listener goes deaf when an interface appears after the start (Wi-Fi, USB modems) or is made anew. So
the interfaces are looked at again and again: zeroconf is told of new ones, and begun again for a changed one.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping

import ifaddr
from zeroconf import (  # type: ignore[attr-defined]  # of DNSPointer, which it exports unsaid
    DNSPointer,
    InterfaceChoice,
    RecordUpdate,
    RecordUpdateListener,
    ServiceInfo,
    Zeroconf,
    current_time_millis,
)
from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from edge.turns import Turns
from edge.waiting import happens

INTERFACE_POLL_S = 5.0
"""How often the network interfaces are looked at."""
RESOLVE_TIMEOUT_MS = 3_000
CALM_S = 0.2
"""From a change to the look at it, so that a flood of changes is one look."""
MAX_LABEL_BYTES = 63
"""Of each part of a name (RFC 1035)."""
MAX_RECORDS = 256
"""Most records looked at at a time: a depot's yard. Where a LAN is full of lies, all have their turns."""

log = logging.getLogger(__name__)

Interfaces = Mapping[str, int]
"""The IPv4 addresses of this machine, each with the kernel's number of the interface that has it."""

Heard = Callable[[Mapping[str, AsyncServiceInfo], Collection[str]], object]
"""Gets the records that were looked at, by the names under which they are announced; and all such names that
there are, also of those whose turn it is not."""


def all_interfaces() -> AsyncZeroconf:
    """Multicast on every interface there is now. Raises OSError while the network cannot be used."""
    return AsyncZeroconf(interfaces=InterfaceChoice.All)


def local_interfaces() -> Interfaces:
    """The IPv4 addresses of this machine now. Reads files of the kernel's."""
    adapters = ifaddr.get_adapters()
    return {str(ip.ip): adapter.index or 0 for adapter in adapters for ip in adapter.ips if ip.is_IPv4}


class Lan:
    """Follows the records of one service type, and keeps one of our own announced where there is one.

    Their names are where zeroconf remembers them, which is bounded.
    """

    def __init__(
        self,
        service_type: str,
        heard: Heard,
        own: Callable[[Interfaces], ServiceInfo | None] = lambda _interfaces: None,
        *,
        network: Callable[[], AsyncZeroconf] = all_interfaces,
        interfaces: Callable[[], Interfaces] = local_interfaces,
        poll_s: float = INTERFACE_POLL_S,
        max_records: int = MAX_RECORDS,
    ) -> None:
        """`heard` is called each time something may have changed; of more than `max_records` so many are
        looked at at a time, in turns. `own` says what to announce on a machine with these interfaces, None
        for nothing. `interfaces` may wait for the kernel."""
        self._service_type = service_type
        self._heard = heard
        self._own = own
        self._network = network
        self._interfaces = interfaces
        self._poll_s = poll_s
        self._max_records = max_records
        self._turns: Turns[str] = Turns()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled, whatever happens; a network that cannot be used yet is tried again."""
        while True:
            try:
                await self._watch()
            except (OSError, ZeroconfError) as error:
                log.warning("zeroconf cannot use the network yet: %s", error)
            except Exception:
                # Taps must not stop for a bug out here, whatever provoked it.
                log.exception("listening to the LAN failed: this is a bug, please report it")
            await asyncio.sleep(self._poll_s)

    async def _watch(self) -> None:
        async with self._network() as network:
            await network.zeroconf.async_wait_for_start()  # who leaves before that leaves sockets open
            network.zeroconf.async_add_listener(_Unwritable(self._service_type, network.zeroconf), None)
            browser = AsyncServiceBrowser(network.zeroconf, self._service_type, handlers=[self._noticed])
            try:
                await self._follow(network)
            finally:
                await browser.async_cancel()

    async def _follow(self, network: AsyncZeroconf) -> None:
        """Until an interface was made anew, on which this listener is deaf."""
        announced: ServiceInfo | None = None
        at_first = await asyncio.to_thread(self._interfaces)
        interfaces, clock = at_first, asyncio.get_running_loop().time
        updated_s = clock()
        while not _made_anew(at_first, interfaces):
            self._changed.clear()
            names = self._names(network.zeroconf)
            self._heard(await self._resolve(network.zeroconf, names), names)
            announced = await _announce(network, announced, self._own(interfaces))
            if await happens(self._changed, self._poll_s):
                await asyncio.sleep(CALM_S)
            if clock() - updated_s >= self._poll_s:
                await network.async_update_interfaces()
                updated_s = clock()
            interfaces = await asyncio.to_thread(self._interfaces)

    def _noticed(self, **_change: object) -> None:
        self._changed.set()

    async def _resolve(self, zeroconf: Zeroconf, names: Iterable[str]) -> dict[str, AsyncServiceInfo]:
        turn = self._turns.next(names, self._max_records)
        found = await asyncio.gather(*(self._ask(zeroconf, name) for name in turn))
        return {name: info for name, info in zip(turn, found, strict=True) if info is not None}

    def _names(self, zeroconf: Zeroconf) -> Collection[str]:
        """What is announced now."""
        now_ms = current_time_millis()
        known = zeroconf.cache.async_entries_with_name(self._service_type)
        pointers = [one for one in known if isinstance(one, DNSPointer)]
        return dict.fromkeys(one.alias for one in pointers if not one.is_expired(now_ms))

    async def _ask(self, zeroconf: Zeroconf, name: str) -> AsyncServiceInfo | None:
        """The record of this name; None where there is no answer, or none can be asked for: that is no
        concern of the others'."""
        try:
            info = AsyncServiceInfo(self._service_type, name)
            return info if await info.async_request(zeroconf, RESOLVE_TIMEOUT_MS) else None
        except ZeroconfError as error:
            log.debug("%s cannot be asked for: %s", ascii(name), error)
            return None


class _Unwritable(RecordUpdateListener):
    """Drops the names of one type that cannot be written again: in its questions zeroconf names what it
    knows of the type, whichever case it is spelt in, and with one of these among it, it asks no more."""

    def __init__(self, service_type: str, zeroconf: Zeroconf) -> None:
        self._key = service_type.lower()
        self._cache = zeroconf.cache
        self._found: set[DNSPointer] = set()

    def async_update_records(
        self, _zeroconf: Zeroconf, _now_ms: float, updates: Iterable[RecordUpdate]
    ) -> None:
        """Of one packet, before they are in the cache."""
        news = [update.new for update in updates]
        pointers = [new for new in news if isinstance(new, DNSPointer) and new.key == self._key]
        self._found.update(pointer for pointer in pointers if not _can_be_written(pointer.alias))

    def async_update_records_complete(self) -> None:
        """All that are to stay are in the cache now."""
        found, self._found = self._found, set()
        self._cache.async_remove_records([one for one in found if self._cache.async_get_unique(one)])


async def _announce(
    network: AsyncZeroconf, announced: ServiceInfo | None, wanted: ServiceInfo | None
) -> ServiceInfo | None:
    """Have `wanted` on the network in place of `announced`; what is announced then."""
    if announced is not None and wanted is not None and announced.name == wanted.name:
        if _content(announced) != _content(wanted):
            await (await network.async_update_service(wanted))
            return wanted
        return announced
    if announced is not None:
        await (await network.async_unregister_service(announced))
    if wanted is not None:
        # The first await probes, the second waits until the record is announced. Names are ids, so nobody
        # else's probe answers but this machine's own from a moment ago.
        await (await network.async_register_service(wanted, cooperating_responders=True))
    return wanted


def _can_be_written(name: str) -> bool:
    """Whether a name that was read can be written: what was no UTF-8 in it has grown to three bytes each."""
    return all(len(label.encode()) <= MAX_LABEL_BYTES for label in name.split("."))


def _content(info: ServiceInfo) -> object:
    return info.port, info.text, sorted(info.addresses)


def _made_anew(before: Interfaces, now: Interfaces) -> bool:
    return any(now.get(address, index) != index for address, index in before.items())
