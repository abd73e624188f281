"""A bus's router: what it carries, what it refuses, and what pulling the cable does to open connections."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from hub.demo import proxy
from hub.demo.proxy import Refused, Router, parse_connect

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server that sends back what it gets; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.fixture
async def router(echo: int) -> AsyncIterator[Router]:
    router = Router(echo)
    await router.start()
    yield router
    await router.close()


@pytest.fixture
async def dial(router: Router) -> AsyncIterator[Callable[[], Awaitable[Stream]]]:
    """Opens connections to the router, and closes them after the test."""
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Stream:
        port = int(router.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        opened.append(writer)
        return reader, writer

    yield connect
    for writer in opened:
        writer.transport.abort()


async def ask(stream: Stream, target: str) -> bytes:
    """Sends CONNECT and returns the status line."""
    reader, writer = stream
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    return head.split(b"\r\n")[0]


async def test_carries_bytes_both_ways_to_the_hub(dial: Callable[[], Awaitable[Stream]], echo: int) -> None:
    stream = await dial()
    assert b"200" in await ask(stream, f"127.0.0.1:{echo}")
    hello = b"\x16\x03\x01 not looked at"
    stream[1].write(hello)
    assert await stream[0].readexactly(len(hello)) == hello


async def test_a_closed_side_reaches_the_other_end(
    dial: Callable[[], Awaitable[Stream]], router: Router, echo: int
) -> None:
    stream = await dial()
    await ask(stream, f"127.0.0.1:{echo}")
    stream[1].write(b"last words")
    stream[1].write_eof()
    assert await stream[0].read() == b"last words"
    await drained(router)


async def test_cut_breaks_what_is_open_and_refuses_what_comes_until_restored(
    dial: Callable[[], Awaitable[Stream]], router: Router, echo: int
) -> None:
    stream = await dial()
    await ask(stream, f"127.0.0.1:{echo}")
    router.cut()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await stream[0].readexactly(1)
    assert b"503" in await ask(await dial(), f"127.0.0.1:{echo}")
    router.restore()
    assert b"200" in await ask(await dial(), f"127.0.0.1:{echo}")


@pytest.mark.parametrize(
    ("target", "status"),
    [("127.0.0.1:1", b"403"), ("127.0.0.1", b"400"), (":443", b"400"), ("host:99999", b"400")],
)
async def test_carries_nothing_but_the_way_to_the_hub(
    dial: Callable[[], Awaitable[Stream]], target: str, status: bytes
) -> None:
    assert status in await ask(await dial(), target)


@pytest.mark.parametrize("host", ["192.0.2.1", "localhost", "[::]", "[2001:db8::1]", "hub.example"])
async def test_other_machines_are_not_reached_at_the_hubs_port(
    dial: Callable[[], Awaitable[Stream]], echo: int, host: str
) -> None:
    """The router would be a way for anybody on this machine to the whole network."""
    assert b"403" in await ask(await dial(), f"{host}:{echo}")


async def test_an_endless_request_head_is_refused(dial: Callable[[], Awaitable[Stream]]) -> None:
    reader, writer = await dial()
    writer.write(b"CONNECT x:1 HTTP/1.1\r\n" + b"A: b\r\n" * 4000)
    assert b"431" in await reader.readuntil(b"\r\n")


async def test_a_silent_client_is_not_waited_for(
    dial: Callable[[], Awaitable[Stream]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "REQUEST_TIMEOUT_S", 0.05)
    reader, writer = await dial()
    writer.write(b"CONNECT half")
    assert b"408" in await reader.readuntil(b"\r\n")


async def test_more_connections_than_the_cap_are_dropped(
    dial: Callable[[], Awaitable[Stream]], monkeypatch: pytest.MonkeyPatch, echo: int
) -> None:
    monkeypatch.setattr(proxy, "MAX_CONNECTIONS", 1)
    first = await dial()
    assert b"200" in await ask(first, f"127.0.0.1:{echo}")
    second = await dial()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await second[0].readexactly(1)
    first[1].write(b"still here")
    assert await first[0].readexactly(10) == b"still here"


async def test_a_hub_that_is_not_there_is_said_so(unused_port: int) -> None:
    router = Router(unused_port)
    await router.start()
    stream = await asyncio.open_connection("127.0.0.1", int(router.url.rpartition(":")[2]))
    assert b"502" in await ask(stream, f"127.0.0.1:{unused_port}")
    stream[1].transport.abort()
    await router.close()


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    return port


def test_an_ipv6_target_is_understood() -> None:
    assert parse_connect(b"CONNECT [fd00::2]:8443 HTTP/1.1\r\n\r\n") == ("fd00::2", 8443)


@pytest.mark.parametrize(
    "head",
    [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\r\n\r\n", b"CONNECT a:1\r\n\r\n", b"CONNECT a:1 FTP/1\r\n\r\n"],
)
def test_anything_but_connect_is_refused(head: bytes) -> None:
    with pytest.raises(Refused):
        parse_connect(head)


async def drained(router: Router) -> None:
    """Waits until the router has let go of its connections (the test's time limit is the bound)."""
    while router.open_connections:  # noqa: ASYNC110  (the router keeps no event for a test)
        await asyncio.sleep(0.01)
