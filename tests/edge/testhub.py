"""A small hub on a real TLS server: the real hub ledger over crdt.session, and hooks to make it misbehave.

The hub server itself is another package with its own tests; this one exists to be told what to do wrong.
"""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from crdt.certificate import AuthorCertificate, Limits, Role, issue
from crdt.documents import SignedDocument
from crdt.errors import RefusalCode, WrongCode
from crdt.facts import ReplicaId, TerminalId
from crdt.frames import (
    MAX_EXCHANGE_BYTES,
    Ack,
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Heads,
    Hello,
    Message,
    PageFrame,
    Refusal,
    ShortBlockFrame,
    Want,
)
from crdt.frontier import Frontier
from crdt.pairing import HubPairing, PairingCode
from crdt.protocol import (
    CONTENT_TYPE,
    IDENTIFY,
    MAX_PAGE_ROWS,
    PAIR_FINISH,
    PAIR_START,
    RENEW,
    REVOKED_LIST,
    SYNC,
)
from crdt.pull import Pull
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.session import Session
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from crdt.terminal_status import Status
from crdt.tlsnames import tls_identity
from edge.addresses import HubAddress
from edge.tls import spki_sha256
from tests.edge.authority import TERMINAL_LIMITS, Fleet

Misbehaviour = Callable[[web.Request, list[Message]], Awaitable[web.StreamResponse]]
"""(request, the honest answer's messages) -> what is sent instead."""


