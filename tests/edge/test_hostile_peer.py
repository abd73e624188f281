"""A peer that is hostile: a typed refusal, nothing stored, bounded memory and time (invariant 8)."""

import asyncio
import contextlib
import dataclasses
import io
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import aiohttp
import pytest

from crdt.block import seal
from crdt.documents import SignedDocument
from crdt.errors import NotPermitted, RefusalCode
from crdt.facts import CardId, Context, Delta, Kind, ReplicaId
from crdt.frames import (
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Heads,
    Hello,
    Message,
    PageFrame,
    Refusal,
    Want,
    encode_frame,
)
from crdt.frontier import GENESIS, Head
from crdt.open_segment import OpenSegment
from crdt.protocol import CONTENT_TYPE, SYNC
from crdt.pull import Pull
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.session import Session
from crdt.terminal_status import Status
from crdt.tlsnames import TlsIdentity
from edge import delivery, peer_answering
from edge.addresses import HubAddress
from edge.errors import AnswerRefused, HubDistrusted, HubRefused, HubUnreachable
from edge.exchange import Answer, ExchangeClient, peer
from edge.pace import Pace
from edge.peer_answering import MAX_ANSWER_BYTES, PeerHeard
from edge.peer_site import PeerLimits
from edge.tls import client_context
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, PATIENCE_S, document
from tests.edge.doors import AT_MS, LIMITS, Door, compared, digests, doors, revoked

CARD = CardId(b"\x04\x01\x02\x03")
SOMEBODY = ReplicaId(b"somebody revoked")
QUICK = PeerLimits(connections=3, connections_per_address=2, handshake_s=0.3, lifetime_s=1.0, body_s=0.3)


@pytest.fixture
def two(tmp_path: Path, fleet: Fleet) -> Iterator[list[Door]]:
    with doors(tmp_path, fleet) as found:
        yield found


async def said(liar: Door, victim: Door, address: HubAddress, *messages: Message) -> Answer:
    """One exchange of the liar's with whatever messages after an honest HELLO."""
    hello = Hello(liar.identity.fleet, liar.replica)
    async with client(liar, victim) as line:
        return await line.exchange(address, [hello, CertificateFrame(own(liar)), *messages])


@contextlib.asynccontextmanager
async def client(liar: Door, victim: Door) -> AsyncIterator[ExchangeClient]:
    identity = liar.identity
    way = peer(victim.replica)
    line = ExchangeClient(identity.fleet, identity.replica, liar.presence.asking, LIMITS, other_side=way)
    async with line:
        yield line


def own(door: Door) -> bytes:
    return door.identity.certificate.encode()


async def state(door: Door) -> tuple[object, ...]:
    digest = await asyncio.to_thread(door.ledger.digest)
    return digest, door.ledger.status()["believed"], await asyncio.to_thread(door.ledger.frontier)


def fares(door: Door, amount_minor: int = -250, kind: Kind = Kind.FARE) -> list[Delta]:
    return [Delta(door.replica, 1, CARD, kind, amount_minor, AT_MS, Context())]


def sealed(door: Door, deltas: Sequence[Delta]) -> bytes:
    return seal(door.identity.keys.signing, door.identity.fleet, deltas, GENESIS).raw


async def test_a_block_with_a_wrong_signature_or_a_forbidden_kind_is_refused(two: list[Door]) -> None:
    """Invariant 10: nobody mints credit, whoever it is sent to; the forged block of another neither."""
    liar, victim = two
    before = await state(victim)
    block = bytearray(sealed(liar, fares(liar)))
    block[-1] ^= 1
    async with victim.answering() as address:
        for raw, code in (
            (bytes(block), RefusalCode.BAD_SIGNATURE),
            (sealed(liar, fares(liar, 5_000, Kind.TOPUP)), RefusalCode.NOT_PERMITTED),
            (b"garbage", RefusalCode.MALFORMED),
        ):
            answer = await said(liar, victim, address, BlockFrame(raw))
            assert [refusal.code for refusal in answer.refusals] == [code]
    assert await state(victim) == before


