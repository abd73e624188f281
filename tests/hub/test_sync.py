"""The sync endpoint over real TLS: honest blocks are kept once, whatever else comes changes nothing."""

import asyncio
import io
import os
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import aiohttp
import pytest
from sqlalchemy import delete, select

from crdt.block import parse, seal
from crdt.certificate import Limits, Role, issue
from crdt.documents import FLEET_DOCUMENT, FleetDocument, SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import CardId, Delta, FleetId, Kind, TerminalId
from crdt.frames import (
    MAX_EXCHANGE_BYTES,
    Ack,
    BlockFrame,
    CertificateFrame,
    Hello,
    PageFrame,
    Pull,
    Refusal,
    Status,
    encode_frame,
)
from crdt.frontier import GENESIS, Head
from crdt.ledger import Ledger
from crdt.protocol import CONTENT_TYPE, SYNC
from crdt.session import Ended
from crdt.settlement import verify_page
from crdt.signing import SigningKey
from crdt.store.schema import BLOCK
from hub import tables
from hub.authority import Authority, new_secrets
from tests.hub.conftest import Depot
from tests.hub.terminal import CARD, NOON_MS, Refused, Terminal, first
from tests.hub.tls import NOW, client_context, new_tls_key


async def reference(*terminals: Terminal) -> bytes:
    """The digest of the in-memory model that holds these terminals' blocks."""
    ledger = Ledger(terminals[0].fleet_public_key)
    for terminal in terminals:
        ledger.merge(terminal.chain, [terminal.certificate])
    return ledger.digest()


async def test_blocks_are_acknowledged_and_the_ledger_agrees_with_the_model(depot: Depot) -> None:
    terminal = await depot.pair()
    events = await terminal.push(terminal.taps(500, kind=Kind.OPENING), terminal.taps(-250, -180))
    assert [type(event) for event in events] == [Hello, Ack, Ended]
    assert first(events, "Ack").frontier == {terminal.key.replica: terminal.head}
    assert await asyncio.wrap_future(depot.hub.ledger.balance(CARD)) == 70
    assert await depot.digest() == await reference(terminal)


async def test_the_same_exchange_twice_counts_once(depot: Depot) -> None:
    """Invariant 2: replayed blocks change nothing, and are acknowledged again."""
    terminal = await depot.pair()
    body = terminal.encode(CertificateFrame(terminal.certificate.encode()), BlockFrame(terminal.taps(-250)))
    before = await terminal.post(body)
    digest = await depot.digest()
    after, again = await asyncio.gather(terminal.post(body), terminal.post(body))
    assert first(after, "Ack") == first(again, "Ack") == first(before, "Ack")
    assert await depot.digest() == digest == await reference(terminal)


async def test_a_terminal_may_carry_the_blocks_of_another(depot: Depot) -> None:
    carrier, silent = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    block = silent.taps(-180)
    events = await carrier.exchange(CertificateFrame(silent.certificate.encode()), BlockFrame(block))
    assert first(events, "Ack").frontier == {silent.key.replica: silent.head}
    assert await depot.digest() == await reference(silent)


async def test_the_hub_tells_its_heads_of_the_replicas_named_and_of_the_terminals_own(depot: Depot) -> None:
    one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await one.push(one.taps(-250))
    await other.push(other.taps(-180))
    hello = first(await one.exchange(), "Hello")
    assert dict(hello.frontier) == {one.key.replica: one.head}
    hello = first(await one.exchange(frontier={other.key.replica: Head(9, bytes(32))}), "Hello")
    assert dict(hello.frontier) == {one.key.replica: one.head, other.key.replica: other.head}


async def test_a_pull_brings_the_signed_settlement_and_the_fares(depot: Depot) -> None:
    terminal = await depot.pair()
    await terminal.push(terminal.taps(500, kind=Kind.OPENING))
    await depot.ask("POST", "/topup", {"card": CARD.hex(), "amount": "12.50", "request": "till-1-0001"})
    await depot.ask("POST", f"/cards/{CARD.hex()}/block", {})
    events = await terminal.exchange(Pull())
    document = SignedDocument.decode(first(events, "DocumentFrame").raw).verify(terminal.hub_certificate)
    assert (document.name, document.version) == (FLEET_DOCUMENT, 1)
    assert FleetDocument.load(document.body).settings.flat_fare_minor == 250
    (page,) = await terminal.pull()
    verify_page(page, terminal.hub_certificate)
    (row,) = page.rows
    assert (row.card, row.state.balance_minor, row.hotlisted) == (CARD, 1750, True)
    assert page.heads[terminal.key.replica] == terminal.head


async def test_fares_that_the_terminal_has_are_not_sent_again(depot: Depot) -> None:
    terminal = await depot.pair()
    events = await terminal.exchange(Pull(document_version=1))
    assert [type(event) for event in events] == [Hello, PageFrame, Ended]
    await depot.ask("POST", "/fleet", {"flat_fare": "3.10"})
    document = SignedDocument.decode(
        first(await terminal.exchange(Pull(document_version=1)), "DocumentFrame").raw
    )
    assert document.version == 2
    assert FleetDocument.load(document.body).settings.flat_fare_minor == 310


@pytest.mark.parametrize("founded", ["sync.page_rows = 2\n"], indirect=True)
async def test_a_long_settlement_comes_in_pages_that_follow_each_other(depot: Depot) -> None:
    terminal = await depot.pair()
    cards = [CardId(bytes([4, 0, 0, number])) for number in range(5)]
    for card in cards:
        terminal.taps(100, card=card, kind=Kind.OPENING)
    await terminal.push(*terminal.chain)
    pages = await terminal.pull()
    assert [len(page.rows) for page in pages] == [2, 2, 1]
    assert sorted(row.card for page in pages for row in page.rows) == cards


