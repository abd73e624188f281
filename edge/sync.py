"""Brings ledger and hub together: blocks up, settlement and fares down, until both agree.

Everything the hub says is verified here before the ledger sees it. Blocks go first: whatever of the answer
this terminal will not take, its taps are up before that is said. Whatever stops this half way, the next run
goes on from what both sides hold; what is remembered in between (`Delivery`) only saves time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from crdt.certificate import AuthorCertificate, Role
from crdt.documents import FLEET_DOCUMENT, SignedDocument
from crdt.errors import InputRefused, Malformed, NotPermitted, RefusalCode, UnknownAuthor
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
from edge.errors import AnswerRefused, HubRefused, HubTooSlow, LedgerBehind, UplinkError
from edge.exchange import Answer, refusal_in
from edge.identity import Identity
from edge.terminal import Enrolment, Terminal

MAX_PUSH_BYTES = 512 * 1024
"""Of blocks in one exchange, over a link that is quick enough."""
MIN_PUSH_BYTES = 4 * 1024
"""Below this the blocks are not what takes so long."""
QUICK_MS = 10_000
"""A push that took no longer may be followed by one twice as large."""
MAX_EXCHANGES = 1_000
"""In one run; what is left then is the next run's. A month of taps takes 200, a million cards 250."""

P = ParamSpec("P")
S = TypeVar("S")
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