@pytest.mark.parametrize(
    "segment",
    [
        OpenSegment(Head(0, GENESIS), 1, b"garbage"),
        OpenSegment(Head(0, GENESIS), 4_000, b"\x01" * 200_000),
        OpenSegment(Head(7, b"h" * 32), 1, b"garbage"),
    ],
)
async def test_open_taps_that_cannot_be_are_not_believed(segment: OpenSegment, two: list[Door]) -> None:
    liar, victim = two
    async with victim.answering() as address:
        answer = await said(liar, victim, address, segment)
    assert answer.refusals
    assert (await state(victim))[1] == 0


async def test_open_taps_are_the_speakers_own_and_nobody_elses(tmp_path: Path, two: list[Door]) -> None:
    """HELLO has to name the replica of the TLS certificate, and a segment has no other owner."""
    liar, victim = two
    await asyncio.to_thread(liar.ride, CARD)
    segment = liar.ledger.open_segment()
    other = victim.replica
    async with victim.answering() as address, client(liar, victim) as line:
        with pytest.raises(HubRefused, match="another replica"):
            await line.exchange(address, [Hello(liar.identity.fleet, other), segment])
    assert (await state(victim))[1] == 0


async def test_a_revoked_terminal_is_refused_and_what_it_said_forgotten(
    two: list[Door], fleet: Fleet
) -> None:
    thief, victim = two
    await compared(thief, victim)
    await asyncio.to_thread(thief.ride, CARD)
    await compared(thief, victim)
    assert (await state(victim))[1] == 2
    await asyncio.to_thread(victim.ledger.put_document, revoked(fleet, {thief.replica: 0}))
    async with victim.answering() as address:
        with pytest.raises(HubRefused, match="revoked") as refusal:
            await said(thief, victim, address, thief.ledger.open_segment())
    assert refusal.value.code == "revoked"
    assert (await state(victim))[1] == 0


async def test_another_fleets_terminal_is_refused_by_tls(two: list[Door], tmp_path: Path) -> None:
    """Both ways: it gets no answer here, and is not asked."""
    ours = two[0]
    (tmp_path / "theirs").mkdir()
    identity = await asyncio.to_thread(Fleet(7).enrol)
    context = await asyncio.to_thread(client_context, identity)
    async with ours.answering() as address:
        line = ExchangeClient(
            identity.fleet, identity.replica, context, LIMITS, other_side=peer(ours.replica)
        )
        async with line:
            with pytest.raises(HubDistrusted):
                await line.exchange(address, [Hello(identity.fleet, identity.replica)])


async def test_without_a_certificate_nobody_is_answered(two: list[Door]) -> None:
    ours = two[0]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with ours.answering() as address, aiohttp.ClientSession() as http:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await http.post(address.url(SYNC), data=b"", ssl=context)


@pytest.mark.parametrize("message", [Status({"name": "x"}), PageFrame(b""), Heads({})])
async def test_what_is_for_a_hub_is_not_for_a_peer(message: Message, two: list[Door]) -> None:
    liar, victim = two
    async with victim.answering() as address:
        with pytest.raises(HubRefused, match="takes no"):
            await said(liar, victim, address, message)


async def test_a_list_of_revoked_terminals_is_a_hubs_or_none(two: list[Door], fleet: Fleet) -> None:
    """Invariant 8: a peer passes on what a hub has signed, newer than what is known, and nothing else."""
    liar, victim = two
    body = Revocations({victim.replica: 0}).encode()
    own = SignedDocument.seal(liar.identity.keys.signing, fleet.id, REVOKED_DOCUMENT, 9, body)
    other = Fleet(7)
    foreign = SignedDocument.seal(other.hub_key, other.id, REVOKED_DOCUMENT, 9, body)
    stranger = SignedDocument.seal(other.hub_key, fleet.id, REVOKED_DOCUMENT, 9, body)
    prices = document(fleet, FARES)
    hubs = [CertificateFrame(one.hub_certificate.encode()) for one in (fleet, other)]
    async with victim.answering() as address:
        for lie in (own, foreign, stranger, prices):
            answer = await said(liar, victim, address, *hubs, DocumentFrame(lie.encode()))
            assert [type(one) for one in answer.messages if isinstance(one, Refusal)] == [Refusal]
        with pytest.raises(HubRefused, match="one document"):
            await said(liar, victim, address, *[DocumentFrame(own.encode())] * 2)
        assert not (await asyncio.to_thread(victim.ledger.revocations)).cut_offs
        newer, older = revoked(fleet, {SOMEBODY: 0}, 2), revoked(fleet, {}, 1)
        for each in (newer, older):
            answer = await said(liar, victim, address, DocumentFrame(each.encode()), Pull())
            assert not answer.refusals
    assert (await asyncio.to_thread(victim.ledger.revocations)).cut_offs == {SOMEBODY: 0}
    assert [one for one in answer.messages if isinstance(one, DocumentFrame)] == [
        DocumentFrame(newer.encode())
    ]


