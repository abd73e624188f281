"""A small real terminal for the hub's tests: pairs with crdt's own client side, syncs over real TLS."""

import asyncio
import base64
import hashlib
import io
import itertools
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yarl import URL

from crdt.block import seal
from crdt.certificate import AuthorCertificate
from crdt.cursor import beginning
from crdt.facts import NO_CONTEXT, CardId, Delta, FleetId, Kind, TerminalId
from crdt.frames import BlockFrame, CertificateFrame, Hello, Message
from crdt.frontier import GENESIS, Frontier, Head
from crdt.ledger import Ledger
from crdt.pairing import PairingCode, TerminalPairing
from crdt.protocol import CONTENT_TYPE, PAIR_FINISH, PAIR_START, SYNC
from crdt.pull import Pull
from crdt.session import Event, Session
from crdt.settlement import Page, parse_page
from crdt.signing import SigningKey, fleet_id
from tests.hub.tls import client_context, new_tls_key

CARD = CardId(bytes.fromhex("04a1b2c3d4e5f6"))
NOON_MS = 1_750_000_000_000
_MOMENTS: dict[TerminalId, int] = {}  # at which each taps: a card is in one place at a time


@dataclass(frozen=True)
class Refused(Exception):
    """An HTTP error answer."""

    status: int
    code: str
    message: str
    retry_after: str | None = None