@dataclass(slots=True)
class Delivery:
    """What a run learns about delivering blocks, for the next one. Losing it costs time and nothing else."""

    push_bytes: int = MAX_PUSH_BYTES
    disputed: dict[ReplicaId, str] = field(default_factory=dict)
    """Chains of this terminal's earlier identities about which the hub disagrees, with the reason."""

    def timed_out(self) -> None:
        """The link is slower than was hoped."""
        self.push_bytes = max(MIN_PUSH_BYTES, self.push_bytes // 2)

    def went_through(self, took_ms: int) -> None:
        """A push arrived."""
        if took_ms <= QUICK_MS:
            self.push_bytes = min(MAX_PUSH_BYTES, self.push_bytes * 2)


@dataclass
class Sync:
    """One run. `exchange` talks to the hub; `describe` gives the status for the operator, and may wait.

    `retry`: whether chains in `delivery.disputed` are offered again, one block of each.
    """

    terminal: Terminal
    enrolment: Enrolment
    exchange: Exchange
    describe: Callable[[], Mapping[str, Any]]
    delivery: Delivery = field(default_factory=Delivery)
    retry: bool = True
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self._ledger: TerminalLedger = self.enrolment.ledger
        self._identity: Identity = self.enrolment.identity
        self._hubs = {self._identity.hub_certificate.replica: self._identity.hub_certificate}
        self._exchanges = 0
        self._skipped = set() if self.retry else set(self.delivery.disputed)
        self._acknowledged: dict[ReplicaId, Head] = {}
        self._refusal: UplinkError | None = None

    async def run(self) -> Outcome:
        """Until both sides agree, or MAX_EXCHANGES.

        Raises UplinkError, a refusal only when all that was not refused is done; StoreError when the ledger
        fails; Superseded when the terminal is paired anew meanwhile.
        """
        while self._exchanges < MAX_EXCHANGES:
            answer = await self._ask()
            pushed = await self._push(answer.hello.frontier)
            settled = await self._take(answer.messages)
            if settled and not pushed:
                self.outcome.complete = True
                break
        if self._refusal is not None:
            raise self._refusal
        return self.outcome

    async def _ask(self) -> Answer:
        """One exchange: our heads up, and the hub's heads, fares and settlement down."""
        mine = await self._use(self._ledger.frontier)
        status = await asyncio.to_thread(self.describe)
        series, base, after = self._ledger.settled()
        version = (self.terminal.enrolment or self.enrolment).fares_version
        answer = await self._say(mine, [Status(status), Pull(series, base, after, {FLEET_DOCUMENT: version})])
        self._compare(mine, answer.hello.frontier)
        return answer

    def _compare(self, mine: Frontier, theirs: Frontier) -> None:
        """Nothing more is sent of a chain of which the hub holds something that we do not."""
        for replica, head in theirs.items():
            own = mine.get(replica, Head(0, b""))
            if head == own:
                self.delivery.disputed.pop(replica, None)
            elif head.seq >= own.seq:
                self._give_up(replica, self._behind(replica, head, own))

    async def _take(self, messages: Sequence[Message]) -> bool:
        """Store what the hub says; whether its settlement is here to the end, or not to be had."""
        settled = True
        for message in messages:
            try:
                if isinstance(message, PageFrame):
                    settled = await self._checked(self._install, message.raw)
                    self.outcome.pages += 1
                else:
                    await self._checked(self._learn, message)
            except AnswerRefused as error:
                self._refusal = self._refusal or error
        return settled

    async def _push(self, theirs: Frontier) -> bool:
        """Exchanges up, until the hub has acknowledged all blocks; whether there were any.

        The open taps are sealed only here, when a hub listens: offline they collect into full blocks. A chain
        the hub refuses does not keep the others back.
        """
        await self._use(self._ledger.seal)
        mine = await self._use(self._ledger.frontier)
        # What a hub has confirmed in this run is not sent again in it, whatever it says later.
        acknowledged, pushed = {**theirs, **self._acknowledged}, False
        while self._exchanges < MAX_EXCHANGES:
            gaps = [gap for gap in plan(mine, acknowledged) if gap[0] not in self._skipped]
            if not gaps:
                break
            replica, after_seq = gaps[0]
            try:
                head = await self._push_some(replica, after_seq, mine[replica])
                acknowledged[replica] = self._acknowledged[replica] = head
                pushed = True
            except (HubRefused, AnswerRefused) as error:
                self._give_up(replica, error)
        return pushed

    async def _push_some(self, replica: ReplicaId, after_seq: int, own: Head) -> Head:
        """One exchange up; the head that the hub confirms."""
        at_most_bytes = 1 if replica in self.delivery.disputed else self.delivery.push_bytes
        blocks = await self._use(self._ledger.blocks_after, after_seq, at_most_bytes, replica)
        certificate = (await self._use(self._ledger.authors))[replica]
        frames: list[Message] = [CertificateFrame(certificate.encode())]
        try:
            answer = await self._say({replica: own}, frames + [BlockFrame(raw) for raw in blocks])
        except HubTooSlow:
            self.delivery.timed_out()
            raise
        confirmed = _acknowledged(answer, replica, after_seq, own)
        self.delivery.went_through(answer.took_ms)
        self.delivery.disputed.pop(replica, None)
        self.outcome.blocks += len(blocks)
        return confirmed

    def _behind(self, replica: ReplicaId, head: Head, own: Head) -> LedgerBehind:
        current = replica == self._identity.replica
        author = "this terminal" if current else f"its earlier identity {replica.hex()}"
        advice = "Pair the terminal again." if current else "The operator has to compare the two."
        return LedgerBehind(
            f"The hub holds taps of {author} up to {head.seq}; the terminal's own ledger ends at {own.seq} or"
            f" differs: an old copy of the storage was restored. {advice}"
        )

    def _give_up(self, replica: ReplicaId, error: UplinkError) -> None:
        """Send no more of this chain in this run. A dispute about an earlier identity's is no failure."""
        self._skipped.add(replica)
        if replica == self._identity.replica or not _is_dispute(error):
            self._refusal = self._refusal or error
        elif self.delivery.disputed.get(replica) != str(error):
            log.warning("blocks of the earlier identity %s are disputed: %s", replica.hex(), error)
            self.delivery.disputed[replica] = str(error)

    async def _say(self, heads: Frontier, messages: Sequence[Message]) -> Answer:
        self._exchanges += 1
        answer = await self.exchange([Hello(self._identity.fleet, self._identity.replica, heads), *messages])
        for refusal in answer.refusals:
            raise refusal_in(refusal)
        return answer

    async def _use(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something with the ledger, off the event loop, unless the terminal has another by now."""

        def work() -> T:
            with self.terminal.syncing(self._identity):
                return step(*args, **kwargs)

        return await asyncio.to_thread(work)

    async def _checked(self, step: Callable[[S], T], said: S) -> T:
        """Verify and store one thing the hub said."""
        try:
            return await self._use(step, said)
        except InputRefused as error:
            raise AnswerRefused(error.code, str(error)) from error

    def _learn(self, message: Message) -> None:
        match message:
            case CertificateFrame(raw):
                self._learn_hub(raw)
            case DocumentFrame(raw):
                self._adopt(raw)
            case _:
                raise Malformed(f"a {type(message).__name__} was not asked for")

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


def _is_dispute(error: UplinkError) -> bool:
    """Whether it is about the blocks, and not about the hub being busy or the answer being damaged."""
    match error:
        case LedgerBehind():
            return True
        case AnswerRefused(code=code):
            return code is RefusalCode.CHAIN_BROKEN
        case HubRefused(code=code):
            return code.upper() in RefusalCode.__members__
    return False


def _acknowledged(answer: Answer, replica: ReplicaId, after_seq: int, own: Head) -> Head:
    """The head the hub confirms. Raises AnswerRefused unless it moved, and within what was sent."""
    for message in answer.messages:
        if isinstance(message, Ack) and replica in message.frontier:
            head = message.frontier[replica]
            if after_seq < head.seq <= own.seq:
                return head
    raise AnswerRefused(RefusalCode.CHAIN_BROKEN, "it does not confirm the blocks that were sent")
