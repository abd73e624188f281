"""Packets on the LAN that zeroconf does not survive by itself: they silence no terminal (invariant 8)."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Collection, Mapping

import pytest
from zeroconf import DNSIncoming, ServiceInfo  # type: ignore[attr-defined]  # exported unsaid
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from edge.lan import Lan
from tests.edge.jobs import running

LABELS = [b"_farebox-foe", b"_tcp", b"local"]
SERVICE_TYPE = "_farebox-foe._tcp.local."
GROUP, LOOPBACK = "224.0.0.251", "127.0.0.1"
NO_UTF8 = b"\xff" * 63
"""As long as a label may be; each byte is three once it was read and is written again."""
PTR, TXT, SRV = 12, 16, 33
GOOD = f"good.{SERVICE_TYPE}"


def loopback() -> AsyncZeroconf:
    return AsyncZeroconf(interfaces=[LOOPBACK])


def name(*labels: bytes) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def response(*records: tuple[bytes, int, bytes]) -> bytes:
    """A packet with these records: name, type, data."""
    packed = (owner + struct.pack("!HHIH", kind, 1, 4_500, len(data)) + data for owner, kind, data in records)
    return struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(packed)


def on_the_lan() -> socket.socket:
    """Hears all that is said, and says what it likes."""
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
    member = socket.inet_aton(GROUP) + socket.inet_aton(LOOPBACK)
    found.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    found.bind(("", 5353))
    found.setblocking(False)
    return found


async def until_asked(listener: socket.socket) -> None:
    """Until somebody asks who is there."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        while True:
            heard = DNSIncoming(await loop.sock_recv(listener, 9_000))
            if heard.is_query() and any(one.name == SERVICE_TYPE for one in heard.questions):
                return


@pytest.mark.parametrize("owner", [LABELS, [b"_FAREBOX-foe", *LABELS[1:]]], ids=["as asked", "in capitals"])
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice in one packet"])
async def test_a_name_that_cannot_be_written_again_stops_no_question(owner: list[bytes], times: int) -> None:
    """A terminal names in its questions what it knows already, and asked nothing any more from then on."""
    alias = name(NO_UTF8, *LABELS)
    with contextlib.closing(on_the_lan()) as foe:
        async with running(Lan(SERVICE_TYPE, lambda _records, _names: None, network=loopback, poll_s=0.1)):
            await until_asked(foe)
            foe.sendto(response(*[(name(*owner), PTR, alias)] * times), (GROUP, 5353))
            await until_asked(foe)


async def test_a_record_that_cannot_be_asked_about_ends_no_look_at_the_others() -> None:
    """It ended the listening, which began anew without all that was known, and ended again."""
    alias = name(b"foe", *LABELS)
    said = response(
        (name(*LABELS), PTR, alias),
        (alias, SRV, struct.pack("!HHH", 0, 0, 5) + name(NO_UTF8, b"local")),
        (alias, TXT, b"\1a"),
    )
    before, after = asyncio.Event(), asyncio.Event()

    def heard(records: Mapping[str, AsyncServiceInfo], names: Collection[str]) -> None:
        if before.is_set():
            assert GOOD in records
        if f"foe.{SERVICE_TYPE}" in names:
            after.set()
        if GOOD in records:
            before.set()

    good = ServiceInfo(SERVICE_TYPE, GOOD, parsed_addresses=[LOOPBACK], port=5, server="good.local.")
    lan = Lan(SERVICE_TYPE, heard, network=loopback, poll_s=0.1)
    with contextlib.closing(on_the_lan()) as foe:
        async with loopback() as network, running(lan), asyncio.timeout(60):
            await (await network.async_register_service(good))
            await before.wait()
            foe.sendto(said, (GROUP, 5353))
            await after.wait()


async def test_what_fails_by_a_bug_is_begun_anew() -> None:
    """The terminal ended with it, and with the terminal the taps (invariant 7)."""
    again = asyncio.Event()
    failing = [ZeroDivisionError()]

    def heard(_records: Mapping[str, AsyncServiceInfo], _names: Collection[str]) -> None:
        if failing:
            raise failing.pop()
        again.set()

    async with running(Lan(SERVICE_TYPE, heard, network=loopback, poll_s=0.1)), asyncio.timeout(60):
        await again.wait()
