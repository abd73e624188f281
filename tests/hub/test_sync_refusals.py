"""Bad input at the sync endpoint: a refusal by name, nothing stored, nothing crashes (invariants 8, 10)."""

import asyncio
import io
import logging
import os
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import aiohttp
import pytest
from sqlalchemy import select

from crdt.block import parse, seal
from crdt.certificate import Limits, Role, issue
from crdt.errors import ForkDetected, RefusalCode, UnknownCardNumber
from crdt.facts import CERTIFIED, Delta, FleetId, Kind, TerminalId
from crdt.frames import (
    MAX_EXCHANGE_BYTES,
    Ack,
    BlockFrame,
    CertificateFrame,
    Hello,
    PageFrame,
    Refusal,
    encode_frame,
)
from crdt.frontier import GENESIS, Head
from crdt.ledger import RefusedInput
from crdt.protocol import CONTENT_TYPE, SYNC
from crdt.signing import SigningKey
from crdt.store import intake
from crdt.store.schema import BLOCK
from hub.authority import Authority, new_secrets
from hub.shield import OVERLOADED_S
from hub.sync import refusals
from tests.hub.conftest import Depot
from tests.hub.terminal import CARD, NOON_MS, Refused, Terminal, first, reference
from tests.hub.tls import client_context, new_tls_key

Damage = Callable[[Terminal], bytes]


def garbage(_terminal: Terminal) -> bytes:
    return os.urandom(1000)


def nothing(_terminal: Terminal) -> bytes:
    return b""


def truncated(terminal: Terminal) -> bytes:
    body = terminal.encode(CertificateFrame(terminal.certificate.encode()), BlockFrame(terminal.taps(-250)))
    return body[:-1]


def without_hello(terminal: Terminal) -> bytes:
    return encode_frame(BlockFrame(terminal.taps(-250)))


def hello_twice(terminal: Terminal) -> bytes:
    return terminal.encode(BlockFrame(terminal.taps(-250))) + terminal.encode()


def foreign_hello(terminal: Terminal) -> bytes:
    return encode_frame(Hello(FleetId(bytes(16)), terminal.key.replica, {}))


def newer_protocol(terminal: Terminal) -> bytes:
    return encode_frame(Hello(terminal.fleet, terminal.key.replica, {}, protocol=9))


def frame_too_large(terminal: Terminal) -> bytes:
    return terminal.encode() + bytes([BlockFrame.TYPE]) + (2**31).to_bytes(4, "big")


def exchange_too_large(terminal: Terminal) -> bytes:
    filler = encode_frame(BlockFrame(os.urandom(200_000)))
    return terminal.encode() + filler * (MAX_EXCHANGE_BYTES // len(filler) + 1)


def settlement(terminal: Terminal) -> bytes:
    return terminal.encode(BlockFrame(terminal.taps(-250)), PageFrame(b"a page is the hub's to give"))


def damaged_certificate(terminal: Terminal) -> bytes:
    return terminal.encode(CertificateFrame(b"no certificate"), BlockFrame(terminal.taps(-250)))


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (garbage, None),
        (nothing, RefusalCode.MALFORMED),
        (truncated, RefusalCode.MALFORMED),
        (without_hello, RefusalCode.MALFORMED),
        (hello_twice, RefusalCode.MALFORMED),
        (foreign_hello, RefusalCode.FOREIGN_FLEET),
        (newer_protocol, RefusalCode.UNSUPPORTED),
        (frame_too_large, RefusalCode.TOO_LARGE),
        (exchange_too_large, RefusalCode.TOO_LARGE),
        (settlement, RefusalCode.NOT_PERMITTED),
        (damaged_certificate, None),
    ],
)
async def test_a_broken_exchange_is_refused_as_a_whole(
    depot: Depot, damage: Damage, code: RefusalCode | None
) -> None:
    """Invariant 8. Also the good blocks before the damage leave no trace: the exchange was not understood."""
    terminal = await depot.pair()
    events = await terminal.post(damage(terminal))
    refusal = first(events, "Refusal")
    assert code in (None, refusal.code)
    assert not any(isinstance(event, Ack) for event in events)
    assert await asyncio.wrap_future(depot.hub.ledger.heads()) == {}
    assert first(await terminal.push(*terminal.chain), "Hello")


def flipped(terminal: Terminal) -> bytes:
    block = terminal.taps(-250)
    return block[:-1] + bytes([block[-1] ^ 1])


def nonsense(_terminal: Terminal) -> bytes:
    return b"\x01" + os.urandom(300)


def of_another_fleet(terminal: Terminal) -> bytes:
    return seal(terminal.key, FleetId(bytes(16)), [delta(terminal, -250)], GENESIS).raw


