"""Accepting peers' connections: few, slowly, and each for a bounded time whatever it does.

A terminal is no server: it takes a handful of connections from machines of its own fleet. aiohttp has no
deadline for a handshake, for headers or for an answer nobody reads, so every connection is cut off at a
certain age; who wants more connects anew.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

log = logging.getLogger(__name__)

BACKLOG = 16


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """What peers may cost. Times in seconds."""

    connections: int = 24
    connections_per_address: int = 4
    accept_every_s: float = 0.02
    """A handshake costs milliseconds; a flood of them must leave the rest to the taps."""
    handshake_s: float = 5.0
    lifetime_s: float = 60.0
    body_s: float = 15.0
    """From a request's headers to the end of its body."""


class Connection(asyncio.Protocol):
    """Stands before aiohttp's protocol of one connection and ends it at its age."""

    def __init__(self, inner: asyncio.Protocol, lifetime_s: float, gone: Callable[[], None]) -> None:
        self._inner = inner
        self._lifetime_s = lifetime_s
        self._gone: Callable[[], None] | None = gone
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (what connect_accepted_socket makes)
        self._transport = transport
        self._end = asyncio.get_running_loop().call_later(self._lifetime_s, self.abort)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
        self.release()
        self._inner.connection_lost(exc)

    def abort(self) -> None:
        """Cut it off, without the courtesies a slow peer could drag out."""
        if self._transport is not None:
            self._transport.abort()

    def release(self) -> None:
        """Give its place back, once."""
        gone, self._gone = self._gone, None
        if gone is not None:
            gone()


class PeerSite:
    """Serves an aiohttp runner over TLS on one listening socket."""

    def __init__(
        self,
        runner: web.AppRunner,
        listener: socket.socket,
        context: Callable[[], ssl.SSLContext | None],
        limits: PeerLimits,
    ) -> None:
        """`context`: the TLS of the moment; None while this terminal has no identity to show."""
        self._runner = runner
        self._listener = listener
        self._context = context
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def run(self) -> None:
        """Accept until cancelled; then everything that is connected is cut off."""
        loop = asyncio.get_running_loop()
        arriving: set[asyncio.Task[None]] = set()
        try:
            while True:
                await asyncio.sleep(self._limits.accept_every_s)
                try:
                    connection, peer = await loop.sock_accept(self._listener)
                except OSError as error:
                    log.debug("a peer's connection was not accepted: %s", error)
                    continue
                context = self._context()
                if context is None or not self._admit(peer[0]):
                    connection.close()
                    continue
                task = loop.create_task(self._arrive(connection, peer[0], context))
                arriving.add(task)
                task.add_done_callback(arriving.discard)
        finally:
            for task in arriving:
                task.cancel()
            await asyncio.gather(*arriving, return_exceptions=True)
            for one in list(self._connections):
                one.abort()
            await self._empty.wait()

    def _admit(self, address: str) -> bool:
        limits = self._limits
        if self._open.total() >= limits.connections or self._open[address] >= limits.connections_per_address:
            log.debug("too many connections, closed one from %s", address)
            return False
        self._open[address] += 1
        self._empty.clear()
        return True

    async def _arrive(self, connection: socket.socket, address: str, context: ssl.SSLContext) -> None:
        def gone() -> None:
            self._connections.discard(guard)
            self._open[address] -= 1
            self._open += Counter()  # drops the zeros
            if not self._open:
                self._empty.set()

        serve = self._runner.server
        if serve is None:
            raise RuntimeError("the runner is not set up")
        guard = Connection(serve(), self._limits.lifetime_s, gone)
        self._connections.add(guard)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: guard,
                connection,
                ssl=context,
                ssl_handshake_timeout=self._limits.handshake_s,
                ssl_shutdown_timeout=self._limits.handshake_s,
            )
        except OSError as error:  # TimeoutError and ssl.SSLError are among them
            log.debug("no TLS with %s: %s", address, error)
            guard.release()
        except asyncio.CancelledError:
            guard.abort()
            guard.release()
            raise
