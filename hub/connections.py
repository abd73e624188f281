"""Accepting connections: counted, capped, and each under a deadline at every stage.

aiohttp bounds what a request may hold (headers, queue of pipelined requests) and how long a connection may
idle; it has no deadline for the first headers, for a body, or for an answer nobody reads. Those are here: a
site that accepts sockets itself, so that a connection counts from its first packet, and a thin protocol
around aiohttp's that holds the deadlines.
"""

import asyncio
import asyncio.sslproto
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from aiohttp import web

log = logging.getLogger(__name__)

ACCEPT_PAUSE_S = 0.5  # after running out of file descriptors or memory
BACKLOG = 256
# What a connection holds to read into, for as long as it is open. asyncio's own 256 KiB would be most of the
# memory of a hub with thousands of terminals, and TLS hands over at most 16 KiB at a time anyway.
TLS_READ_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a connection may cost. Times in seconds."""

    connections: int
    connections_per_address: int
    handshake_timeout_s: float
    header_timeout_s: float
    body_timeout_s: float
    send_timeout_s: float


class Gate:
    """Counts connections, in total and per address, and says no above the limits."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._total = 0
        self.empty = asyncio.Event()
        self.empty.set()

    @property
    def total(self) -> int:
        """Connections open now."""
        return self._total

    def admit(self, address: str) -> bool:
        """Count one more connection from `address`; False, and not counted, when that is too many."""
        limits = self._limits
        if self._total >= limits.connections or self._open[address] >= limits.connections_per_address:
            return False
        self._open[address] += 1
        self._total += 1
        self.empty.clear()
        return True

    def release(self, address: str) -> None:
        """A counted connection is gone."""
        self._total -= 1
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]
        if not self._total:
            self.empty.set()


class Guard(asyncio.Protocol):
    """Stands before aiohttp's protocol of one connection and cuts it off when the peer takes too long.

    Deadlines: from the handshake to the first request's headers (`header_timeout_s`), for the body of each
    request (`body_timeout_s`, see `request_began`), and for a full send buffer to drain (`send_timeout_s`).
    Between requests aiohttp's own keep-alive timer rules, also over half-sent headers.
    """

    def __init__(
        self, serve: Callable[[], asyncio.Protocol], limits: ConnectionLimits, gone: Callable[[], None]
    ):
        self._serve = serve
        self._limits = limits
        self._gone: Callable[[], None] | None = gone
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (what connect_accepted_socket makes)
        self._transport = transport
        self._reading = self._after(self._limits.header_timeout_s, self.abort)
        self._inner = self._serve()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._sending is None:
            self._sending = self._after(self._limits.send_timeout_s, self.abort)
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._cancel(self._sending)
        self._sending = None
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel(self._reading)
        self._cancel(self._sending)
        inner, self._inner = self._inner, None
        self.release()
        if inner is not None:
            inner.connection_lost(exc)

    def request_began(self, body_done: Callable[[], bool]) -> None:
        """The headers of a request are in; from here its body has `body_timeout_s` until `body_done()`."""
        self._cancel(self._reading)
        self._reading = None
        if not body_done():
            self._reading = self._after(self._limits.body_timeout_s, partial(self._abort_unless, body_done))

    def request_ended(self) -> None:
        """The answer is made; aiohttp sees to the rest of the body, if any, and to the wait for more."""
        self._cancel(self._reading)
        self._reading = None

    def abort(self) -> None:
        """Cut the connection off, without the courtesies a slow peer could drag out."""
        if self._transport is not None:
            self._transport.abort()

    def _abort_unless(self, done: Callable[[], bool]) -> None:
        if not done():
            self.abort()

    def release(self) -> None:
        """Give the place of this connection back, once."""
        gone, self._gone = self._gone, None
        if gone is not None:
            gone()

    def _after(self, delay_s: float, call: Callable[[], object]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay_s, call)

    @staticmethod
    def _cancel(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


class GuardedSite(web.BaseSite):
    """Serves an aiohttp runner over TLS on sockets that are already bound and listening."""

    def __init__(
        self,
        runner: web.AppRunner,
        sockets: list[socket.socket],
        context: ssl.SSLContext,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(runner, ssl_context=context)
        self._sockets = sockets
        self._context = context
        self._limits = limits
        self._serve = runner.server
        self.gate = Gate(limits)
        self._guards: set[Guard] = set()
        self._accepting: list[asyncio.Task[None]] = []
        self._arriving: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """The address for people."""
        host, port = self._sockets[0].getsockname()[:2]
        return f"https://{host}:{port}"

    async def start(self) -> None:
        """Begin to accept."""
        await super().start()
        asyncio.sslproto.SSLProtocol.max_size = TLS_READ_BYTES  # read by each connection as it is made
        self._accepting = [asyncio.create_task(self._accept(listener)) for listener in self._sockets]

    async def stop(self) -> None:
        """Accept no more; connections that are still shaking hands are dropped, others stay."""
        tasks = [*self._accepting, *self._arriving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._sockets:
            listener.close()
        await super().stop()

    async def drop_all(self) -> None:
        """Cut off whatever is still connected, and wait until it is gone."""
        for guard in list(self._guards):
            guard.abort()
        await self.gate.empty.wait()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # gone before it was accepted
            except OSError as error:
                log.warning("cannot accept connections for the moment: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            if not self.gate.admit(peer[0]):
                log.warning("too many connections, closed one from %s", peer[0])
                connection.close()
                continue
            task = loop.create_task(self._arrive(connection, peer[0]))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _arrive(self, connection: socket.socket, address: str) -> None:
        def gone() -> None:
            self._guards.discard(guard)
            self.gate.release(address)

        guard = Guard(self._new_protocol, self._limits, gone)
        self._guards.add(guard)
        _notice_dead_peers(connection, self._limits.send_timeout_s)
        timeout_s = self._limits.handshake_timeout_s
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: guard,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=timeout_s,
                ssl_shutdown_timeout=timeout_s,
            )
        except (OSError, TimeoutError) as error:
            log.debug("no TLS with %s: %s", address, error)
            guard.release()
        except asyncio.CancelledError:
            guard.abort()
            guard.release()
            raise

    def _new_protocol(self) -> asyncio.Protocol:
        if self._serve is None:
            raise RuntimeError("the runner is not set up")
        return self._serve()


def _notice_dead_peers(connection: socket.socket, timeout_s: float) -> None:
    """Notice a peer that vanished without a word: by probes, or by data that it never acknowledges."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))
