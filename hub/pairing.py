"""Pairing over HTTP: a technician's one-time code becomes a terminal's certificates.

Two requests (crdt.protocol has their JSON): start answers the terminal's SPAKE2 message, finish opens the
sealed request and seals the certificates. Wrong codes are counted when a sealed request does not open; the
invite burns after three, and with the first success, in the transaction that enters the terminal.
"""

import asyncio
import base64
import binascii
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from aiohttp import web
from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate, Limits, Role
from crdt.errors import RefusalCode, WrongCode
from crdt.facts import ID_BYTES, ReplicaId, TerminalId, text_fits
from crdt.pairing import Entropy, HubPairing, PairingCode
from crdt.store import copies
from crdt.store.amending import Amendment
from crdt.store.hub import HubLedger
from hub import enrolling, invites
from hub.authority import Authority, ClientCertificate
from hub.bodies import json_object
from hub.enrolled import Enrolled, forgotten_in, public_key_of
from hub.errors import RequestRefused
from hub.invites import Invites
from hub.ratelimit import RateLimit
from hub.revoking import Revoker

log = logging.getLogger(__name__)

MAX_OPEN = 64  # pairings between start and finish; the oldest gives way
OPEN_S = 120.0  # longest time between the two
CONCURRENT_STARTS = 2  # SPAKE2 takes 7 ms of a core
RATE_WINDOW_S = 60.0


