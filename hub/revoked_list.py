"""Who was revoked, for terminals to ask, one that was revoked itself too: it takes itself out of service."""

import asyncio

from aiohttp import web

from crdt.errors import UnknownAuthor
from crdt.frames import CertificateFrame, DocumentFrame
from crdt.protocol import CONTENT_TYPE
from crdt.revocations import REVOKED_DOCUMENT
from crdt.session import Session
from crdt.store.hub import HubLedger
from hub.callers import Callers, serial_of_caller
from hub.turns import Turns

ISSUED = frozenset({"good", "revoked", "replaced"})  # standings of a certificate of this hub


class RevokedList:
    """Gives the list as it is signed, to whomever this hub has ever paired."""

    def __init__(self, ledger: HubLedger, callers: Callers, turns: Turns) -> None:
        """`turns`: it takes a place among the exchanges, for it may be as large."""
        self._ledger = ledger
        self._callers = callers
        self._turns = turns
        self._answer: tuple[int, bytes] | None = None  # the last one, and the version of the list in it

    async def get(self, request: web.Request) -> web.Response:
        """GET REVOKED_LIST: HELLO and, where there is a list, its signer's certificate and the list."""
        with self._turns.taken(serial_of_caller(request)):
            if await self._callers.standing(request) not in ISSUED:
                raise UnknownAuthor("This is for terminals that were paired with this hub.")
            return web.Response(body=await self._body(), content_type=CONTENT_TYPE)

    async def _body(self) -> bytes:
        """Made anew when the list has changed, by whichever process of the hub."""
        version = await asyncio.wrap_future(self._ledger.document_version(REVOKED_DOCUMENT))
        if self._answer is None or self._answer[0] != version:
            self._answer = await self._made()
        return self._answer[1]

    async def _made(self) -> tuple[int, bytes]:
        session = Session(self._ledger.fleet, self._ledger.replica)
        body = session.hello({})
        document = await asyncio.wrap_future(self._ledger.document(REVOKED_DOCUMENT))
        if document is None:
            return 0, body
        signer = self._ledger.authors()[document.signer]
        body += session.send(CertificateFrame(signer.encode()))
        body += session.send(DocumentFrame(document.encode()))
        return document.version, body