@dataclass
class TestHub:
    """One fleet's hub. `misbehave` replaces the answer to each sync; `code` is the one open invitation."""

    __test__ = False

    fleet: Fleet
    ledger: HubLedger
    page_rows: int = MAX_PAGE_ROWS
    document: SignedDocument | None = None
    revoked: SignedDocument | None = None
    lists_given: int = 0
    want_bytes: int = 512 * 1024
    """Of blocks, in an answer to a WANT."""
    misbehave: Misbehaviour | None = None
    busy: str | None = None
    """Refuse each sync before anything is read; what Retry-After says then."""
    refused: int = 0
    """How often it was so."""
    code: PairingCode | None = None
    accepts_anything: bool = False
    """Seal a response without having opened the request, as a stranger would."""
    given: dict[str, str] = field(default_factory=dict)
    heard: list[list[Message]] = field(default_factory=list)
    """The messages of each exchange so far."""
    merged: asyncio.Event = field(default_factory=asyncio.Event)
    code_refused: asyncio.Event = field(default_factory=asyncio.Event)
    shorts: int = 0
    """Short blocks received."""
    settled_before: list[Frontier] = field(default_factory=list)
    """What terminals said that earlier settlements had included."""
    renewals: list[dict[str, Any]] = field(default_factory=list)
    """What was asked of RENEW."""
    limits: Limits = TERMINAL_LIMITS
    statuses: list[dict[str, Any]] = field(default_factory=list)
    peers: list[bytes | None] = field(default_factory=list)

    @property
    def blocks_received(self) -> int:
        blocks = BlockFrame | ShortBlockFrame
        return sum(isinstance(message, blocks) for messages in self.heard for message in messages)

    @contextlib.asynccontextmanager
    async def serving(
        self, tmp_path: Path, *, context: ssl.SSLContext | None = None, port: int = 0
    ) -> AsyncIterator[HubAddress]:
        """Serve on loopback until the block ends."""
        tls = context or await asyncio.to_thread(self.fleet.server_context, tmp_path)
        app = web.Application(client_max_size=2 * MAX_EXCHANGE_BYTES)
        app.add_routes(
            [
                web.post(SYNC, self._sync),
                web.get(IDENTIFY, self._identify),
                web.get(REVOKED_LIST, self._revoked_list),
                web.post(RENEW, self._renew),
                web.post(PAIR_START, self._pair_start),
                web.post(PAIR_FINISH, self._pair_finish),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls, reuse_address=True)
        await site.start()
        try:
            yield HubAddress("127.0.0.1", runner.addresses[0][1])
        finally:
            await runner.cleanup()

    async def answer_to(self, messages: list[Message]) -> list[Message]:
        """What an honest hub says."""
        hello = messages[0]
        assert isinstance(hello, Hello)
        rest: list[Message] = await self._restored(hello, messages)
        rest += await self._merge(messages)
        for message in messages:
            match message:
                case Status(values=values):
                    self.statuses.append(dict(values))
                case Pull():
                    rest += await self._settlement(message)
                case Want(after=after):
                    for replica in after:
                        rest += await self._chain(replica, after[replica])
                case Heads(frontier=frontier):
                    self.settled_before.append(frontier)
        heads = await asyncio.wrap_future(self.ledger.heads(sorted({hello.replica, *hello.frontier})))
        return [Hello(self.fleet.id, self.ledger.replica, heads), *rest]

    async def _restored(self, hello: Hello, messages: list[Message]) -> list[Message]:
        if hello.replica not in hello.frontier and not any(isinstance(one, Status) for one in messages):
            return []
        standing, _ = await asyncio.wrap_future(self.ledger.arrival(hello.replica, hello.frontier))
        return [Refusal(RefusalCode.RESTORED, "an old copy was put back")] if standing.restored else []

    async def _merge(self, messages: list[Message]) -> list[Message]:
        blocks = [message.raw for message in messages if isinstance(message, BlockFrame)]
        shorts = [message.raw for message in messages if isinstance(message, ShortBlockFrame)]
        self.shorts += len(shorts)
        if not blocks and not shorts:
            return []
        raws = [message.raw for message in messages if isinstance(message, CertificateFrame)]
        certificates = [AuthorCertificate.decode(raw) for raw in raws]
        report = await asyncio.wrap_future(self.ledger.merge(blocks, certificates, shorts))
        self.merged.set()
        return [Ack(report.heads), *(Refusal.of(refused.error) for refused in report.refused)]

    async def _chain(self, replica: ReplicaId, after_seq: int) -> list[Message]:
        raws = await asyncio.wrap_future(self.ledger.blocks_after(replica, after_seq, self.want_bytes))
        author = self.ledger.authors().get(replica)
        papers: list[Message] = [CertificateFrame(author.encode())] if author is not None and raws else []
        return [*papers, *(BlockFrame(raw) for raw in raws)]

    async def _settlement(self, pull: Pull) -> list[Message]:
        documents, named = [one for one in (self.document, self.revoked) if one is not None], pull.documents
        found: list[Message] = [
            DocumentFrame(document.encode())
            for document in documents
            if document.version > named.get(document.name, 0)
            or (document is self.revoked and document.version < named.get(document.name, 0))
        ]
        page = self.ledger.page(pull.series, pull.base, pull.after, self.page_rows)
        return [*found, PageFrame((await asyncio.wrap_future(page)).raw)]

    async def _sync(self, request: web.Request) -> web.StreamResponse:
        if self.busy is not None:
            self.refused += 1
            said = {"error": "busy", "message": "Come again."}
            return web.json_response(said, status=503, headers={"Retry-After": self.busy})
        assert request.transport is not None
        self.peers.append(request.transport.get_extra_info("ssl_object").getpeercert(True))
        session = Session(self.fleet.id, self.ledger.replica)
        events = session.receive_data(await request.read())
        assert type(session.receive_eof()[0]).__name__ == "Ended"
        messages = [event for event in events if isinstance(event, Message)]
        self.heard.append(messages)
        honest = await self.answer_to(messages)
        if self.misbehave is not None:
            return await self.misbehave(request, honest)
        return answer(honest)

    async def _identify(self, _request: web.Request) -> web.Response:
        return web.json_response({"fleet": self.fleet.id.hex()})

    async def _revoked_list(self, _request: web.Request) -> web.Response:
        self.lists_given += 1
        document = [] if self.revoked is None else [DocumentFrame(self.revoked.encode())]
        return answer([Hello(self.fleet.id, self.ledger.replica), *document])

    async def _renew(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        tls = request.transport.get_extra_info("ssl_object")
        names = [name for kind, name in tls.getpeercert()["subjectAltName"] if kind == "DNS"]
        who, wanted = tls_identity(names), await request.json()
        return web.json_response(await asyncio.to_thread(self.renewed, who.terminal, who.replica, wanted))

    def renewed(self, terminal: TerminalId, asking: ReplicaId, wanted: dict[str, Any]) -> dict[str, str]:
        """The answer to RENEW; the identity that asks ends where the hub holds it. Waits for the ledger."""
        self.renewals.append(wanted)
        self.end(asking)
        given = self._enrol({**wanted, "terminal": terminal.hex(), "name": "Bus 12 front"})
        return {**given, "former": self._former(terminal.hex())}

    def _former(self, terminal: str) -> str:
        known = self.ledger.authors().values()
        return " ".join(one.replica.hex() for one in known if one.terminal.hex() == terminal)

    def end(self, replica: ReplicaId, *, replaced: bool = True) -> None:
        """End an identity where the hub holds it, unless it has ended: as replaced, or revoked. Waits."""
        heads = self.ledger.heads([replica]).result()
        listed = NONE_REVOKED if self.revoked is None else Revocations.decode(self.revoked.body)
        seq = heads[replica].seq if replica in heads else 0
        listed = (listed.with_replaced if replaced else listed.with_revoked)({replica: seq})
        version = 1 if self.revoked is None else self.revoked.version + 1
        body = listed.encode()
        self.revoked = SignedDocument.seal(self.fleet.hub_key, self.fleet.id, REVOKED_DOCUMENT, version, body)
        self.ledger.put_document(self.revoked).result()

    async def _pair_start(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.code is None or body["nameplate"] != str(self.code.nameplate):
            self.code_refused.set()
            return _refusal("no_code", "No pairing with this code is open.", 404)
        spki = spki_sha256(ssl.PEM_cert_to_DER_cert(self._hub_pem()))
        self._pairing = HubPairing(self.code, spki, lambda length: b"\x07" * length)
        message = self._pairing.answer(base64.b64decode(body["message"]))
        return web.json_response({"session": "s", "message": base64.b64encode(message).decode()})

    async def _pair_finish(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.accepts_anything:
            sealed = self._pairing.seal_response({"fleet_public_key": ""})
            return web.json_response({"response": base64.b64encode(sealed).decode()})
        try:
            wanted = self._pairing.open_request(base64.b64decode(body["request"]))
        except WrongCode as error:
            return _refusal("wrong_code", f"{error}. 2 more tries.", 403)
        if wanted["restored"]:
            await asyncio.to_thread(self.end, ReplicaId(bytes.fromhex(wanted["restored"])))
        answer = {**self._enrol(wanted), "former": self._former(wanted["terminal"]), **self.given}
        sealed = self._pairing.seal_response(answer)
        return web.json_response({"response": base64.b64encode(sealed).decode()})

    def _enrol(self, wanted: dict[str, str]) -> dict[str, str]:
        request = x509.load_pem_x509_csr(wanted["csr"].encode())
        key = request.public_key()
        assert request.is_signature_valid
        assert isinstance(key, ec.EllipticCurvePublicKey)
        public_key = bytes.fromhex(wanted["public_key"])
        terminal = TerminalId(bytes.fromhex(wanted["terminal"]) or public_key[:16])
        certificate = issue(self.fleet.key, terminal, wanted["name"], Role.TERMINAL, public_key, self.limits)
        return {
            "fleet_public_key": self.fleet.key.public_key.hex(),
            "certificate": certificate.encode().hex(),
            "hub_certificate": self.fleet.hub_certificate.encode().hex(),
            "tls_certificate": self.fleet.terminal_tls_certificate(key, terminal, certificate.replica),
            "tls_root": self.fleet.root_pem,
        }

    def _hub_pem(self) -> str:
        return self.fleet.hub_tls_certificate()


def answer(messages: list[Message]) -> web.Response:
    """The messages as a response; the first has to be HELLO."""
    hello = messages[0]
    assert isinstance(hello, Hello)
    session = Session(hello.fleet, hello.replica)
    return web.Response(body=b"".join(map(session.send, messages)), content_type=CONTENT_TYPE)


def open_ledger(database: Database, fleet: Fleet) -> HubLedger:
    """The hub's real ledger."""
    return HubLedger(database, fleet.key.public_key, fleet.hub_key, fleet.hub_certificate)


def _refusal(code: str, message: str, status: int) -> web.Response:
    return web.json_response({"error": code, "message": message}, status=status)
