"""Terminals that find each other by real zeroconf on loopback, and agree by themselves, without a hub."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from crdt.facts import CardId, ReplicaId
from crdt.protocol import PEER_SERVICE_TYPE
from edge import peers
from edge.addresses import HubAddress
from edge.errors import PeersUnusable
from edge.peer_announce import PeerRecord, own_record, peers_in
from edge.peer_server import listen
from edge.peering import Peering
from edge.peers import Pacing
from tests.edge.authority import Fleet
from tests.edge.conftest import PATIENCE_S
from tests.edge.doors import Door, digests, doors

CARD = CardId(b"\x04\x01\x02\x03")
LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104  (as a terminal listens)
NEVER_S = 10_000.0


@pytest.fixture
def two(tmp_path: Path, fleet: Fleet) -> Iterator[list[Door]]:
    with doors(tmp_path, fleet) as found:
        yield found


def peering(door: Door, pacing: Pacing, port: int = 0) -> Peering:
    return Peering(
        door.terminal,
        pacing,
        port,
        lambda: 0.5,
        network=lambda: AsyncZeroconf(interfaces=[LOOPBACK]),
        interfaces=lambda: {LOOPBACK: 1},
        poll_s=0.2,
    )


@contextlib.asynccontextmanager
async def running(*every: Peering) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.run()) for one in every]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], bool]) -> None:
    """Wait for other tasks and threads to make it true."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await asyncio.to_thread(condition):
                return
            await asyncio.sleep(0.02)


def answering(one: Peering) -> list[ReplicaId]:
    return [status.record.replica for status in one.peers.status() if status.online]


def online(one: Peering) -> bool:
    return bool(answering(one))