@dataclass(slots=True)
class Open:
    """A pairing that was started. `request` and `response` are kept for a terminal that lost the response."""

    invite: PairingCode
    crypto: HubPairing
    began_s: float
    request: bytes = b""
    response: bytes = b""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the terminal asks for, checked."""

    name: str
    public_key: bytes
    csr_pem: str
    claimed: bytes  # the terminal id it had before, or b""
    restored: bytes  # its identity of before, where its storage was put back, or b""
    before: AuthorCertificate | None  # the certificate of that, which this hub may have forgotten
    forgotten: AuthorCertificate | None  # of one that it was promised since, and this hub may have forgotten


class Pairing:
    """The two request handlers and the pairings between them."""

    def __init__(
        self,
        ledger: HubLedger,
        authority: Authority,
        open_invites: Invites,
        limits: Callable[[], Awaitable[Limits]],
        rate: RateLimit,
        revoker: Revoker,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        entropy: Entropy,
    ) -> None:
        """`limits` tells what the next terminal may write, or raises RequestRefused: none can be paired.

        `revoker` ends the identities of a restored terminal.
        """
        self._ledger = ledger
        self._authority = authority
        self._invites = open_invites
        self._limits = limits
        self._rate = rate
        self._revoker = revoker
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._entropy = entropy
        self._open: OrderedDict[str, Open] = OrderedDict()
        self._starting = asyncio.Semaphore(CONCURRENT_STARTS)

    async def start(self, request: web.Request) -> web.Response:
        """POST PAIR_START"""
        address = request.remote or ""
        wait_s = self._rate.wait_s(address)
        if wait_s:
            raise RequestRefused(
                "too_often",
                f"Too many pairing attempts. Try again in {wait_s} s.",
                HTTPStatus.TOO_MANY_REQUESTS,
            )
        self._rate.count(address)
        body = await json_object(request)
        message = _base64(body, "message")
        nameplate = str(body.get("nameplate", ""))[:8]
        code = await self._invites.code(nameplate, self._now_ms())
        if code is None:
            raise _gone()
        crypto = HubPairing(PairingCode.parse(code), self._authority.hub_spki_sha256, self._entropy)
        async with self._starting:
            answer = await asyncio.to_thread(crypto.answer, message)
        session = self._remember(Open(PairingCode.parse(code), crypto, self._monotonic()))
        return web.json_response({"session": session, "message": base64.b64encode(answer).decode()})

    async def finish(self, request: web.Request) -> web.Response:
        """POST PAIR_FINISH"""
        body = await json_object(request)
        session = body.get("session")
        pairing = self._open.get(session) if isinstance(session, str) else None
        if pairing is None or self._monotonic() - pairing.began_s > OPEN_S:
            raise _gone()
        sealed = _base64(body, "request")
        if not pairing.request:
            pairing.request = sealed
            pairing.response = await self._enrol(pairing, sealed, request.remote or "")
        elif sealed != pairing.request or not pairing.response:
            raise _gone()
        return web.json_response({"response": base64.b64encode(pairing.response).decode()})

    async def _enrol(self, pairing: Open, sealed: bytes, address: str) -> bytes:
        nameplate, code = str(pairing.invite.nameplate), str(pairing.invite)
        try:
            wanted = _wanted(pairing.crypto.open_request(sealed))
        except WrongCode as error:
            left = await self._invites.wrong_try(nameplate, code)
            log.warning("a wrong pairing code from %s; %d tries left", address, left)
            rest = f"{left} more tries." if left else "It is burned now; ask for a new one."
            raise RequestRefused(
                RefusalCode.WRONG_CODE.name.lower(), f"{error}. {rest}", HTTPStatus.FORBIDDEN
            ) from error
        limits = await self._limits()
        fresh, now_ms = TerminalId(self._entropy(ID_BYTES)), self._now_ms()

        def work(amendment: Amendment) -> Enrolled:
            invites.use(amendment.connection, nameplate, code, now_ms)
            enrolled = self._enter(amendment.connection, wanted, limits, fresh, now_ms)
            former = self._end(amendment, wanted, enrolled.terminal)
            if former:
                copies.note(amendment.connection, enrolled.terminal, TerminalId(wanted.claimed))
            amendment.enrol(enrolled.author)
            return replace(enrolled, former=former)

        enrolled = await asyncio.wrap_future(self._ledger.amend(work))
        log.info("paired %r from %s as terminal %s", wanted.name, address, enrolled.terminal.hex())
        return pairing.crypto.seal_response(enrolled.answer(self._authority))

    def _end(self, amendment: Amendment, wanted: Wanted, terminal: TerminalId) -> list[ReplicaId]:
        """End what a restored terminal wrote as before: beside what it sealed then, and lost, its next
        identity would write some of it again. All identities that it had, and who had copies of its storage,
        one of which may have done so. `terminal`: which it is from now on.

        Only the terminal's own can be ended so, and such copies as have yet to bring what they had. One that
        this hub has forgotten ends too: another copy of that storage may write as it.
        """
        replica = ReplicaId(wanted.restored)
        author = amendment.authors().get(replica) or wanted.before
        theirs = (replica, Role.TERMINAL, wanted.claimed, self._ledger.fleet)
        if author is None or (author.replica, author.role, author.terminal, author.fleet) != theirs:
            return []
        group = enrolling.since_pairing(amendment.connection, replica)
        group |= enrolling.enter_forgotten(amendment, author.terminal, author)
        group |= enrolling.enter_forgotten(amendment, author.terminal, wanted.forgotten)
        enrolling.end_unused(amendment.connection, group)
        authors = amendment.authors()
        former = enrolling.former(amendment.connection, authors, author.terminal)
        group |= enrolling.unsaid(amendment.connection, authors, terminal, former)
        self._revoker.replace(amendment, group)
        return former

    def _enter(
        self, connection: Connection, wanted: Wanted, limits: Limits, fresh: TerminalId, now_ms: int
    ) -> Enrolled:
        issued: list[Enrolled] = []

        def issue(terminal: TerminalId) -> tuple[ReplicaId, ClientCertificate]:
            author = self._authority.terminal_certificate(terminal, wanted.name, wanted.public_key, limits)
            client = self._authority.client_certificate(wanted.csr_pem, terminal, author.replica)
            issued.append(Enrolled(terminal, author, client))
            return author.replica, client

        enrolling.enrol(connection, wanted.name, wanted.claimed, fresh, issue, now_ms)
        return issued[0]

    def _remember(self, pairing: Open) -> str:
        session = self._entropy(16).hex()
        self._open[session] = pairing
        while len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        return session


def _wanted(request: dict[str, str]) -> Wanted:
    name = request.get("name", "").strip()
    if not name or not text_fits(name) or not name.isprintable():
        raise RequestRefused("name", "The terminal's name must be 1 to 64 bytes of text.")
    public_key = public_key_of(request.get("public_key"))
    claimed, restored = _id_in(request, "terminal"), _id_in(request, "restored")
    before = forgotten_in(request.get("certificate"), "certificate")
    forgotten = forgotten_in(request.get("forgotten"))
    return Wanted(name, public_key, request.get("csr", ""), claimed, restored, before, forgotten)


def _id_in(request: dict[str, str], field: str) -> bytes:
    """The id that a field has, or b""."""
    try:
        found = bytes.fromhex(request.get(field, ""))
    except ValueError:
        found = b"?"
    if len(found) not in (0, ID_BYTES):
        raise RequestRefused(field, f"The request's {field}, if it brings one, has 32 hex digits.")
    return found


def _gone() -> RequestRefused:
    return RequestRefused(
        "no_code",
        "No pairing with this code is open: it was used, burned, expired or mistyped. Ask for a new one.",
        HTTPStatus.NOT_FOUND,
    )


def _base64(body: dict[str, Any], field: str) -> bytes:
    value = body.get(field)
    try:
        data = base64.b64decode(value if isinstance(value, str) else "", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise RequestRefused(RefusalCode.MALFORMED.name.lower(), f"The request's {field} is not right.")
    return data
