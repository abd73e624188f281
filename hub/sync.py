"""The sync endpoint: a terminal's bytes through the session into the ledger, settlement and fares back.

`answering.py` says what is answered; here is who asks, and how much of it at a time. Who it is comes from the
TLS certificate, whose serial number is looked up on every request. Nothing is merged before the whole request
was received and understood, so bytes that break off or break the protocol leave no trace. A terminal may
carry blocks of others: what counts is the author's own certificate and signature.

Refusals: about the request as a whole (no certificate, revoked, too busy) as an HTTP error with JSON; about
what is in the session as `Refusal` messages in the answer, beside the `Ack` of what was taken.
"""

import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus

from aiohttp import web

from crdt.errors import InputRefused, Malformed, RefusalCode
from crdt.ledger import MergeReport, RefusedInput
from crdt.protocol import CONTENT_TYPE, PROTOCOL_VERSION
from crdt.session import Refused, Session
from crdt.store.hub import HubLedger
from crdt.store.store import Store
from hub import reissues
from hub.answering import Answer, Answerer
from hub.callers import Callers, serial_of_caller
from hub.errors import RequestRefused
from hub.events import EventBus, Topic
from hub.heard import Heard
from hub.recalling import Recall
from hub.registry import Client, Registry
from hub.terminal_documents import TerminalDocuments
from hub.turns import Turns
from hub.waiting import result_of

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024


class Sync:
    """The handlers of SYNC and IDENTIFY."""

    def __init__(
        self,
        database: Store,
        ledger: HubLedger,
        callers: Callers,
        registry: Registry,
        bus: EventBus,
        turns: Turns,
        page_rows: int,
        now_ms: Callable[[], int],
        documents: TerminalDocuments,
        lost: Recall,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._callers = callers
        self._registry = registry
        self._bus = bus
        self._turns = turns
        self._answerer = Answerer(ledger, page_rows, result_of, now_ms, documents, lost)
        self._now_ms = now_ms

    async def sync(self, request: web.Request) -> web.Response:
        """POST SYNC"""
        if request.content_type != CONTENT_TYPE:
            raise RequestRefused(
                "content_type", f"A sync request is {CONTENT_TYPE}.", HTTPStatus.UNSUPPORTED_MEDIA_TYPE
            )
        caller = serial_of_caller(request)
        with self._turns.taken(caller) as turn:
            client = await self._callers.admitted(request)
            session = Session(self._ledger.fleet, self._ledger.replica)
            heard = await _hear(request, session, client)
            if heard.refused is not None or heard.hello is None:
                return self._refuse(session, client, heard)
            with self._turns.pace.answering():
                answer = await self._answer(client, heard, request.remote or "")
            page = answer.page
            if answer.goes_on and page is not None:
                begun = (page.series, page.base)
                turn.goes_on((*begun, page.after), (*begun, page.until))
            body = session.hello(answer.frontier) + b"".join(map(session.send, answer.messages))
        return web.Response(body=body, content_type=CONTENT_TYPE)

    async def identify(self, request: web.Request) -> web.Response:
        """GET IDENTIFY: whose hub this is, and what it thinks of the caller's certificate."""
        standing = await self._callers.standing(request)
        return web.json_response(
            {"fleet": self._ledger.fleet.hex(), "protocol": PROTOCOL_VERSION, "certificate": standing}
        )

    async def _answer(self, client: Client, heard: Heard, address: str) -> Answer:
        answer = await self._answerer.answer(heard)
        status = None if heard.status is None else heard.status.values
        await self._registry.saw(
            client.terminal,
            self._now_ms(),
            address,
            status,
            restored=answer.restored,
            installed=None if answer.settled is None else self._ledger.installed(answer.settled),
        )
        if answer.restored:
            log.warning("the storage of %s was put back from an old copy", client.name)
        self._bus.publish(Topic.TERMINALS, (client.terminal.hex(),))
        if answer.report is not None:
            await self._settle(answer.report)
            self._log(client, answer.report)
        return answer

    async def _settle(self, report: MergeReport) -> None:
        """Evidence may be of blocks that the terminal said before it has written again."""
        await reissues.settle(self._database, self._ledger, reissues.quarantined(report.refused))

    def _refuse(self, session: Session, client: Client, heard: Heard) -> web.Response:
        refused = heard.refused
        if refused is None:
            raise Malformed("the session has no HELLO")
        log.warning("refused an exchange of %s: %s: %s", client.name, refused.code.name, refused.text)
        body = session.hello({}) + session.send(refused.answer())
        return web.Response(body=body, content_type=CONTENT_TYPE)

    def _log(self, client: Client, report: MergeReport) -> None:
        log.debug("%s brought %d new blocks, %d known", client.name, len(report.added), report.known)
        for level, sentence in refusals(report.refused):
            log.log(level, "refused of %s: %s", client.name, sentence)


def refusals(refused: Sequence[RefusedInput]) -> list[tuple[int, str]]:
    """What the log says of refused blocks, and how loudly: a line for each reason, in the first one's words.

    A number that is unknown is no trouble: a hub that was put back numbers cards anew, and is sent the block
    in full.
    """
    by_code: dict[RefusalCode, list[RefusedInput]] = {}
    for one in refused:
        by_code.setdefault(one.error.code, []).append(one)
    return [
        (
            logging.INFO if code is RefusalCode.UNKNOWN_CARD_NUMBER else logging.WARNING,
            f"{len(found)} block{'s' if len(found) > 1 else ''}, {code.name}: {found[0].error}",
        )
        for code, found in by_code.items()
    ]


async def _hear(request: web.Request, session: Session, client: Client) -> Heard:
    """Everything the terminal says, to the end of the request; in bounded memory (the session's limits)."""
    heard = Heard(client.replica, client.name, client.terminal)
    try:
        async for chunk in request.content.iter_chunked(CHUNK_BYTES):
            for event in session.receive_data(chunk):
                heard.take(event)
            if heard.refused is not None:
                return heard
        for event in session.receive_eof():
            heard.take(event)
    except InputRefused as error:
        heard.refused = Refused(error.code, str(error))
    return heard
