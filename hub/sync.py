"""The sync endpoint: a terminal's bytes through the session into the ledger, settlement and fares back.

Who it is comes from the TLS certificate, whose serial number is looked up on every request. Nothing is merged
before the whole request was received and understood, so bytes that break off or break the protocol leave no
trace. A terminal may carry blocks of others: what counts is the author's own certificate and signature.

Refusals: about the request as a whole (no certificate, revoked, too busy) as an HTTP error with JSON; about
what is in the session as `Refusal` messages in the answer, beside the `Ack` of what was taken.
"""

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from aiohttp import web

from crdt.certificate import AuthorCertificate
from crdt.documents import FLEET_DOCUMENT
from crdt.errors import InputRefused, Malformed, NotPermitted, Revoked, UnknownAuthor
from crdt.facts import TerminalId
from crdt.frames import (
    Ack,
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Hello,
    PageFrame,
    Pull,
    Refusal,
    Status,
)
from crdt.ledger import MergeReport
from crdt.protocol import CONTENT_TYPE, PROTOCOL_VERSION
from crdt.session import Ended, Event, Refused, Session
from crdt.store.hub import HubLedger
from hub.authority import serial_of
from hub.errors import RequestRefused
from hub.events import EventBus, Topic
from hub.registry import REVOKED, Client, Registry

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024
MAX_CERTIFICATES = 1024  # in one exchange; each costs a signature verification
MAX_REFUSALS = 16  # in one answer; the first ones say what is wrong
EXCHANGES_PER_TERMINAL = 2  # at a time: a terminal needs one, and one that it has given up


@dataclass(slots=True)
class Heard:
    """What a terminal said in one exchange."""

    hello: Hello | None = None
    status: Status | None = None
    pull: Pull | None = None
    certificates: list[AuthorCertificate] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    refused: Refused | None = None  # it broke the protocol; nothing of it counts


class Slots:
    """Bounds the exchanges in progress, in all and per terminal, and with them the memory they hold."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[TerminalId] = Counter()

    @contextmanager
    def taken(self, terminal: TerminalId) -> Iterator[None]:
        """A place for one exchange; RequestRefused when there is none."""
        if self._taken.total() >= self._most or self._taken[terminal] >= EXCHANGES_PER_TERMINAL:
            raise RequestRefused(
                "busy",
                "The hub has as many exchanges as it takes on; come again.",
                HTTPStatus.SERVICE_UNAVAILABLE,
            )
        self._taken[terminal] += 1
        try:
            yield
        finally:
            self._taken[terminal] -= 1
            if not self._taken[terminal]:
                del self._taken[terminal]


class Sync:
    """The handlers of SYNC and IDENTIFY."""

    def __init__(
        self,
        ledger: HubLedger,
        registry: Registry,
        bus: EventBus,
        slots: Slots,
        page_rows: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._bus = bus
        self._slots = slots
        self._page_rows = page_rows
        self._now_ms = now_ms

    async def sync(self, request: web.Request) -> web.Response:
        """POST SYNC"""
        client = await self._client(request)
        if request.content_type != CONTENT_TYPE:
            raise RequestRefused(
                "content_type", f"A sync request is {CONTENT_TYPE}.", HTTPStatus.UNSUPPORTED_MEDIA_TYPE
            )
        with self._slots.taken(client.terminal):
            session = Session(self._ledger.fleet, self._ledger.replica)
            heard = await _hear(request, session, client)
            if heard.refused is not None or heard.hello is None:
                return self._refuse(session, client, heard)
            body = await self._answer(session, client, heard, request.remote or "")
        return web.Response(body=body, content_type=CONTENT_TYPE)

    async def identify(self, request: web.Request) -> web.Response:
        """GET IDENTIFY: whose hub this is, and what it thinks of the caller's certificate."""
        standing = "none"
        if _certificate(request):
            client = await self._registry.client(_serial(request))
            standing = "unknown" if client is None else client.stopped or "good"
        return web.json_response(
            {"fleet": self._ledger.fleet.hex(), "protocol": PROTOCOL_VERSION, "certificate": standing}
        )

    async def _client(self, request: web.Request) -> Client:
        client = await self._registry.client(_serial(request))
        if client is None:
            raise UnknownAuthor("This hub did not issue the certificate; pair the terminal again.")
        if client.stopped:
            why = (
                "was revoked" if client.stopped == REVOKED else "was paired anew and has another certificate"
            )
            raise Revoked(f"The terminal {client.name} {why}.")
        return client

    async def _answer(self, session: Session, client: Client, heard: Heard, address: str) -> bytes:
        report = await self._merge(heard)
        status = None if heard.status is None else dict(heard.status.values)
        await self._registry.saw(client.terminal, self._now_ms(), address, status)
        self._bus.publish(Topic.TERMINALS, (client.terminal.hex(),))
        asked = {client.replica, *(heard.hello.frontier if heard.hello is not None else ())}
        heads = await asyncio.wrap_future(self._ledger.heads(sorted(asked)))
        parts = [session.hello(heads)]
        if report is not None:
            parts.append(session.send(Ack(report.heads)))
            parts += [session.send(Refusal.of(refused.error)) for refused in report.refused[:MAX_REFUSALS]]
            self._log(client, report)
        if heard.pull is not None:
            parts += [part async for part in self._settlement(session, heard.pull)]
        return b"".join(parts)

    async def _merge(self, heard: Heard) -> MergeReport | None:
        if not heard.blocks and not heard.certificates:
            return None
        return await asyncio.wrap_future(self._ledger.merge(heard.blocks, heard.certificates))

    async def _settlement(self, session: Session, pull: Pull) -> AsyncIterator[bytes]:
        document = await asyncio.wrap_future(self._ledger.document(FLEET_DOCUMENT))
        if document is not None and document.version > pull.documents.get(FLEET_DOCUMENT, 0):
            yield session.send(DocumentFrame(document.encode()))
        page = await asyncio.wrap_future(
            self._ledger.page(pull.series, pull.base, pull.after, self._page_rows)
        )
        yield session.send(PageFrame(page.raw))

    def _refuse(self, session: Session, client: Client, heard: Heard) -> web.Response:
        refused = heard.refused
        if refused is None:
            raise Malformed("the session has no HELLO")
        log.warning("refused an exchange of %s: %s: %s", client.name, refused.code.name, refused.text)
        body = session.hello({}) + session.send(refused.answer())
        return web.Response(body=body, content_type=CONTENT_TYPE)

    def _log(self, client: Client, report: MergeReport) -> None:
        log.debug("%s brought %d new blocks, %d known", client.name, len(report.added), report.known)
        for refused in report.refused[:MAX_REFUSALS]:
            log.warning(
                "refused a block from %s: %s: %s", client.name, refused.error.code.name, refused.error
            )


