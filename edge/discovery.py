"""Finding hubs on the LAN. A record is a hint of an address; nothing here is trusted."""

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice, zip_longest

from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from crdt.facts import FleetId
from crdt.protocol import PROTOCOL_VERSION, SERVICE_TYPE, TXT_FLEET, TXT_VERSION
from edge.addresses import HubAddress
from edge.lan import INTERFACE_POLL_S, MAX_RECORDS, Lan, all_interfaces

HUB_ADDRESSES = 8
"""Most that are taken from one record: a server has many interfaces, and both kinds of address on each."""
MAX_ANNOUNCED = 4_096
"""Most that are announced at a time, of which every look at the LAN makes a list: milliseconds of it."""

Announce = Callable[[Iterable[HubAddress]], None]
"""Called in the event loop with the addresses that are announced now, each record's first one first."""


class Discovery:
    """Watches the LAN for hubs of one fleet (any fleet while `fleet` gives None: not paired yet)."""

    def __init__(
        self,
        announce: Announce,
        fleet: Callable[[], FleetId | None],
        *,
        network: Callable[[], AsyncZeroconf] = all_interfaces,
        poll_s: float = INTERFACE_POLL_S,
        max_records: int = MAX_RECORDS,
    ) -> None:
        """`max_records`: see Lan."""
        self._announce = announce
        self._fleet = fleet
        self._said: dict[str, list[HubAddress]] = {}  # by the names of the records that there are
        self._lan = Lan(SERVICE_TYPE, self._heard, network=network, poll_s=poll_s, max_records=max_records)

    async def run(self) -> None:
        """Watch until cancelled; a network that cannot be used yet is tried again."""
        await self._lan.run()

    def _heard(self, records: Mapping[str, AsyncServiceInfo], names: Collection[str]) -> None:
        """Of more records than are looked at at a time, the others still say what they did the last time."""
        fleet = self._fleet()
        self._said = {name: said for name, said in self._said.items() if name in names}
        self._said |= {name: addresses_of(record, fleet) for name, record in records.items()}
        ranks = zip_longest(*self._said.values())
        self._announce(list(islice((one for rank in ranks for one in rank if one), MAX_ANNOUNCED)))


def addresses_of(info: AsyncServiceInfo, fleet: FleetId | None) -> list[HubAddress]:
    """The first addresses in a record, IPv4 first; none when it is another fleet's or another protocol's."""
    texts = info.decoded_properties
    if texts.get(TXT_VERSION) != str(PROTOCOL_VERSION) or not info.port:
        return []
    if fleet is not None and texts.get(TXT_FLEET) != fleet.hex():
        return []
    hosts = info.parsed_scoped_addresses(IPVersion.V4Only) + info.parsed_scoped_addresses(IPVersion.V6Only)
    return [HubAddress(host, info.port) for host in hosts[:HUB_ADDRESSES]]
