"""Brings ledger and hub together: settlement and fares down, blocks up, until both agree.

Everything the hub says is verified here before the ledger sees it. Whatever stops this half way, the next run
goes on from what both sides hold: nothing is remembered in between.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from crdt.certificate import AuthorCertificate, Role
from crdt.documents import FLEET_DOCUMENT, SignedDocument
from crdt.errors import InputRefused, NotPermitted, RefusalCode, UnknownAuthor
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
    Status,
)
from crdt.frontier import Frontier, Head
from crdt.session import plan
from crdt.settlement import parse_page, verify_page
from crdt.store.terminal import TerminalLedger
from edge.errors import AnswerRefused, HubRefused, LedgerBehind
from edge.exchange import Answer
from edge.identity import Identity
from edge.terminal import Enrolment, Terminal

MAX_PUSH_BYTES = 512 * 1024
"""Of blocks in one exchange."""
MAX_EXCHANGES = 1_000
"""In one run; what is left then is the next run's. A month of taps takes 200, a million cards 250."""

T = TypeVar("T")
Exchange = Callable[[Sequence[Message]], Awaitable[Answer]]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """What a run has done so far."""

    blocks: int = 0
    pages: int = 0
    complete: bool = False
    """Whether the hub holds every block, and its settlement is installed to the end."""


@dataclass
class Sync:
    """One run. `exchange` talks to the hub; `describe` gives the status for the operator, and may wait."""

    terminal: Terminal
    enrolment: Enrolment
    exchange: Exchange
    describe: Callable[[], Mapping[str, Any]]
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self._ledger: TerminalLedger = self.enrolment.ledger
        self._identity: Identity = self.enrolment.identity
        self._hubs = {self._identity.hub_certificate.replica: self._identity.hub_certificate}
        self._exchanges = 0

    async def run(self) -> Outcome:
        """Until both sides agree, or MAX_EXCHANGES. Raises UplinkError; StoreError when the ledger fails."""
        while self._exchanges < MAX_EXCHANGES:
            await asyncio.to_thread(self._ledger.seal)
            theirs, settled = await self._pull()
            pushed = await self._push(theirs)
            if settled and not pushed:
                self.outcome.complete = True
                break
        return self.outcome

    async def _pull(self) -> tuple[Frontier, bool]:
        """One exchange down. The hub's heads of our chains, and whether its settlement is here to the end."""
        mine = await asyncio.to_thread(self._ledger.frontier)
        status = await asyncio.to_thread(self.describe)
        series, base, after = self._ledger.settled()
        version = (self.terminal.enrolment or self.enrolment).fares_version
        answer = await self._say(mine, [Status(status), Pull(series, base, after, version)])
        _check_not_behind(mine, answer.hello.frontier)
        settled = True
        for message in answer.messages:
            match message:
                case CertificateFrame(raw):
                    await self._checked(self._learn_hub, raw)
                case DocumentFrame(raw):
                    await self._checked(self._adopt, raw)
                case PageFrame(raw):
                    settled = await self._checked(self._install, raw)
                    self.outcome.pages += 1
                case _:
                    raise AnswerRefused(
                        RefusalCode.MALFORMED, f"a {type(message).__name__} was not asked for"
                    )
        return answer.hello.frontier, settled

    async def _push(self, theirs: Frontier) -> bool:
        """Exchanges up, until the hub has acknowledged all blocks; whether there were any.

        A chain the hub refuses does not keep the others back: an earlier identity's may be in dispute. The
        refusal is raised when all others are up.
        """
        mine = await asyncio.to_thread(self._ledger.frontier)
        acknowledged, pushed = dict(theirs), False
        refusal: HubRefused | AnswerRefused | None = None
        while (gaps := plan(mine, acknowledged)) and self._exchanges < MAX_EXCHANGES:
            replica, after_seq = gaps[0]
            try:
                acknowledged[replica] = await self._push_some(replica, after_seq, mine[replica])
                pushed = True
            except (HubRefused, AnswerRefused) as error:
                refusal = error
                del mine[replica]
        if refusal is not None:
            raise refusal
        return pushed

    async def _push_some(self, replica: ReplicaId, after_seq: int, own: Head) -> Head:
        """One exchange up; the head that the hub confirms."""
        blocks = await asyncio.to_thread(self._ledger.blocks_after, after_seq, MAX_PUSH_BYTES, replica)
        certificate = (await asyncio.to_thread(self._ledger.authors))[replica]
        frames: list[Message] = [CertificateFrame(certificate.encode())]
        answer = await self._say({replica: own}, frames + [BlockFrame(raw) for raw in blocks])
        confirmed = _acknowledged(answer, replica, after_seq, own)
        self.outcome.blocks += len(blocks)
        return confirmed

    async def _say(self, heads: Frontier, messages: Sequence[Message]) -> Answer:
        self._exchanges += 1
        return await self.exchange([Hello(self._identity.fleet, self._identity.replica, heads), *messages])

    async def _checked(self, step: Callable[[bytes], T], raw: bytes) -> T:
        """Verify and store one thing the hub said, off the event loop."""
        try:
            return await asyncio.to_thread(step, raw)
        except InputRefused as error:
            raise AnswerRefused(error.code, str(error)) from error

    def _learn_hub(self, raw: bytes) -> None:
        certificate = AuthorCertificate.decode(raw).verify(self._identity.fleet_public_key)
        if certificate.role is not Role.HUB:
            raise NotPermitted("only a hub's certificate was asked for")
        self._hubs[certificate.replica] = certificate

    def _adopt(self, raw: bytes) -> None:
        document = SignedDocument.decode(raw)
        document.verify(self._hub(document.signer))
        if document.name != FLEET_DOCUMENT:
            raise NotPermitted(f"a document {document.name!r} was not asked for")
        if self.terminal.adopt(document):
            log.info("fares and rules of version %d are in use", document.version)

    def _install(self, raw: bytes) -> bool:
        page = parse_page(raw)
        return self._ledger.install(verify_page(page, self._hub(page.signer)))

    def _hub(self, signer: ReplicaId) -> AuthorCertificate:
        certificate = self._hubs.get(signer)
        if certificate is None:
            raise UnknownAuthor("it is not signed by a hub that this terminal knows")
        return certificate


def _check_not_behind(mine: Frontier, theirs: Frontier) -> None:
    """Raises LedgerBehind when the hub holds something of our own chains that we do not."""
    for replica, head in theirs.items():
        own = mine.get(replica, Head(0, b""))
        if head.seq > own.seq or (head.seq == own.seq and head.hash != own.hash):
            raise LedgerBehind(
                f"The hub holds taps of this terminal up to {head.seq}; its own ledger ends at {own.seq}"
                " or differs: an old copy of the storage was restored. Pair the terminal again."
            )


def _acknowledged(answer: Answer, replica: ReplicaId, after_seq: int, own: Head) -> Head:
    """The head the hub confirms. Raises AnswerRefused unless it moved, and within what was sent."""
    for message in answer.messages:
        if isinstance(message, Ack) and replica in message.frontier:
            head = message.frontier[replica]
            if after_seq < head.seq <= own.seq:
                return head
    raise AnswerRefused(RefusalCode.CHAIN_BROKEN, "it does not confirm the blocks that were sent")