async def test_a_tap_at_one_door_is_told_to_the_other_and_sealed_in_time(
    two: list[Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same vehicle: told at once as open taps; after `seal_after_s` both hold it as a block and agree."""
    front, rear = two
    monkeypatch.setattr(peers, "BEAT_S", NEVER_S)  # nothing but the tap itself has them talk again
    told = Pacing("bus 12", NEVER_S, NEVER_S)
    parts = [peering(door, told) for door in two]
    async with running(*parts):
        await until(lambda: all(map(online, parts)))
        assert [status["companion"] for status in parts[0].status()] == [True]
        await asyncio.to_thread(front.ride, CARD)
        parts[0].tapped()
        await until(lambda: rear.balance(CARD) == 750)
        assert rear.ledger.status()["believed"] == 2
    sealing = Pacing("bus 12", 0.1, NEVER_S)
    async with running(*(peering(door, sealing) for door in two)):
        await until(lambda: len(rear.ledger.frontier()) == 1)
        await until(lambda: front.ledger.digest() == rear.ledger.digest())
    assert len(await digests(front, rear)) == 1


async def test_terminals_of_other_buses_are_visited_and_not_told_each_tap(two: list[Door]) -> None:
    """Anti-entropy at an easy pace: sealed blocks find their way in the depot."""
    front, rear = two
    await asyncio.to_thread(front.ride, CARD)
    await asyncio.to_thread(front.ledger.seal)
    parts = [peering(front, Pacing("12", NEVER_S, 0.2)), peering(rear, Pacing("13", NEVER_S, 0.2))]
    async with running(*parts):
        await until(lambda: rear.balance(CARD) == 750)
        await until(lambda: [one.companion for one in parts[0].peers.status()] == [False])


async def test_a_door_that_becomes_another_replica_is_found_again(two: list[Door], fleet: Fleet) -> None:
    """The record follows the identity, and so do certificate and belief."""
    front, rear = two
    parts = [peering(door, Pacing("12", 0.1, NEVER_S)) for door in two]
    async with running(*parts):
        await until(lambda: all(map(online, parts)))
        terminal = front.identity.certificate.terminal
        await asyncio.to_thread(front.terminal.enrol, fleet.enrol(terminal=terminal))
        await asyncio.to_thread(front.presences.refresh)
        await asyncio.to_thread(front.ride, CARD)
        parts[0].tapped()
        await until(lambda: rear.balance(CARD) == 750)
        await until(lambda: front.replica in answering(parts[1]))


@pytest.mark.parametrize("another", [False, True])
async def test_a_terminals_own_former_identity_is_no_peer_for_the_technician(
    two: list[Door], fleet: Fleet, another: bool
) -> None:
    """Its record is heard for a while yet, as that of anybody who does not answer. But what its storage was
    as `another` terminal is a copy's, which is alive and may be in trouble."""
    front, rear = two
    part = peering(front, Pacing("12", NEVER_S, NEVER_S))
    former, terminal = front.replica, front.identity.certificate.terminal
    given = fleet.enrol() if another else fleet.enrol(terminal=terminal)
    await asyncio.to_thread(front.terminal.enrol, given)
    await asyncio.to_thread(part.presences.refresh)
    heard = [former, rear.replica]
    part.peers.heard([PeerRecord(one, "12", (HubAddress(LOOPBACK, 1),)) for one in heard])
    listed = heard if another else [rear.replica]
    assert {one["replica"] for one in part.status()} == {one.hex() for one in listed}


async def test_a_port_that_is_taken_leaves_a_terminal_that_asks_and_is_not_announced(two: list[Door]) -> None:
    """Peers are extra: nothing else depends on them."""
    front, rear = two
    await asyncio.to_thread(front.ride, CARD)
    with socket.socket() as taken:
        taken.bind((EVERYWHERE, 0))
        port = taken.getsockname()[1]
        with pytest.raises(PeersUnusable, match="Set peers.port"):
            listen(port)
        parts = [
            peering(front, Pacing("12", NEVER_S, NEVER_S), port),
            peering(rear, Pacing("12", NEVER_S, NEVER_S)),
        ]
        async with running(*parts):
            await until(lambda: rear.balance(CARD) == 750)
            assert parts[1].status() == []


@contextlib.contextmanager
def taking_nobody() -> Iterator[int]:
    """A port where connections are taken by the kernel, and never answered."""
    with socket.socket() as silent:
        silent.bind((LOOPBACK, 0))
        silent.listen()
        yield silent.getsockname()[1]


def lie(fleet: Fleet, name: str, replica: ReplicaId, port: int) -> ServiceInfo:
    """A record of a companion that anybody on the LAN can announce, without a certificate."""
    return ServiceInfo(
        PEER_SERVICE_TYPE,
        f"{name}.{PEER_SERVICE_TYPE}",
        port=port,
        properties={"fleet": fleet.id.hex(), "replica": replica.hex(), "vehicle": "12", "v": "1"},
        server=f"{name}.local.",
        parsed_addresses=[LOOPBACK],
    )


@contextlib.asynccontextmanager
async def announced(*infos: ServiceInfo) -> AsyncIterator[None]:
    async with AsyncZeroconf(interfaces=[LOOPBACK]) as network:
        register = network.async_register_service
        telling = await asyncio.gather(*(register(info, cooperating_responders=True) for info in infos))
        await asyncio.gather(*telling)
        yield


async def test_lies_on_the_lan_silence_no_door(two: list[Door], fleet: Fleet) -> None:
    """Invariant 8, and "two doors of one bus see each other's taps": ten companions are announced first that
    take connections and never answer, and two lies about the real door, one in its very name."""
    front, rear = two
    part = peering(front, Pacing("12", NEVER_S, NEVER_S))
    with taking_nobody() as port:
        lies = [lie(fleet, f"lie{n}", ReplicaId(bytes([n]) * 16), port) for n in range(10)]
        lies += [lie(fleet, name, rear.replica, port) for name in ("another", rear.replica.hex())]
        async with announced(*lies), running(part):
            await until(lambda: len(part.peers.status()) == 11)
            async with running(peering(rear, Pacing("12", NEVER_S, NEVER_S))):
                await until(lambda: answering(part) == [rear.replica])
                await asyncio.to_thread(front.ride, CARD)
                part.tapped()
                await until(lambda: rear.balance(CARD) == 750)


def record(properties: dict[str, str], port: int = 1) -> AsyncServiceInfo:
    return AsyncServiceInfo(
        PEER_SERVICE_TYPE, f"x.{PEER_SERVICE_TYPE}", port=port, addresses=[bytes(4)], properties=properties
    )


def test_records_of_others_fleets_versions_and_garbage_are_no_peers(two: list[Door], fleet: Fleet) -> None:
    """Invariant 8: whatever the LAN says; nor is this terminal its own peer."""
    identity = two[0].identity
    good = {"fleet": fleet.id.hex(), "replica": "ab" * 16, "vehicle": "12", "v": "1"}
    bad = [
        {**good, "fleet": "00" * 16},
        {**good, "v": "2"},
        {**good, "replica": "zz"},
        {**good, "replica": "ab"},
        {**good, "replica": identity.replica.hex()},
        {**good, "vehicle": "x" * 65},
        {},
    ]
    found = peers_in([*map(record, bad), record(good, port=0), record(good), record(good, port=2)], identity)
    replica = ReplicaId(b"\xab" * 16)
    assert found == [PeerRecord(replica, "12", (HubAddress(EVERYWHERE, port),)) for port in (1, 2)]


def test_loopback_is_announced_only_where_there_is_nothing_else(two: list[Door]) -> None:
    identity = two[0].identity
    for interfaces, expected in (
        ({LOOPBACK: 1, "192.0.2.7": 2}, ["192.0.2.7"]),
        ({LOOPBACK: 1}, [LOOPBACK]),
    ):
        info = own_record(identity, "12", 7, interfaces)
        assert info is not None
        assert info.parsed_addresses() == expected
    assert own_record(identity, "12", 7, {}) is None
