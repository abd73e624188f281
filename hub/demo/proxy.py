"""A bus's router: the one way from a terminal to its hub, with a cable that can be pulled.

An HTTP CONNECT proxy (RFC 9110 §9.3.6) on loopback. It carries bytes and reads none of them: TLS stays
between terminal and hub. Cut, it answers 503 to new requests and drops what is open, in the middle of a
byte stream.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator
from typing import Final

MAX_REQUEST_BYTES: Final = 8 * 1024
MAX_CONNECTIONS: Final = 32
REQUEST_TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 10.0
PIPE_BYTES: Final = 64 * 1024


class Refused(Exception):
    """This request is not carried; the message is the status line to answer with."""


class Router:
    """Carries CONNECT requests to one port number of loopback addresses, as long as it is not cut."""

    def __init__(self, port_allowed: int) -> None:
        self._port_allowed = port_allowed
        self._cut = False
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listens on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=MAX_REQUEST_BYTES)

    @property
    def url(self) -> str:
        """What goes into a terminal's settings as its proxy."""
        if self._server is None:
            raise RuntimeError("the router is not started")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def is_cut(self) -> bool:
        return self._cut

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def cut(self) -> None:
        """Pulls the cable: what is open is closed at once, what comes is refused."""
        self._cut = True
        for writer in self._writers:
            writer.transport.abort()

    def restore(self) -> None:
        """Plugs the cable in again."""
        self._cut = False

    async def close(self) -> None:
        """Stops listening and waits for the last connection to be gone."""
        if self._server is None:
            return
        self._server.close()
        self.cut()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        # A task of our own: the one that asyncio makes for a coroutine complains when it is cancelled.
        task = asyncio.create_task(self._carry(reader, writer), name="router connection")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # OSError and a half message: either end went away, or the cable did, which is what this router is
        # for.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with self._tracked(writer):
                await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            host, port = await self._request(reader)
            upstream = await self._connect(host, port)
        except Refused as refused:
            writer.write(f"HTTP/1.1 {refused}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            return
        async with self._tracked(upstream[1]):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            if self._cut:
                return
            await asyncio.gather(_pipe(reader, upstream[1]), _pipe(upstream[0], writer))

    async def _request(self, reader: asyncio.StreamReader) -> tuple[str, int]:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            raise Refused("408 Request Timeout") from None
        except asyncio.LimitOverrunError:
            raise Refused("431 Request Header Fields Too Large") from None
        if self._cut:
            raise Refused("503 This bus has no network")
        host, port = parse_connect(head)
        if port != self._port_allowed or not _is_loopback(host):  # the demo's hub listens nowhere else
            raise Refused("403 Only the hub is reached from here")
        return host, port

    @staticmethod
    async def _connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await asyncio.open_connection(host, port)
        except (OSError, TimeoutError):
            raise Refused("502 The hub does not answer") from None

    @contextlib.asynccontextmanager
    async def _tracked(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        """Keeps a connection where `cut` finds it, and closes it whatever happens."""
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def parse_connect(head: bytes) -> tuple[str, int]:
    """Host and port of a request's head; anything but CONNECT host:port is Refused."""
    try:
        method, target, version = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
    except ValueError:
        raise Refused("400 Bad Request") from None
    if method != "CONNECT" or not version.startswith("HTTP/1."):
        raise Refused("405 Only CONNECT is served here")
    host, colon, port = target.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise Refused("400 Bad Request")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which might be anybody's
        return False


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries bytes one way to the end, then half-closes the other side; a break breaks both."""
    try:
        while data := await reader.read(PIPE_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()