async def post(door: Door, address: HubAddress, victim: Door, body: bytes, content_type: str) -> int:
    """Bytes that are no session; the HTTP status."""
    async with aiohttp.ClientSession() as http:
        response = await http.post(
            address.url(SYNC),
            data=io.BytesIO(body),
            ssl=door.presence.asking,
            headers={"Content-Type": content_type},
            server_hostname=peer(victim.replica).tls_name,
        )
        await response.read()
        return response.status


async def test_garbage_too_much_and_cut_short_leave_no_trace(two: list[Door]) -> None:
    """The session's own refusals: status 200 with one Refusal in it; other content an HTTP error."""
    liar, victim = two
    before = await state(victim)
    hello = encode_frame(Hello(liar.identity.fleet, liar.replica))
    huge = BlockFrame(b"x" * 200_000)
    async with victim.answering() as address:
        assert await post(liar, address, victim, b"x", "text/plain") == 415
        for body in (b"", b"garbage" * 100, hello[:-1], hello + b"\x04\xff\xff\xff\xff", hello * 2):
            assert await post(liar, address, victim, body, CONTENT_TYPE) == 200
        flood = hello + encode_frame(huge) * 30
        assert await post(liar, address, victim, flood, CONTENT_TYPE) == 200
    assert await state(victim) == before


async def test_one_bad_block_does_not_spoil_the_others(two: list[Door]) -> None:
    """Each block proves itself; who brought it does not matter."""
    liar, victim = two
    good = BlockFrame(sealed(liar, fares(liar)))
    async with victim.answering() as address, client(liar, victim) as line:
        hello = Hello(liar.identity.fleet, liar.replica)
        answer = await line.exchange(address, [hello, CertificateFrame(own(liar)), good, BlockFrame(b"")])
        assert [refusal.code for refusal in answer.refusals] == [RefusalCode.MALFORMED]
    assert await asyncio.to_thread(victim.balance, CARD) == -250


async def test_wanting_everything_again_and_again_is_bounded(two: list[Door]) -> None:
    """An answer has so many bytes and no more, and there are so many of them in a second."""
    liar, victim = two
    for number in range(3):
        for card in range(400):
            await asyncio.to_thread(victim.ride, CardId((number * 1_000 + card).to_bytes(7, "big")))
        await asyncio.to_thread(victim.ledger.seal)
    pace = Pace(5, 0.0, time.monotonic)
    async with victim.answering(pace=pace) as address:
        for _ in range(5):
            answer = await said(liar, victim, address, Want({}, others=True))
            size = sum(len(one.raw) for one in answer.messages if isinstance(one, BlockFrame))
            assert 0 < size <= MAX_ANSWER_BYTES
        with pytest.raises(HubRefused, match="too often"):
            await said(liar, victim, address, Want({}, others=True))


async def test_a_peer_that_says_nothing_is_cut_off(two: list[Door]) -> None:
    """Before TLS, after TLS, within the headers, within the body: every connection has an end."""
    liar, victim = two
    name = peer(victim.replica).tls_name
    request = f"POST {SYNC} HTTP/1.1\r\nHost: x\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: 99\r\n"
    async with victim.answering(limits=QUICK) as address:
        beginnings = [(False, ""), (True, ""), (True, request[:40]), (True, f"{request}\r\nx")]
        for tls, begin in beginnings:
            reader, writer = await asyncio.open_connection(
                address.host,
                address.port,
                ssl=liar.presence.asking if tls else None,
                server_hostname=name if tls else None,
            )
            writer.write(begin.encode())
            async with asyncio.timeout(PATIENCE_S):
                with contextlib.suppress(ConnectionError):
                    await reader.read()
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
        await compared(liar, victim)


