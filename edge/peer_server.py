"""What peers may ask of this terminal: one thing, a sync exchange, over TLS that shows who they are.

    POST SYNC    a session each way (crdt.frames), as with a hub; the answers are edge.peer_answering's

Refusals: about the request as a whole (no terminal's certificate, revoked, too busy) as an HTTP status and
{"error": code, "message": sentence}; about what is in the session as `Refusal` messages in the answer.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus

from aiohttp import web

from crdt.errors import InputRefused, LedgerError
from crdt.facts import ReplicaId, TerminalId
from crdt.frames import Hello
from crdt.protocol import CONTENT_TYPE, SYNC
from crdt.session import Session
from edge.errors import EdgeError, PeersUnusable, Superseded
from edge.pace import Pace
from edge.peer_answering import PeerAnswer, PeerAnswerer, PeerHeard
from edge.peer_site import BACKLOG, PeerLimits, PeerSite
from edge.presence import Presence, Presences
from edge.terminal import Terminal
from edge.tls import caller
from edge.vehicle_header import vehicle_header

MAX_EXCHANGES = 4
"""In progress at a time, of all peers; one of each."""
CHUNK_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class PeerServer:
    """Answers peers, in the event loop; ledger and keys are used in threads."""

    def __init__(
        self,
        terminal: Terminal,
        presences: Presences,
        heard: Callable[[ReplicaId, PeerAnswer], object],
        vehicle: Callable[[], str],
        pace: Pace,
        limits: PeerLimits,
    ) -> None:
        """`heard` is told of each exchange that was answered; `vehicle`: which this terminal is on."""
        self._terminal = terminal
        self._presences = presences
        self._heard = heard
        self._vehicle = vehicle
        self._pace = pace
        self._limits = limits
        self._busy: set[TerminalId] = set()

    @asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Answer on this socket until the block ends."""
        app = web.Application(client_max_size=CHUNK_BYTES, middlewares=[_errors])
        app.add_routes([web.post(SYNC, self._sync)])
        runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=self._limits.lifetime_s,
            shutdown_timeout=1.0,
            lingering_time=1.0,
            auto_decompress=False,  # nobody here sends compressed bodies but who wants to fill the memory
        )
        await runner.setup()
        site = PeerSite(runner, listener, self._context, self._limits)
        accepting = asyncio.create_task(site.run())
        try:
            yield
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            await runner.cleanup()

    def _context(self) -> ssl.SSLContext | None:
        presence = self._presences.now
        return None if presence is None else presence.answering

    async def _sync(self, request: web.Request) -> web.Response:
        """POST SYNC"""
        presence = self._presences.now
        tls = None if request.transport is None else request.transport.get_extra_info("ssl_object")
        if presence is None or not isinstance(tls, ssl.SSLObject):
            raise Superseded("The terminal is becoming another; come again.")
        who = caller(tls)
        if request.content_type != CONTENT_TYPE:
            return _error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content_type", f"A sync is {CONTENT_TYPE}.")
        if not self._pace.admits(who.terminal):
            return _error(HTTPStatus.TOO_MANY_REQUESTS, "too_often", "That is too often; come again later.")
        with self._slot(who.terminal) as free:
            if not free:
                return _error(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "The terminal is busy; come again.")
            session = Session(presence.identity.fleet, presence.identity.replica)
            heard = PeerHeard(who)
            async with asyncio.timeout(self._limits.body_s):
                await _hear(request, session, heard)
            if heard.refused is not None:
                log.warning("refused an exchange of peer %s: %s", who.replica.hex(), heard.refused.text)
                hello = Hello(presence.identity.fleet, presence.identity.replica)
                return self._session(session, PeerAnswer([hello, heard.refused.answer()]))
            answer = await asyncio.to_thread(self._answer, presence, heard)
        self._heard(who.replica, answer)
        return self._session(session, answer)

    def _session(self, session: Session, answer: PeerAnswer) -> web.Response:
        body, headers = b"".join(map(session.send, answer.messages)), vehicle_header(self._vehicle())
        return web.Response(body=body, content_type=CONTENT_TYPE, headers=headers)

    def _answer(self, presence: Presence, heard: PeerHeard) -> PeerAnswer:
        with self._terminal.syncing(presence.identity):
            return PeerAnswerer(presence.identity, presence.ledger, presence.acquaintances).answer(heard)

    @contextmanager
    def _slot(self, terminal: TerminalId) -> Iterator[bool]:
        """A place for one exchange of a terminal; whether there was one."""
        if terminal in self._busy or len(self._busy) >= MAX_EXCHANGES:
            yield False
            return
        self._busy.add(terminal)
        try:
            yield True
        finally:
            self._busy.discard(terminal)


def listen(port: int) -> socket.socket:
    """A listening socket on every IPv4 address; port 0 takes any. Raises PeersUnusable with a sentence."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", port))  # noqa: S104  (it is there to be reached)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PeersUnusable(
            f"Port {port} cannot be used for peers ({error.strerror or error}). Set peers.port to a free one,"
            " or to 0 for any."
        ) from error
    listener.setblocking(False)
    return listener


async def _hear(request: web.Request, session: Session, heard: PeerHeard) -> None:
    """Everything the peer says, to the end of the request; in bounded memory (the session's limits)."""
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        for event in session.receive_data(chunk):
            heard.take(event)
        if heard.refused is not None:
            return
        await asyncio.sleep(0)  # a flood of small frames must not keep other tasks waiting
    for event in session.receive_eof():
        heard.take(event)


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _error(HTTPStatus(error.status), "request", error.reason)
    except TimeoutError:
        return _error(HTTPStatus.REQUEST_TIMEOUT, "too_slow", "The request did not come in time.")
    except InputRefused as error:
        return _error(HTTPStatus.FORBIDDEN, error.code.name.lower(), str(error))
    except (EdgeError, LedgerError) as error:
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, "trouble", str(error))


def _error(status: HTTPStatus, code: str, message: str) -> web.Response:
    response = web.json_response({"error": code, "message": message}, status=status)
    response.force_close()
    return response
