"""Slow, half-open and idle connections are timed out and capped (issue: bad input; invariant 8)."""

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pytest
from aiohttp import web

from hub.authority import Authority, new_secrets
from hub.connections import ConnectionLimits, Gate, GuardedSite
from hub.server import FILES, make_room
from hub.shield import deadlines
from tests.hub.tls import client_context, server_context

FOR_EVER = 3600.0
PATIENT = ConnectionLimits(
    connections=100,
    connections_per_address=100,
    handshake_timeout_s=FOR_EVER,
    header_timeout_s=FOR_EVER,
    body_timeout_s=FOR_EVER,
    send_timeout_s=FOR_EVER,
)
AT_ONCE = 0.05
BIG = b"x" * 8_000_000  # more than the kernel buffers of both ends together


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(new_secrets())


class Served:
    """A small application behind the hub's own site."""

    def __init__(self, site: GuardedSite, port: int, authority: Authority) -> None:
        self.site = site
        self.port = port
        self.tls = client_context(authority.root_pem)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("localhost", self.port, ssl=self.tls)


Serve = Callable[..., contextlib.AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(authority: Authority) -> Serve:
    @contextlib.asynccontextmanager
    async def running(limits: ConnectionLimits, idle_timeout_s: float = FOR_EVER) -> AsyncIterator[Served]:
        app = web.Application(middlewares=[deadlines])
        app.add_routes([web.get("/", hello), web.post("/", echo_length), web.get("/big", big)])
        runner = web.AppRunner(app, keepalive_timeout=idle_timeout_s, shutdown_timeout=0.1)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        context = await asyncio.to_thread(server_context, authority)
        site = GuardedSite(runner, [listener], context, limits)
        await site.start()
        try:
            yield Served(site, listener.getsockname()[1], authority)
        finally:
            await runner.cleanup()
            await site.drop_all()

    return running


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def echo_length(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


async def big(_request: web.Request) -> web.Response:
    return web.Response(body=BIG)


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """Everything until the hub ends the connection; the test's own time limit is the only clock."""
    received = bytearray()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65536):
            received += data
    return bytes(received)


async def test_a_handshake_that_stops_half_way_is_timed_out(serve: Serve) -> None:
    async with serve(replace(PATIENT, handshake_timeout_s=AT_ONCE)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(bytes.fromhex("1603010100"))  # the first bytes of a TLS record, and then nothing
        assert await until_closed(reader) == b""
        writer.close()
        await served.site.gate.empty.wait()


async def test_headers_that_never_end_are_timed_out(serve: Serve) -> None:
    async with serve(replace(PATIENT, header_timeout_s=AT_ONCE)) as served:
        reader, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert await until_closed(reader) == b""
        writer.close()
        await served.site.gate.empty.wait()


async def test_a_connection_that_never_says_anything_is_timed_out(serve: Serve) -> None:
    async with serve(replace(PATIENT, header_timeout_s=AT_ONCE)) as served:
        reader, writer = await served.connect()
        assert await until_closed(reader) == b""
        writer.close()


async def test_a_body_that_never_ends_is_timed_out(serve: Serve) -> None:
    async with serve(replace(PATIENT, body_timeout_s=AT_ONCE)) as served:
        reader, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\npart")
        assert await until_closed(reader) == b""
        writer.close()
        await served.site.gate.empty.wait()


async def test_an_answer_that_nobody_reads_is_timed_out(serve: Serve) -> None:
    async with serve(replace(PATIENT, send_timeout_s=AT_ONCE)) as served:
        reader, writer = await served.connect()
        writer.write(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await served.site.gate.empty.wait()  # the hub let go, though nothing was read here
        assert len(await until_closed(reader)) < len(BIG)
        writer.close()


async def test_an_idle_connection_is_closed_also_with_half_a_second_request(serve: Serve) -> None:
    async with serve(PATIENT, idle_timeout_s=AT_ONCE) as served:
        reader, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHos")
        assert (await until_closed(reader)).endswith(b"\r\n\r\nhello")
        writer.close()


async def test_a_quick_exchange_outlives_every_deadline(serve: Serve) -> None:
    limits = replace(PATIENT, header_timeout_s=2, body_timeout_s=2, send_timeout_s=2)
    async with serve(limits) as served:
        reader, writer = await served.connect()
        for _ in range(3):
            writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody")
            assert (await reader.readuntil(b"\r\n\r\n4")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.8)  # together longer than any of the deadlines
        writer.close()


async def test_connections_above_the_cap_are_closed_and_places_come_back(serve: Serve) -> None:
    async with serve(replace(PATIENT, connections_per_address=2)) as served:
        held = [await served.connect() for _ in range(2)]
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await served.connect()
        for _, writer in held:
            writer.close()
        await served.site.gate.empty.wait()
        _, writer = await served.connect()
        assert served.site.gate.total == 1
        writer.close()


async def test_half_open_connections_count_too(serve: Serve) -> None:
    async with serve(replace(PATIENT, connections=1)) as served:
        _, silent = await asyncio.open_connection("127.0.0.1", served.port)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await served.connect()
        silent.close()


async def test_garbage_instead_of_tls_or_http_does_no_harm(serve: Serve) -> None:
    async with serve(PATIENT) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await until_closed(reader)
        writer.close()
        reader, writer = await served.connect()
        writer.write(b"\x00\xff garbage\r\n\r\n")
        assert (await until_closed(reader)).startswith(b"HTTP/1.0 400")
        writer.close()
        await served.site.gate.empty.wait()
        reader, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await until_closed(reader)).endswith(b"hello")
        writer.close()


async def test_endless_headers_are_cut_off(serve: Serve) -> None:
    async with serve(PATIENT) as served:
        reader, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\n" + b"X-More: and more\r\n" * 10_000)
        assert (await until_closed(reader)).startswith(b"HTTP/1.0 400")
        writer.close()


def test_one_address_cannot_take_the_places_of_others() -> None:
    gate = Gate(replace(PATIENT, connections=3, connections_per_address=2))
    assert [gate.admit("a"), gate.admit("a"), gate.admit("a"), gate.admit("b"), gate.admit("c")] == [
        True,
        True,
        False,
        True,
        False,
    ]
    gate.release("a")
    assert gate.admit("c")


@pytest.fixture
def file_limit() -> Iterator[tuple[int, int]]:
    """The soft and hard limit of open files, put back afterwards."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield limits
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_there_is_a_file_for_every_connection(file_limit: tuple[int, int]) -> None:
    """server.connections counts on its own: a shell's limit of 1,024 files does not."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (900, file_limit[1]))
    make_room(1000)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1000 + FILES


def test_a_limit_that_cannot_be_raised_is_told(
    file_limit: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Rather than connections that fail one day, for no reason that anybody sees."""
    make_room(file_limit[1])
    assert "raise LimitNOFILE" in caplog.text
