"""The hub as one: live events from the ledger, what happens when a part fails, a change of the network."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable

import pytest

from crdt.errors import StoreFailed
from crdt.facts import Kind
from crdt.frames import BlockFrame, CertificateFrame
from crdt.protocol import CONTENT_TYPE, SYNC
from crdt.store.database import Database
from hub import app, background
from hub.announce import EVERY, Interface
from hub.app import Hub
from hub.events import Event, EventBus, Topic
from hub.notify import ServiceManager
from hub.server import listen, url_of
from tests.hub.conftest import Depot
from tests.hub.terminal import CARD, first

UID = CARD.hex().upper()


async def until(bus: EventBus, wanted: Event, doing: Awaitable[object]) -> None:
    with bus.subscribe() as events:
        await doing
        async with asyncio.timeout(30):
            while await anext(events) != wanted:
                pass


async def test_what_changes_is_told_live(depot: Depot) -> None:
    terminal = await depot.pair("Bus 1")
    bus = depot.bus
    await until(bus, Event(Topic.LEDGER, (UID,)), terminal.push(terminal.taps(500, kind=Kind.OPENING)))
    await until(bus, Event(Topic.CARDS, (UID,)), depot.ask("POST", f"/cards/{UID}/block", {}))
    identity = terminal.certificate.terminal.hex()
    await until(bus, Event(Topic.TERMINALS, (identity,)), terminal.exchange())
    await until(bus, Event(Topic.FLEET), depot.ask("POST", "/fleet", {"flat_fare": "3"}))
    await until(bus, Event(Topic.TERMINALS), depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 1"}))


@pytest.mark.in_file("the disk is the hub's own")
async def test_a_hub_whose_database_failed_ends_with_a_sentence(
    founded: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync nobody knows what is on disk: systemd starts the hub anew."""
    monkeypatch.setattr(background, "FAILURE_POLL_S", 0.01)
    listeners = await asyncio.to_thread(listen, "127.0.0.1", 0)
    up = asyncio.Event()
    serving = asyncio.create_task(app._serve(founded, listeners, ServiceManager({}), lambda _line: up.set()))
    await up.wait()
    assert isinstance(founded.database, Database)
    founded.database._health.fail("the disk is on fire")
    with pytest.raises(StoreFailed, match="the disk is on fire.*until the program is started again"):
        await serving


@pytest.mark.parametrize("founded", ["announce.poll_s = 1\n"], indirect=True)
async def test_a_new_address_of_the_machine_gets_into_the_certificate(
    founded: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    interfaces = [Interface("127.0.0.1", 1)]
    monkeypatch.setattr(app, "local_interfaces", lambda: tuple(interfaces))
    listeners = await asyncio.to_thread(listen, "127.0.0.1", 0)
    async with app.serving(founded, listeners) as served:
        client = await asyncio.to_thread(ssl.create_default_context, cadata=founded.authority.root_pem)
        assert not await certified(client, served.port, "192.0.2.7")
        interfaces.append(Interface("192.0.2.7", 2))
        while not await certified(client, served.port, "192.0.2.7"):
            pass
        assert await certified(client, served.port, "127.0.0.1")


async def certified(client: ssl.SSLContext, port: int, host: str) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=host)
    except ssl.SSLCertVerificationError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@pytest.mark.parametrize(
    "founded", ["server.header_timeout_s = 1\nserver.body_timeout_s = 1\nsync.exchanges = 1\n"], indirect=True
)
async def test_slow_headers_and_a_slow_sync_body_are_cut_off_and_their_places_come_back(depot: Depot) -> None:
    """Invariant 8, through the settings; what the slow exchange had brought is not kept."""
    terminal = await depot.pair("Bus 1")
    body = terminal.encode(CertificateFrame(terminal.certificate.encode()), BlockFrame(terminal.taps(-250)))
    head = f"POST {SYNC} HTTP/1.1\r\nHost: hub\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: 9999\r\n"
    for said in (head.encode(), head.encode() + b"\r\n" + body):
        reader, writer = await asyncio.open_connection("127.0.0.1", depot.served.port, ssl=terminal.tls)
        writer.write(said)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert await reader.read() == b""
        writer.close()
    assert await asyncio.wrap_future(depot.hub.ledger.heads()) == {}
    await depot.served.site.gate.empty.wait()
    assert first(await terminal.push(*terminal.chain), "Ack")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "https://localhost:8443"),
        (EVERY[4], "https://localhost:8443"),
        (EVERY[6], "https://localhost:8443"),
        ("127.0.0.1", "https://127.0.0.1:8443"),
        ("2001:db8::7", "https://[2001:db8::7]:8443"),
        ("depot.example", "https://depot.example:8443"),
    ],
)
def test_the_address_that_is_printed_can_be_opened(host: str, url: str) -> None:
    assert url_of(host, 8443) == url
