"""Finding the hub over zeroconf, with real multicast on loopback; records are hints, filtered by fleet."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Iterable

import pytest
from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from crdt.facts import FleetId
from crdt.protocol import SERVICE_TYPE
from edge.addresses import HubAddress
from edge.discovery import Discovery, addresses_of
from edge.waiting import happens
from tests.edge.jobs import running
from tests.edge.test_hostile_lan import GROUP, PTR, SRV, TXT, name, on_the_lan, response

OURS, THEIRS = FleetId(b"\x01" * 16), FleetId(b"\x02" * 16)
LOOPBACK = ["127.0.0.1"]


def loopback() -> AsyncZeroconf:
    return AsyncZeroconf(interfaces=LOOPBACK)


def record(name: str, fleet: FleetId, port: int, version: str = "1") -> ServiceInfo:
    return ServiceInfo(
        SERVICE_TYPE,
        f"{name}.{SERVICE_TYPE}",
        addresses=[bytes([127, 0, 0, 1])],
        port=port,
        properties={"fleet": fleet.hex(), "v": version},
        server=f"{name}.local.",
    )


@contextlib.asynccontextmanager
async def announced(*infos: ServiceInfo) -> AsyncIterator[AsyncZeroconf]:
    async with loopback() as network:
        register = network.async_register_service
        await asyncio.gather(*await asyncio.gather(*map(register, infos)))
        yield network


class Found:
    """Keeps what discovery says, and lets a test wait for it."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[list[HubAddress]] = asyncio.Queue()

    def __call__(self, addresses: Iterable[HubAddress]) -> None:
        self._said.put_nowait(list(addresses))

    async def until(self, expected: list[HubAddress]) -> None:
        async with asyncio.timeout(60):
            while await self._said.get() != expected:
                pass

    async def until_among_others(self, expected: HubAddress) -> None:
        """Other tests and other hubs may be on this LAN too."""
        async with asyncio.timeout(60):
            while expected not in await self._said.get():
                pass


class Completed:
    """Waits until all of these are known at once; whoever is still announced stays known."""

    def __init__(self, every: set[HubAddress]) -> None:
        self.complete = asyncio.Event()
        self._every = every
        self._known = set[HubAddress]()

    def __call__(self, addresses: Iterable[HubAddress]) -> None:
        heard = set(addresses)
        assert heard >= self._known & self._every, "whoever is still announced stays"
        self._known |= heard
        if heard >= self._every:
            self.complete.set()


async def test_the_fleets_hub_is_found_also_when_it_comes_later_and_its_goodbye_is_heard() -> None:
    found = Found()
    async with running(Discovery(found, lambda: OURS, network=loopback, poll_s=0.2)):
        await found.until([])
        async with announced(record("theirs", THEIRS, 1001), record("ours", OURS, 1002)) as network:
            await found.until([HubAddress("127.0.0.1", 1002)])
            await (await network.async_unregister_service(record("ours", OURS, 1002)))
            await found.until([])


async def test_of_more_records_than_are_looked_at_at_a_time_all_are_known() -> None:
    """Else an address that waits for its attempt would lose its turn with each look at others."""
    every = {HubAddress("127.0.0.1", 1010 + number) for number in range(5)}
    found = Completed(every)
    async with (
        announced(*(record(f"hub{number}", OURS, 1010 + number) for number in range(5))),
        running(Discovery(found, lambda: OURS, network=loopback, poll_s=0.1, max_records=2)),
    ):
        async with asyncio.timeout(60):
            await found.complete.wait()


async def test_a_record_that_is_spelt_in_two_ways_is_known_like_the_others() -> None:
    """Of more records than are looked at at a time; names in DNS are the same in capitals (RFC 6762, 16)."""
    every = {HubAddress("127.0.0.1", 1030 + number) for number in range(3)}
    found = Completed(every)
    discovery = Discovery(found, lambda: OURS, network=loopback, poll_s=0.1, max_records=1)
    with contextlib.closing(on_the_lan()) as other:
        async with running(discovery), asyncio.timeout(60):
            while not found.complete.is_set():
                other.sendto(spelt_in_two_ways(1030, 1031, 1032), (GROUP, 5353))
                await happens(found.complete, 1)


def spelt_in_two_ways(*ports: int) -> bytes:
    """A hub at each of these ports, whose name is in capitals in one of its records."""
    labels = [label.encode() for label in SERVICE_TYPE.split(".")[:-1]]
    text = b"".join(bytes([len(one)]) + one for one in (b"v=1", b"fleet=" + OURS.hex().encode()))
    host = name(b"spelt", b"local")
    records = [(host, 1, bytes([127, 0, 0, 1]))]
    for port in ports:
        hub = b"hub%d" % port
        records += [
            (name(*labels), PTR, name(hub, *labels)),
            (name(hub.upper(), *labels), SRV, struct.pack("!HHH", 0, 0, port) + host),
            (name(hub, *labels), TXT, text),
        ]
    return response(*records)


async def test_of_too_many_addresses_every_record_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 8: made-up ones neither take the time of the event loop nor the place of the hub's."""
    monkeypatch.setattr("edge.discovery.MAX_ANNOUNCED", 3)
    both = asyncio.Event()

    def found(addresses: Iterable[HubAddress]) -> None:
        ports = [address.port for address in addresses]
        assert len(ports) <= 3
        if len(ports) == 3 and {*ports} == {1020, 1021}:
            both.set()

    hosts = [f"127.0.0.{number}" for number in range(1, 7)]
    infos = [
        ServiceInfo(
            SERVICE_TYPE,
            f"many{port}.{SERVICE_TYPE}",
            parsed_addresses=hosts,
            port=port,
            properties={"fleet": OURS.hex(), "v": "1"},
            server=f"many{port}.local.",
        )
        for port in (1020, 1021)
    ]
    async with announced(*infos), running(Discovery(found, lambda: OURS, network=loopback, poll_s=0.1)):
        async with asyncio.timeout(60):
            await both.wait()


async def test_before_pairing_every_hub_is_a_hint() -> None:
    found = Found()
    async with (
        announced(record("one", THEIRS, 1003)),
        running(Discovery(found, lambda: None, network=loopback, poll_s=0.2)),
    ):
        await found.until_among_others(HubAddress("127.0.0.1", 1003))


async def test_a_network_that_is_not_there_yet_is_tried_again() -> None:
    """A terminal that starts before its network neither fails nor goes deaf."""
    found, failures = Found(), [OSError("no such device"), OSError("network is down")]

    def network() -> AsyncZeroconf:
        if failures:
            raise failures.pop()
        return loopback()

    async with (
        announced(record("ours", OURS, 1004)),
        running(Discovery(found, lambda: OURS, network=network, poll_s=0.1)),
    ):
        await found.until([HubAddress("127.0.0.1", 1004)])
    assert not failures


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"fleet": OURS.hex()},
        {"fleet": OURS.hex(), "v": "2"},
        {"fleet": THEIRS.hex(), "v": "1"},
        {"fleet": b"\xff\xfe", "v": "1"},
        {"fleet": None, "v": "1"},
    ],
)
def test_other_fleets_other_versions_and_garbage_are_no_hints(
    properties: dict[str, str | bytes | None],
) -> None:
    """Invariant 8: whatever the LAN says."""
    info = AsyncServiceInfo(
        SERVICE_TYPE, f"x.{SERVICE_TYPE}", port=1, addresses=[bytes(4)], properties=properties
    )
    assert addresses_of(info, OURS) == []
