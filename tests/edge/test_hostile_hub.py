"""A hub that answers wrongly: a typed refusal, nothing stored, taps unaffected (invariant 8)."""

import asyncio
import dataclasses
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from crdt.documents import TERMINAL_DOCUMENT
from crdt.errors import RefusalCode
from crdt.facts import Draft, Kind
from crdt.frames import Ack, DocumentFrame, Message, Refusal
from crdt.frontier import Head
from crdt.protocol import CONTENT_TYPE
from crdt.store.database import Database
from edge.addresses import AddressBook, HubAddress
from edge.errors import AnswerRefused, HubDistrusted, HubRefused, HubUnreachable, LedgerBehind, UplinkError
from edge.exchange import ExchangeClient
from edge.https import Limits
from edge.identity import Identity
from edge.sync import Sync
from edge.terminal import Terminal
from edge.tls import client_context
from tests.edge.authority import Fleet, server_context
from tests.edge.conftest import FARES, document
from tests.edge.jobs import running
from tests.edge.lies import CARD, LIES, UNREADABLE, Lie, hello, page
from tests.edge.test_uplink import enrolled, ride, uplink_of
from tests.edge.testhub import Misbehaviour, TestHub, answer, open_ledger

LIMITS = Limits(total_s=20, read_s=20)


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    return TestHub(fleet, await asyncio.to_thread(open_ledger, hub_database, fleet))


async def synced(terminal: Terminal, address: HubAddress, limits: Limits = LIMITS) -> None:
    """One run of the sync, without the uplink around it: raises what the uplink would catch."""
    identity = enrolled(terminal).identity
    context = await asyncio.to_thread(client_context, identity)
    async with ExchangeClient(identity.fleet, identity.replica, context, limits) as client:
        await Sync(
            terminal, enrolled(terminal), lambda messages: client.exchange(address, messages), dict
        ).run()


def stored(terminal: Terminal) -> tuple[object, ...]:
    """Everything that a hub can change on a terminal."""
    now = enrolled(terminal)
    return (
        now.ledger.digest(),
        now.ledger.settled(),
        now.ledger.status()["position"],
        now.fares,
        now.fares_version,
        now.document,
        now.ledger.document(TERMINAL_DOCUMENT),
    )


def telling(fleet: Fleet, lie: Lie) -> Misbehaviour:
    """Lies about everything but the blocks it has taken."""

    async def misbehave(_request: web.Request, honest: list[Message]) -> web.StreamResponse:
        took_blocks = any(isinstance(message, Ack) for message in honest)
        return answer(honest) if took_blocks else lie(fleet, honest)

    return misbehave


@pytest.mark.parametrize("name", [*UNREADABLE, *LIES])
async def test_a_lie_is_refused_by_its_type_and_nothing_is_stored(
    name: str, paired: Terminal, fleet: Fleet, hub: TestHub, tmp_path: Path
) -> None:
    """And whatever this terminal will not take, an older program perhaps, its taps arrive."""
    code, lie = (UNREADABLE | LIES)[name]
    await asyncio.to_thread(ride, paired, CARD)
    await asyncio.to_thread(enrolled(paired).ledger.seal)
    before = await asyncio.to_thread(stored, paired)
    hub.misbehave = telling(fleet, lie)
    async with hub.serving(tmp_path) as address:
        with pytest.raises(AnswerRefused) as refusal:
            await synced(paired, address)
    assert refusal.value.code is code
    assert str(refusal.value).isprintable()
    assert await asyncio.to_thread(stored, paired) == before
    assert hub.blocks_received == (1 if name in LIES else 0)
    await asyncio.to_thread(ride, paired, CARD)
    assert enrolled(paired).ledger.status()["head_seq"] == 3, "taps go on"


async def test_an_honest_page_would_have_been_stored(
    paired: Terminal, fleet: Fleet, hub: TestHub, tmp_path: Path
) -> None:
    """The other side of the test above: the same page, rightly signed, does give the card its money."""
    hub.misbehave = telling(fleet, lambda fleet, honest: hello(fleet, page(fleet, fleet.hub_key)))
    async with hub.serving(tmp_path) as address:
        await synced(paired, address)
    view = await asyncio.to_thread(enrolled(paired).ledger.view, CARD)
    assert view.balance_minor == 5_000


async def test_replayed_fares_never_replace_newer_ones(
    paired: Terminal, fleet: Fleet, hub: TestHub, tmp_path: Path
) -> None:
    await asyncio.to_thread(paired.adopt, document(fleet, FARES, version=5))
    free = document(fleet, dataclasses.replace(FARES, flat_fare_minor=0), version=4)
    hub.misbehave = telling(fleet, lambda fleet, honest: hello(fleet, DocumentFrame(free.encode())))
    async with hub.serving(tmp_path) as address:
        await synced(paired, address)
    assert (enrolled(paired).fares, enrolled(paired).fares_version) == (FARES, 5)