async def test_what_a_terminal_says_of_itself_is_shown(depot: Depot) -> None:
    terminal = await depot.pair("Bus 7")
    (row,) = await depot.ask("GET", "/terminals")
    assert (row["online"], row["last_seen_ms"], row["held"]) == (False, None, None)
    await terminal.push(terminal.taps(-250, -250))
    await terminal.exchange(Status({"held": 3, "held_minor": -750, "head_seq": 5, "position": 0, "x": "y"}))
    (row,) = await depot.ask("GET", "/terminals")
    assert (row["name"], row["online"], row["address"]) == ("Bus 7", True, "127.0.0.1")
    assert (row["held"], row["held_minor"], row["reported_seq"], row["head_seq"]) == (3, -750, 5, 2)


async def test_a_status_of_nonsense_is_shown_as_unknown(depot: Depot) -> None:
    terminal = await depot.pair()
    await terminal.exchange(Status({"held": "many", "position": True, "head_seq": None, "held_minor": [1]}))
    (row,) = await depot.ask("GET", "/terminals")
    assert (row["held"], row["position"], row["reported_seq"], row["held_minor"]) == (None, None, None, None)


# ---- Who may speak ----


async def test_without_a_certificate_nothing_is_taken(depot: Depot) -> None:
    terminal = await depot.pair()
    terminal.tls = await depot.browser_tls()
    with pytest.raises(Refused) as caught:
        await terminal.push(terminal.taps(-250))
    assert (caught.value.status, caught.value.code) == (403, "unknown_author")


async def test_a_revoked_terminal_is_refused_at_once_also_on_an_open_connection(depot: Depot) -> None:
    terminal = await depot.pair("Bus 9")
    async with terminal.connect() as http:
        await terminal.push(terminal.taps(-250), http=http)
        digest = await depot.digest()
        await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 9"})
        with pytest.raises(Refused) as caught:
            await terminal.push(terminal.taps(-250), http=http)
        assert len(http.connector._conns) == 1  # type: ignore[union-attr]  # it was the same connection
    assert (caught.value.status, caught.value.code) == (403, "revoked")
    with pytest.raises(Refused):
        await terminal.exchange(Pull())
    assert await depot.digest() == digest
    (row,) = await depot.ask("GET", "/terminals")
    assert row["revoked"]


async def test_what_a_revoked_terminal_earned_before_is_taken_from_others(depot: Depot) -> None:
    stolen, honest = await depot.pair("Bus 9"), await depot.pair("Bus 10")
    block = stolen.taps(-250)
    await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 9"})
    events = await honest.exchange(CertificateFrame(stolen.certificate.encode()), BlockFrame(block))
    assert first(events, "Ack").frontier == {stolen.key.replica: stolen.head}


async def test_a_certificate_of_the_fleet_that_the_registry_does_not_know_is_refused(depot: Depot) -> None:
    terminal = await depot.pair()
    gone = delete(tables.client_certificate)
    await asyncio.wrap_future(depot.hub.database.write(lambda sql: sql.execute(gone) and None))
    with pytest.raises(Refused, match="pair the terminal again") as caught:
        await terminal.exchange(Pull())
    assert (caught.value.status, caught.value.code) == (403, "unknown_author")


async def test_the_hub_says_how_a_certificate_stands(depot: Depot) -> None:
    terminal = await depot.pair("Bus 1")

    async def standing() -> object:
        async with terminal.connect() as http, http.get(depot.url + "/api/v1/identify") as response:
            return (await response.json())["certificate"]

    assert await standing() == "good"
    await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 1"})
    assert await standing() == "revoked"
    terminal.tls = await depot.browser_tls()
    assert await standing() == "none"


async def test_hello_must_name_the_replica_of_the_certificate(depot: Depot) -> None:
    one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    block = other.taps(-250)
    body = other.encode(CertificateFrame(other.certificate.encode()), BlockFrame(block))
    events = await one.post(body)
    assert first(events, "Refusal").code is RefusalCode.NOT_PERMITTED
    assert await asyncio.wrap_future(depot.hub.ledger.heads()) == {}


# ---- Bad input: a typed refusal, nothing stored ----

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
        Limits(frozenset(Kind), 2**40, 2**40),
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
    slow, quick = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hesitant() -> AsyncIterator[bytes]:
        yield slow.encode()
        begun.set()
        await go_on.wait()

    async with slow.connect() as http:
        headers = {"Content-Type": CONTENT_TYPE}
        posting = asyncio.create_task(http.post(depot.url + SYNC, data=hesitant(), headers=headers))
        await begun.wait()
        while True:  # until the hub has seen the first one's headers
            try:
                await quick.exchange()
            except Refused as refused:
                assert (refused.status, refused.code) == (503, "busy")
                break
        go_on.set()
        async with await posting as response:
            assert response.status == 200
    assert first(await quick.exchange(), "Hello")


async def test_tls_of_another_fleet_does_not_get_as_far_as_http(depot: Depot) -> None:
    terminal = await depot.pair()
    key = await asyncio.to_thread(new_tls_key)
    foreign = await asyncio.to_thread(lambda: Authority(new_secrets()))
    issued = foreign.client_certificate(key.csr_pem, terminal.certificate.terminal, NOW)
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