def spki_sha256(certificate_der: bytes) -> bytes:
    key = x509.load_der_x509_certificate(certificate_der).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def stranger() -> ssl.SSLContext:
    """Before pairing a terminal trusts nobody, and connects all the same."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def post_json(http: aiohttp.ClientSession, url: str, body: Any) -> dict[str, str]:
    async with http.post(url, json=body) as response:
        answer: dict[str, str] = await response.json()
        if response.status != 200:
            raise Refused(response.status, answer["error"], answer["message"])
        return answer


@dataclass
class Attempt:
    """One run through the pairing requests, step by step so that tests may go astray."""

    url: str
    code: PairingCode
    spki: bytes
    http: aiohttp.ClientSession
    session: str = ""
    crypto: TerminalPairing = field(init=False)

    async def start(self) -> bytes:
        self.crypto = TerminalPairing(self.code, self.spki, os.urandom)
        message = base64.b64encode(self.crypto.start()).decode()
        body = {"nameplate": str(self.code.nameplate), "message": message}
        answer = await post_json(self.http, self.url + PAIR_START, body)
        self.session = answer["session"]
        return base64.b64decode(answer["message"])

    async def finish(self, sealed: bytes) -> dict[str, str]:
        body = {"session": self.session, "request": base64.b64encode(sealed).decode()}
        answer = await post_json(self.http, self.url + PAIR_FINISH, body)
        return self.crypto.open_response(base64.b64decode(answer["response"]))

    async def run(self, request: dict[str, str]) -> dict[str, str]:
        message = await self.start()
        return await self.finish(self.crypto.seal_request(message, request))


async def attempt(url: str, code: str, http: aiohttp.ClientSession) -> Attempt:
    """A pairing with the hub at `url`, whose TLS key is looked at first."""
    place = URL(url)
    _, writer = await asyncio.open_connection(place.host, place.port, ssl=stranger())
    der = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    await writer.wait_closed()
    return Attempt(url, PairingCode.parse(code), spki_sha256(der), http)


@dataclass
class Terminal:
    """A paired terminal with its chain of blocks in memory."""

    url: str
    key: SigningKey
    certificate: AuthorCertificate
    hub_certificate: AuthorCertificate
    fleet_public_key: bytes
    tls: ssl.SSLContext
    chain: list[bytes] = field(default_factory=list)
    head: Head = Head(0, GENESIS)
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def fleet(self) -> FleetId:
        return fleet_id(self.fleet_public_key)

    @classmethod
    async def pair(cls, url: str, code: str, name: str = "Bus 1 front", claimed: bytes = b"") -> "Terminal":
        key, tls_key = SigningKey(os.urandom(32)), await asyncio.to_thread(new_tls_key)
        request = {
            "public_key": key.public_key.hex(),
            "csr": tls_key.csr_pem,
            "name": name,
            "terminal": claimed.hex(),
        }
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=stranger())) as http:
            given = await (await attempt(url, code, http)).run(request)
        fleet_public_key = bytes.fromhex(given["fleet_public_key"])
        tls = await asyncio.to_thread(
            client_context, given["tls_root"], tls_key.key_pem, given["tls_certificate"]
        )
        return cls(
            url=url,
            key=key,
            certificate=AuthorCertificate.decode(bytes.fromhex(given["certificate"])).verify(
                fleet_public_key
            ),
            hub_certificate=AuthorCertificate.decode(bytes.fromhex(given["hub_certificate"])).verify(
                fleet_public_key
            ),
            fleet_public_key=fleet_public_key,
            tls=tls,
        )

    def connect(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.tls))

    def taps(self, *amounts: int, card: CardId = CARD, kind: Kind = Kind.FARE) -> bytes:
        """Seal one more block of the chain."""
        return self._sealed([(card, kind, amount) for amount in amounts])

    def taps_on(self, cards: Sequence[CardId], amount: int) -> bytes:
        """Seal one more block, with a fare on each of these cards."""
        return self._sealed([(card, Kind.FARE, amount) for card in cards])

    def _sealed(self, facts: Sequence[tuple[CardId, Kind, int]]) -> bytes:
        at_ms = _MOMENTS.setdefault(self.certificate.terminal, NOON_MS + len(_MOMENTS))
        deltas = [
            Delta(self.key.replica, self.head.seq + number, card, kind, amount, at_ms, NO_CONTEXT)
            for number, (card, kind, amount) in enumerate(facts, 1)
        ]
        block = seal(self.key, self.fleet, deltas, self.head.hash)
        self.chain.append(block.raw)
        self.head = block.head
        return block.raw

    def session(self) -> Session:
        return Session(self.fleet, self.key.replica)

    def encode(self, *messages: Message, frontier: Frontier | None = None) -> bytes:
        session = self.session()
        hello = session.send(Hello(self.fleet, self.key.replica, frontier or {}))
        return hello + b"".join(session.send(message) for message in messages)

    async def exchange(
        self, *messages: Message, frontier: Frontier | None = None, http: aiohttp.ClientSession | None = None
    ) -> list[Event]:
        """One exchange; the hub's events. Raises Refused for an HTTP error."""
        return await self.post(self.encode(*messages, frontier=frontier), http)

    async def post(self, body: bytes, http: aiohttp.ClientSession | None = None) -> list[Event]:
        if http is None:
            async with self.connect() as own:
                return await self.post(body, own)
        headers = {"Content-Type": CONTENT_TYPE}
        async with http.post(self.url + SYNC, data=io.BytesIO(body), headers=headers) as response:
            if response.status != 200:
                error = await response.json()
                again = response.headers.get("Retry-After")
                raise Refused(response.status, error["error"], error["message"], again)
            session = self.session()
            return session.receive_data(await response.read()) + session.receive_eof()

    async def push(self, *blocks: bytes, http: aiohttp.ClientSession | None = None) -> list[Event]:
        frames = [BlockFrame(raw) for raw in blocks]
        return await self.exchange(CertificateFrame(self.certificate.encode()), *frames, http=http)

    async def pull(self, pull: Pull | None = None) -> list[Page]:
        """Settlement pages until the final one."""
        pages: list[Page] = []
        pull = pull or Pull()
        async with self.connect() as http:
            while not pages or not pages[-1].final:
                page = parse_page(first(await self.exchange(pull, http=http), "PageFrame").raw)
                pages.append(page)
                pull = Pull(page.series, page.base, page.until)
        return pages

    async def settle(self) -> Page:
        """Install the settlement, as far as the hub can tell: the next question says so. The last page."""
        page = (await self.pull())[-1]
        await self.exchange(Pull(page.series, page.position, beginning(page.position)))
        return page


def first(events: Sequence[Event], name: str) -> Any:
    """The first event of that type."""
    return next(event for event in events if type(event).__name__ == name)


async def reference(*terminals: Terminal) -> bytes:
    """The digest of the in-memory model that holds these terminals' blocks."""
    ledger = Ledger(terminals[0].fleet_public_key)
    for terminal in terminals:
        ledger.merge(terminal.chain, [terminal.certificate])
    return ledger.digest()