@pytest.mark.parametrize(
    ("lie", "error", "says"),
    [
        (lambda fleet, honest: web.Response(status=500, text="<h1>oops</h1>"), HubRefused, "HTTP 500"),
        (
            lambda fleet, honest: web.json_response(
                {"error": "revoked", "message": "Bus 12 was revoked.\x1b[2J"}, status=403
            ),
            HubRefused,
            "The hub refused: Bus 12 was revoked.?[2J",
        ),
        (lambda fleet, honest: web.json_response([1], status=403), HubRefused, "HTTP 403"),
        (
            lambda fleet, honest: web.Response(status=302, headers={"Location": "https://192.0.2.1/"}),
            HubRefused,
            "HTTP 302",
        ),
        (
            lambda fleet, honest: hello(fleet, Refusal(RefusalCode.REVOKED, "You were revoked.")),
            HubRefused,
            "The hub refused: You were revoked.",
        ),
        (
            lambda fleet, honest: web.Response(status=500, body=b"x" * 100_000),
            AnswerRefused,
            "larger than 65536 bytes",
        ),
    ],
)
async def test_a_refusal_of_the_hub_is_shown_in_its_words_made_safe(
    lie: Lie,
    error: type[UplinkError],
    says: str,
    paired: Terminal,
    fleet: Fleet,
    hub: TestHub,
    tmp_path: Path,
) -> None:
    hub.misbehave = telling(fleet, lie)
    async with hub.serving(tmp_path) as address:
        with pytest.raises(error) as refusal:
            await synced(paired, address)
        assert says in str(refusal.value)
        uplink = uplink_of(paired, AddressBook(address, None))
        async with running(uplink):
            assert (await uplink.sync_now()).trouble == str(refusal.value)


async def test_a_hub_that_holds_more_than_the_terminal_proves_a_restored_image(
    paired: Terminal, fleet: Fleet, hub: TestHub, tmp_path: Path
) -> None:
    replica = enrolled(paired).identity.replica
    hub.misbehave = telling(fleet, lambda fleet, honest: hello(fleet, frontier={replica: Head(9, b"h" * 32)}))
    async with hub.serving(tmp_path) as address:
        with pytest.raises(LedgerBehind, match="old copy of the storage"):
            await synced(paired, address)


@pytest.mark.parametrize("confirmed", [None, 2, 99])
async def test_a_hub_that_confirms_nothing_or_too_much_is_not_believed(
    confirmed: int | None, paired: Terminal, fleet: Fleet, hub: TestHub, tmp_path: Path
) -> None:
    """An answer to blocks without a right Ack must not become an endless loop, nor count as delivered."""
    replica = enrolled(paired).identity.replica
    ack = Ack({} if confirmed is None else {replica: Head(confirmed, b"h" * 32)})

    async def confirm(_request: web.Request, honest: list[Message]) -> web.StreamResponse:
        return answer([honest[0], ack] if isinstance(honest[1], Ack) else honest)

    await asyncio.to_thread(ride, paired, CARD)
    async with hub.serving(tmp_path) as address:
        await synced(paired, address)
        await asyncio.to_thread(ride, paired, CARD)
        hub.heard.clear()
        hub.misbehave = confirm
        with pytest.raises(AnswerRefused, match="does not confirm"):
            await synced(paired, address)
    assert len(hub.heard) == 2


async def test_an_answer_that_stops_in_the_middle(
    paired: Terminal, fleet: Fleet, hub: TestHub, tmp_path: Path
) -> None:
    """Cut off in a body whose length was announced: damaged, not merely late."""

    async def cut(request: web.Request, honest: list[Message]) -> web.StreamResponse:
        whole = bytes(answer(honest).body)  # type: ignore[arg-type]  # bytes
        response = web.StreamResponse(
            headers={"Content-Type": CONTENT_TYPE, "Content-Length": str(len(whole))}
        )
        await response.prepare(request)
        await response.write(whole[:20])
        assert request.transport is not None
        request.transport.abort()
        return response

    hub.misbehave = cut
    async with hub.serving(tmp_path) as address:
        with pytest.raises((AnswerRefused, HubUnreachable)):
            await synced(paired, address)


@pytest.mark.parametrize("limits", [Limits(total_s=600, read_s=0.2), Limits(total_s=0.3, read_s=600)])
async def test_a_hub_that_says_nothing_or_drips_is_given_up(
    limits: Limits, paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """Both time-outs: silence within an exchange, and an exchange that never ends."""
    given_up = asyncio.Event()

    async def drip(request: web.Request, _honest: list[Message]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE})
        await response.prepare(request)
        while limits.total_s < 1 and not given_up.is_set():
            await response.write(b"\0")
            await asyncio.sleep(0.05)
        await given_up.wait()
        return response

    hub.misbehave = drip
    async with hub.serving(tmp_path) as address:
        try:
            with pytest.raises((HubUnreachable, AnswerRefused)):
                await synced(paired, address, limits)
        finally:
            given_up.set()


async def test_nobody_there(paired: Terminal) -> None:
    with pytest.raises(HubUnreachable, match="No hub answers at 127.0.0.1:1"):
        await synced(paired, HubAddress("127.0.0.1", 1))


async def test_a_server_without_tls(paired: Terminal) -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises((HubDistrusted, HubUnreachable)):
            await synced(paired, HubAddress("127.0.0.1", port))


async def test_a_stranger_and_a_stolen_terminal_learn_nothing(
    paired: Terminal, fleet: Fleet, hub: TestHub, tmp_path: Path
) -> None:
    thief: Identity = fleet.enrol()

    def stolen() -> ssl.SSLContext:
        return server_context(tmp_path, thief.tls_certificate_pem, thief.keys.tls_key_pem, thief.tls_root_pem)

    for context in (Fleet(7).server_context(tmp_path), stolen()):
        async with hub.serving(tmp_path, context=context) as address:
            with pytest.raises(HubDistrusted, match="is not this fleet's hub"):
                await synced(paired, address)
    assert hub.heard == []


async def test_the_right_hub_after_all_these(paired: Terminal, hub: TestHub, tmp_path: Path) -> None:
    """And an honest hub still gets everything."""
    await asyncio.to_thread(ride, paired, CARD)
    await asyncio.wrap_future(hub.ledger.append(CARD, [Draft(Kind.TOPUP, 100)], 1_780_000_000_000))
    async with hub.serving(tmp_path) as address:
        await synced(paired, address)
    assert enrolled(paired).ledger.held() == (0, 0)
    assert await asyncio.wrap_future(hub.ledger.balance(CARD)) == 850
