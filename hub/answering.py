"""What the hub answers to a terminal's exchange: messages in, messages out. No HTTP, no TLS, no event loop.

`Heard` takes what came, within bounds; `Answerer` brings it to the ledger and says what goes back. It waits
for the ledger's futures only through the `Wait` it is given, so an event loop may drive it, or a simulator
whose futures are done at once.
"""

import logging
from collections.abc import Awaitable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from crdt.certificate import AuthorCertificate, Role
from crdt.documents import FLEET_DOCUMENT
from crdt.errors import NotPermitted
from crdt.facts import ReplicaId
from crdt.frames import (
    Ack,
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Hello,
    Message,
    PageFrame,
    Pull,
    Refusal,
    Status,
)
from crdt.frontier import Frontier
from crdt.ledger import MergeReport
from crdt.revocations import REVOKED_DOCUMENT
from crdt.session import Ended, Event, Refused
from crdt.settlement import Page
from crdt.store.hub import HubLedger

log = logging.getLogger(__name__)

T = TypeVar("T")

DOCUMENTS = (FLEET_DOCUMENT, REVOKED_DOCUMENT)  # what a terminal is to have
MAX_CERTIFICATES = 1024  # in one exchange; each costs a signature verification
MAX_REFUSALS = 16  # in one answer; the first ones say what is wrong


class Wait(Protocol):
    """How to wait for the ledger: `asyncio.wrap_future`, in an event loop."""

    def __call__(self, future: Future[T], /) -> Awaitable[T]: ...


@dataclass(slots=True)
class Heard:
    """What a terminal said in one exchange. `replica`: whose TLS certificate it showed."""

    replica: ReplicaId
    name: str
    hello: Hello | None = None
    status: Status | None = None
    pull: Pull | None = None
    certificates: list[AuthorCertificate] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    refused: Refused | None = None  # it broke the protocol; nothing of it counts

    def take(self, event: Event) -> None:
        """One more event of the session. Raises InputRefused for what a hub does not take."""
        match event:
            case Hello():
                if event.replica != self.replica:
                    raise NotPermitted("The TLS certificate belongs to another replica than HELLO names.")
                self.hello = event
            case Status():
                self.status = event
            case Pull():
                self.pull = event
            case CertificateFrame(raw):
                self._certificate(raw)
            case BlockFrame(raw):
                self.blocks.append(raw)
            case Refusal():
                log.warning("%s refused what it was sent: %s: %s", self.name, event.code.name, event.text)
            case Refused():
                self.refused = event
            case Ended() | Ack():
                pass
            case _:
                raise NotPermitted(f"A hub takes no {type(event).__name__}.")

    def _certificate(self, raw: bytes) -> None:
        if len(self.certificates) >= MAX_CERTIFICATES:
            raise NotPermitted(f"At most {MAX_CERTIFICATES} certificates may come in one exchange.")
        self.certificates.append(AuthorCertificate.decode(raw))


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back, in order and without the HELLO before it, and what the exchange did here."""

    frontier: Frontier  # for the HELLO: the hub's heads of the replicas that matter here
    messages: Sequence[Message]
    report: MergeReport | None  # None: nothing was brought


class Answerer:
    """Answers exchanges from one ledger."""

    def __init__(self, ledger: HubLedger, page_rows: int, wait: Wait) -> None:
        self._ledger = ledger
        self._page_rows = page_rows
        self._wait = wait

    async def answer(self, heard: Heard) -> Answer:
        """Take in what was brought, and answer; an `Ack` in it is durable."""
        report = await self._merge(heard)
        asked = {heard.replica, *(heard.hello.frontier if heard.hello is not None else ())}
        heads = await self._wait(self._ledger.heads(sorted(asked)))
        messages: list[Message] = []
        if report is not None:
            messages.append(Ack(report.heads))
            messages += [Refusal.of(refused.error) for refused in report.refused[:MAX_REFUSALS]]
        if heard.pull is not None:
            messages += await self._settlement(heard.pull)
        return Answer(heads, messages, report)

    async def _merge(self, heard: Heard) -> MergeReport | None:
        if not heard.blocks and not heard.certificates:
            return None
        return await self._wait(self._ledger.merge(heard.blocks, heard.certificates))

    async def _settlement(self, pull: Pull) -> list[Message]:
        page = await self._wait(self._ledger.page(pull.series, pull.base, pull.after, self._page_rows))
        messages: list[Message] = []
        if self._may_be_unknown(page):
            certificate = self._ledger.authors()[self._ledger.replica]
            messages.append(CertificateFrame(certificate.encode()))
        for name in DOCUMENTS:
            document = await self._wait(self._ledger.document(name))
            if document is not None and document.version > pull.documents.get(name, 0):
                messages.append(DocumentFrame(document.encode()))
        return [*messages, PageFrame(page.raw)]

    def _may_be_unknown(self, page: Page) -> bool:
        """Whether a terminal may not know who signs here now: the hub was restored and has a new key.

        A terminal that begins anew is told in any case; a fleet whose hub has had one key needs no more.
        """
        hubs = sum(author.role is Role.HUB for author in self._ledger.authors().values())
        return page.restarts or hubs > 1