async def _hear(request: web.Request, session: Session, client: Client) -> Heard:
    """Everything the terminal says, to the end of the request; in bounded memory (the session's limits)."""
    heard = Heard()
    try:
        async for chunk in request.content.iter_chunked(CHUNK_BYTES):
            for event in session.receive_data(chunk):
                _take(heard, event, client)
            if heard.refused is not None:
                return heard
        for event in session.receive_eof():
            _take(heard, event, client)
    except InputRefused as error:
        heard.refused = Refused(error.code, str(error))
    return heard


def _take(heard: Heard, event: Event, client: Client) -> None:
    match event:
        case Hello():
            if event.replica != client.replica:
                raise NotPermitted("The TLS certificate belongs to another replica than HELLO names.")
            heard.hello = event
        case Status():
            heard.status = event
        case Pull():
            heard.pull = event
        case CertificateFrame(raw):
            if len(heard.certificates) >= MAX_CERTIFICATES:
                raise NotPermitted(f"At most {MAX_CERTIFICATES} certificates may come in one exchange.")
            heard.certificates.append(AuthorCertificate.decode(raw))
        case BlockFrame(raw):
            heard.blocks.append(raw)
        case Refusal():
            log.warning("%s refused what it was sent: %s: %s", client.name, event.code.name, event.text)
        case Refused():
            heard.refused = event
        case Ended() | Ack():
            pass
        case _:
            raise NotPermitted(f"A hub takes no {type(event).__name__}.")


def _serial(request: web.Request) -> str:
    """The serial number of the client's certificate, which TLS has verified; UnknownAuthor without one."""
    certificate = _certificate(request)
    if not certificate:
        raise UnknownAuthor("This needs the client certificate of a paired terminal.")
    return serial_of(certificate)


def _certificate(request: web.Request) -> bytes:
    tls = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    return (tls.getpeercert(True) or b"") if isinstance(tls, ssl.SSLObject) else b""