async def test_only_so_many_connections_are_taken(two: list[Door]) -> None:
    """Those beyond are closed at once, and the places come back."""
    liar, victim = two
    async with victim.answering(limits=QUICK) as address:
        held = [await asyncio.open_connection(address.host, address.port) for _ in range(2)]
        reader, writer = await asyncio.open_connection(address.host, address.port)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
            for mute, _ in held:
                with contextlib.suppress(ConnectionError):
                    await mute.read()
        for _, opened in [*held, (reader, writer)]:
            opened.close()
            with contextlib.suppress(ConnectionError):
                await opened.wait_closed()
        async with liar.asking(victim.replica, address) as sync:
            await sync.run()


async def test_what_a_peer_answers_is_not_believed_either(two: list[Door], fleet: Fleet) -> None:
    """The asking side: forged blocks and impossible segments in an answer change nothing."""
    ours, liar = two
    before = await state(ours)
    forged = bytearray(sealed(liar, fares(liar)))
    forged[-1] ^= 1

    async def lie(_messages: Sequence[Message]) -> Answer:
        hello = Hello(fleet.id, liar.replica, {liar.replica: Head(9, b"h" * 32)})
        segment = OpenSegment(Head(0, GENESIS), 1, b"garbage")
        return Answer(hello, (CertificateFrame(own(liar)), BlockFrame(bytes(forged)), segment), None, 1)

    async with ours.asking(liar.replica, HubAddress("127.0.0.1", 1)) as sync:
        run = dataclasses.replace(sync, exchange=lie)
        with pytest.raises(AnswerRefused):
            await run.run()
        with pytest.raises(AnswerRefused):
            await run.tell()
    assert (await state(ours))[:2] == before[:2]


async def test_nobody_at_the_announced_address_is_no_trouble(two: list[Door]) -> None:
    ours, gone = two
    async with ours.asking(gone.replica, HubAddress("127.0.0.1", 1)) as sync:
        with pytest.raises(HubUnreachable, match="No terminal answers at"):
            await sync.run()


def test_a_session_is_heard_in_bounded_memory(two: list[Door]) -> None:
    """Certificates cost a verification each, so there are only so many of them."""
    liar, victim = two
    session = Session(victim.identity.fleet, victim.replica)
    heard = PeerHeard(TlsIdentity(liar.identity.certificate.terminal, liar.replica))
    certificate = encode_frame(CertificateFrame(own(liar)))
    data = encode_frame(Hello(liar.identity.fleet, liar.replica)) + certificate * 65
    with pytest.raises(NotPermitted, match="At most 64"):
        for event in session.receive_data(data):
            heard.take(event)


async def test_nobody_fills_a_terminal_with_one_authors_entries(
    two: list[Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded memory: whoever asks, so much of one author is carried until the hub has settled it."""
    monkeypatch.setattr(peer_answering, "MAX_HELD_OF_ONE", 3)
    victim, hostile = two
    for count in (4, 1):
        for _ in range(count):
            await asyncio.to_thread(hostile.ride, CARD)
        await asyncio.to_thread(hostile.ledger.seal)
        await compared(victim, hostile)
        await compared(hostile, victim)
        held = await asyncio.to_thread(victim.ledger.frontier)
        assert held[hostile.replica].seq == 5  # an opening and four rides, in one block


async def test_a_peer_brings_so_many_entries_at_a_time(
    two: list[Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left lying comes again, so that both agree in the end."""
    monkeypatch.setattr(delivery, "MAX_EXCHANGE_DELTAS", 2)
    one, other = two
    for _ in range(5):
        await asyncio.to_thread(one.ride, CARD)
        await asyncio.to_thread(one.ledger.seal)
    await compared(one, other)
    assert len(await digests(one, other)) == 1