def by_a_stranger(terminal: Terminal) -> bytes:
    stranger = replace(terminal, key=SigningKey(os.urandom(32)), chain=[])
    return stranger.taps(-250)


def minting(terminal: Terminal) -> bytes:
    return terminal.taps(100_000, kind=Kind.TOPUP)


def too_dear(terminal: Terminal) -> bytes:
    return terminal.taps(-10_001)


def after_a_gap(terminal: Terminal) -> bytes:
    terminal.taps(-250)
    return terminal.taps(-250)


def delta(terminal: Terminal, amount_minor: int) -> Delta:
    return Delta(terminal.key.replica, 1, CARD, Kind.FARE, amount_minor, NOON_MS)


@pytest.mark.parametrize(
    ("forge", "code"),
    [
        (flipped, RefusalCode.BAD_SIGNATURE),
        (nonsense, RefusalCode.MALFORMED),
        (of_another_fleet, RefusalCode.FOREIGN_FLEET),
        (by_a_stranger, RefusalCode.UNKNOWN_AUTHOR),
        (minting, RefusalCode.NOT_PERMITTED),
        (too_dear, RefusalCode.NOT_PERMITTED),
        (after_a_gap, RefusalCode.CHAIN_BROKEN),
    ],
)
async def test_a_bad_block_is_refused_by_name_and_does_not_stop_the_good_ones(
    depot: Depot, forge: Damage, code: RefusalCode
) -> None:
    """Invariants 8 and 10."""
    good, bad = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    events = await good.exchange(
        CertificateFrame(good.certificate.encode()),
        CertificateFrame(bad.certificate.encode()),
        BlockFrame(forge(bad)),
        BlockFrame(good.taps(-250)),
    )
    assert [event.code for event in events if isinstance(event, Refusal)] == [code]
    assert first(events, "Ack").frontier == {good.key.replica: good.head}
    assert await depot.digest() == await reference(good)


async def test_a_second_version_of_the_same_facts_is_a_fork(depot: Depot) -> None:
    terminal = await depot.pair()
    await terminal.push(terminal.taps(-250))
    digest = await depot.digest()
    terminal.head = Head(0, GENESIS)
    events = await terminal.push(terminal.taps(-180))
    assert first(events, "Refusal").code is RefusalCode.FORK_DETECTED
    assert await depot.digest() == digest


async def test_a_certificate_that_the_fleet_did_not_sign_enrols_nobody(depot: Depot) -> None:
    terminal = await depot.pair()
    forged = issue(
        SigningKey(b"not the fleet's key, but as long!"[:32]),
        TerminalId(bytes(16)),
        "Bus 1",
        Role.TERMINAL,
        terminal.key.public_key,
        Limits(CERTIFIED, 2**40, 2**40),
    )
    same_fleet = replace(forged, fleet=terminal.fleet)
    for certificate, code in ((forged, RefusalCode.FOREIGN_FLEET), (same_fleet, RefusalCode.BAD_SIGNATURE)):
        events = await terminal.exchange(CertificateFrame(certificate.encode()))
        assert first(events, "Refusal").code is code
    events = await terminal.exchange(BlockFrame(terminal.taps(5000, kind=Kind.TOPUP)))
    assert first(events, "Refusal").code is RefusalCode.NOT_PERMITTED


async def test_many_bad_blocks_bring_a_few_refusals(depot: Depot) -> None:
    terminal = await depot.pair()
    events = await terminal.exchange(*[BlockFrame(os.urandom(50)) for _ in range(2000)])
    assert sum(isinstance(event, Refusal) for event in events) == 16


async def test_an_endless_body_is_cut_off_at_the_size_of_an_exchange(depot: Depot) -> None:
    terminal = await depot.pair()
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield terminal.encode()
        filler = encode_frame(BlockFrame(os.urandom(100_000)))
        while True:
            sent += len(filler)
            yield filler

    headers = {"Content-Type": CONTENT_TYPE}
    async with (
        terminal.connect() as http,
        http.post(depot.url + SYNC, data=endless(), headers=headers) as response,
    ):
        events = terminal.session().receive_data(await response.read())
    assert first(events, "Refusal").code is RefusalCode.TOO_LARGE
    assert sent < 16 * MAX_EXCHANGE_BYTES
    assert await asyncio.wrap_future(depot.hub.ledger.heads()) == {}


async def test_a_body_of_another_type_is_refused(depot: Depot) -> None:
    terminal = await depot.pair()
    async with terminal.connect() as http, http.post(depot.url + SYNC, data={"a": "b"}) as response:
        assert response.status == 415
        assert (await response.json())["error"] == "content_type"


async def test_a_compressed_body_is_not_unpacked(depot: Depot) -> None:
    terminal = await depot.pair()
    headers = {"Content-Type": CONTENT_TYPE, "Content-Encoding": "deflate"}
    async with (
        terminal.connect() as http,
        http.post(
            depot.url + SYNC, data=io.BytesIO(zlib.compress(terminal.encode())), headers=headers
        ) as response,
    ):
        session = terminal.session()
        events = session.receive_data(await response.read())
    assert first(events, "Refusal").code is RefusalCode.MALFORMED


async def test_a_connection_that_breaks_off_within_a_body_is_an_everyday_thing(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = await depot.pair()
    body = terminal.encode(CertificateFrame(terminal.certificate.encode()), BlockFrame(terminal.taps(-250)))
    length = len(body) + 1
    head = (
        f"POST {SYNC} HTTP/1.1\r\nHost: x\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\n\r\n"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", depot.served.port, ssl=terminal.tls)
    writer.write(head.encode() + body)
    await writer.drain()
    writer.transport.abort()
    await depot.served.site.gate.empty.wait()
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    assert await asyncio.wrap_future(depot.hub.ledger.heads()) == {}


@pytest.mark.parametrize("founded", ["sync.exchanges = 1\n"], indirect=True)
async def test_more_exchanges_than_places_are_told_to_come_again(depot: Depot) -> None:
    """And when, in whole seconds; nothing of it was read, and a terminal leaves the hub alone until then."""
    slow, quick = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hesitant() -> AsyncIterator[bytes]:
        yield slow.encode()
        begun.set()
        await go_on.wait()

    async with slow.connect() as http:
        headers = {"Content-Type": CONTENT_TYPE}

        def post() -> asyncio.Task[aiohttp.ClientResponse]:
            async def posted() -> aiohttp.ClientResponse:
                return await http.post(depot.url + SYNC, data=hesitant(), headers=headers)

            return asyncio.create_task(posted())

        posting = post()
        await begun.wait()
        while True:  # until the hub has seen the first one's headers
            if posting.done():  # it came while the quick one had the only place
                (await posting).release()
                posting = post()
            try:
                await quick.exchange()
            except Refused as refused:
                assert (refused.status, refused.code) == (503, "busy")
                assert refused.retry_after == "1"
                break
        go_on.set()
        async with await posting as response:
            assert response.status == 200
    assert first(await quick.exchange(), "Hello")


async def test_a_hub_that_merges_all_it_can_says_when_to_come_again(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a hub without room for an exchange does: the terminal knows how long to leave it alone."""
    terminal = await depot.pair()
    monkeypatch.setattr(intake, "MAX_MERGING_BYTES", 0)
    with pytest.raises(Refused) as refused:
        await terminal.push(terminal.taps(-250))
    said = (refused.value.status, refused.value.code, refused.value.retry_after)
    assert said == (503, "busy", str(OVERLOADED_S))


async def test_tls_of_another_fleet_does_not_get_as_far_as_http(depot: Depot) -> None:
    terminal = await depot.pair()
    key = await asyncio.to_thread(new_tls_key)
    foreign = await asyncio.to_thread(lambda: Authority(new_secrets()))
    issued = foreign.client_certificate(key.csr_pem, terminal.certificate.terminal, terminal.key.replica)
    terminal.tls = await asyncio.to_thread(
        client_context, depot.hub.authority.root_pem, key.key_pem, issued.pem
    )
    with pytest.raises(aiohttp.ClientError):
        await terminal.exchange()


async def test_nothing_of_a_refused_exchange_is_in_the_record(depot: Depot) -> None:
    """The blocks of an exchange that breaks off are not even stored for later."""
    terminal = await depot.pair()
    await terminal.post(truncated(terminal))
    count = await asyncio.wrap_future(
        depot.hub.database.read(lambda sql: sql.execute(select(BLOCK.c.ordinal)).all())
    )
    assert count == []
    assert parse(terminal.chain[0]).last_seq == 1


def test_the_log_says_each_reason_once_and_not_every_block() -> None:
    """A hub that was put back does not know the cards' numbers in any block, and is sent all of them."""
    unknown = [RefusedInput(b"", UnknownCardNumber(f"no card has number {number}")) for number in range(40)]
    fork = RefusedInput(b"", ForkDetected("another block has these numbers"))
    assert refusals([*unknown, fork]) == [
        (logging.INFO, "40 blocks, UNKNOWN_CARD_NUMBER: no card has number 0"),
        (logging.WARNING, "1 block, FORK_DETECTED: another block has these numbers"),
    ]
