"""What the hub answers to a terminal's exchange: messages in, messages out. No HTTP, no TLS, no event loop.

`hub.heard` takes what came, within bounds; `Answerer` brings it to the ledger and says what goes back. It
waits for the ledger's futures only through the `Wait` it is given, so an event loop may drive it, or a
simulator whose futures are done at once.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from crdt.block import MAX_BLOCK_BYTES
from crdt.certificate import Role
from crdt.cursor import START
from crdt.documents import FLEET_DOCUMENT, TERMINAL_DOCUMENT, SignedDocument
from crdt.errors import ComeAgain, InputRefused, NotPermitted, Restored
from crdt.facts import ReplicaId, TerminalId
from crdt.frames import (
    FRAME_HEADER_BYTES,
    MAX_EXCHANGE_BYTES,
    MAX_EXCHANGE_DELTAS,
    Ack,
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Message,
    PageFrame,
    Refusal,
    Want,
)
from crdt.frontier import Frontier
from crdt.ledger import MergeReport, RefusedInput
from crdt.pull import Pull
from crdt.revocations import REVOKED_DOCUMENT
from crdt.settlement import Page
from crdt.store.futures import done
from crdt.store.hub import Given, HubLedger, PagePull, wall_clock_ms
from crdt.store.standing import HubStanding
from hub.door import AUTHOR_DELTAS_A_DAY, MAX_AUTHOR_DELTAS, Door
from hub.heard import Heard
from hub.hearsay import Hearsay
from hub.waiting import Wait

log = logging.getLogger(__name__)

T = TypeVar("T")

DOCUMENTS = (FLEET_DOCUMENT, REVOKED_DOCUMENT)  # what a terminal is to have
MAX_REFUSALS = 16  # in one answer; the first ones say what is wrong
MAX_WANTED_BYTES = 1024 * 1024  # of blocks in one answer; who wants more asks again
MAX_OWN_BYTES = 32 * 1024  # of a hub's blocks in it: they are only kept by a terminal, whose link may be slow
MAX_HEAD_BYTES = 55  # of one head on the wire

_LOST = (
    "%s says that it settled with this hub at a time that the hub does not know: was the whole machine put"
    " back from an image? The terminal is loaded anew. See what is missing: farebox-hub ledger waiting."
)


class OwnDocuments(Protocol):
    """The documents of single terminals, `hub.terminal_documents`."""

    async def other(self, terminal: TerminalId, version: int, /) -> SignedDocument | None:
        """The document for a terminal that has this version of it; None for the same."""

    async def take(self, terminal: TerminalId, replica: ReplicaId, raw: bytes, /) -> None:
        """Merge one that a terminal sent. Raises InputRefused, and nothing has changed."""


class Lost(Protocol):
    """What terminals have of this hub's documents that it lost, `hub.recalling`."""

    async def outbid(self, name: str, version: int, /) -> SignedDocument | None:
        """What a terminal is given whose document is newer than the hub's; None for nothing."""

    async def take(self, document: SignedDocument, /) -> SignedDocument:
        """Join a lost list of revocations with the hub's; the hub's then, newer. Raises InputRefused."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back, in order and without the HELLO before it, and what the exchange did here."""

    frontier: Frontier  # for the HELLO: the hub's heads of the replicas that matter here
    messages: Sequence[Message]
    report: MergeReport | None = None  # None: nothing was brought
    restored: bool | None = None  # the terminal's storage is older than what it sealed; None: it did not say
    settled: int | None = None  # the position that the terminal has installed, by its word
    page: Page | None = None  # of the settlement, that it is given
    goes_on: bool = False  # whether it takes another exchange: the settlement goes on, or begins anew there


@dataclass(frozen=True, slots=True)
class _Taken:
    """What the hub thought of the terminal, and its heads, before; and what was done since."""

    standing: HubStanding
    heads: Frontier
    report: MergeReport | None = None  # None: nothing was brought
    page: Future[Page] | None = None  # None: nothing was pulled


class Answerer:
    """Answers exchanges from one ledger."""

    def __init__(
        self,
        ledger: HubLedger,
        page_rows: int,
        wait: Wait,
        now_ms: Callable[[], int] = wall_clock_ms,
        documents: OwnDocuments | None = None,
        lost: Lost | None = None,
    ) -> None:
        """`now_ms`: the hub's clock, for when it learnt what it is waiting for. `documents`: without them no
        terminal's own document is given or taken. `lost`: without it nothing that the hub lost is."""
        self._ledger = ledger
        self._page_rows = page_rows
        self._wait = wait
        self._hearsay = Hearsay(ledger, wait, now_ms)
        self._documents = documents
        self._door = Door(ledger.authors, now_ms)
        self._lost = lost
        # A terminal may not know who signs here when the hub was put back and has a new key: it is told with
        # every page then. One that begins anew is told in any case, and of former keys, to keep their blocks.
        hubs = {replica: one for replica, one in ledger.authors().items() if one.role is Role.HUB}
        self._succeeds = len(hubs) > 1
        self._certificate = CertificateFrame(hubs.pop(ledger.replica).encode())
        self._former = [CertificateFrame(hubs[replica].encode()) for replica in sorted(hubs)]

    async def answer(self, heard: Heard) -> Answer:
        """Take in what was brought, and answer; an `Ack` in it is durable."""
        frontier: Frontier = {} if heard.hello is None else heard.hello.frontier
        named = {heard.replica, *frontier}
        taken = await self._take_in(heard, frontier)
        heads, report = taken.heads, taken.report
        restored = self._restored(heard, taken.standing)
        if report is not None:
            heads = {**heads, **{one: head for one, head in report.heads.items() if one in named}}
        await self._hearsay.note(heard, frontier, heads, believed=restored is None)
        branches = await self._hearsay.branches(heard, frontier, heads)
        messages: list[Message] = [] if restored is None else [Refusal.of(restored)]
        if report is not None:
            messages.append(Ack(report.heads))
            messages += [Refusal.of(refused.error) for refused in report.refused[:MAX_REFUSALS]]
        messages += await self._merge_document(heard)
        page: Page | None = None
        if taken.page is not None:
            page = await self._wait(taken.page)
        if heard.pull is not None and page is not None:
            messages += await self._settlement(heard, heard.pull, page)
        if heard.want is not None:
            messages += await self._wanted(heard.want, _left(heads, messages))
        said = heard.says_of_itself
        return Answer(
            frontier={replica: head for replica, head in heads.items() if replica not in branches},
            messages=messages,
            report=report,
            restored=restored is not None if said else None,
            settled=page.base if page is not None and not page.restarts else None,
            page=page,
            goes_on=page is not None and _goes_on(heard, page),
        )

    def _restored(self, heard: Heard, standing: HubStanding) -> Restored | None:
        """Whether the terminal's own chain is behind or beside what it sealed before, as a refusal."""
        if heard.hello is None or not heard.says_of_itself or not standing.restored:
            return None
        head = heard.hello.frontier.get(heard.replica)
        at_seq = 0 if head is None else head.seq
        return Restored(
            f"{heard.name} ends at {at_seq}, and had sealed up to {standing.ours.seq} before: an old copy of"
            " its storage was put back. It needs a new identity; no tap is lost or counted twice."
        )

    async def _take_in(self, heard: Heard, frontier: Frontier) -> _Taken:
        """What was brought is merged, and what is pulled is being read."""
        pull = None if heard.pull is None else self._pull(heard.pull)
        if heard.blocks or heard.shorts or heard.certificates:
            taken = await self._merge(heard, frontier)
            return taken if pull is None else replace(taken, page=self._ledger.page(*pull))
        if pull is None:
            return _Taken(*await self._wait(self._ledger.arrival(heard.replica, frontier)))
        arriving = self._ledger.arrival_and_page(heard.replica, frontier, pull)
        (standing, heads), page = await self._wait(arriving)
        return _Taken(standing, heads, page=done(page))

    async def _merge(self, heard: Heard, frontier: Frontier) -> _Taken:
        let = self._door.let(heard.blocks, heard.shorts)
        given = Given(let.blocks, let.shorts, heard.certificates)
        (standing, heads), report = await self._wait(self._ledger.take_in(heard.replica, frontier, given))
        for block in self._door.took(report.added):
            await self._wait(self._ledger.flag(block.header.replica, _too_much(), block.header.first_seq))
        if let.left:
            left = RefusedInput(b"", _too_much() if let.slowed else _too_long())
            report = replace(report, refused=(left, *report.refused))
        return _Taken(standing, heads, report)

    def _pull(self, pull: Pull) -> PagePull:
        return PagePull(pull.series, pull.base, pull.after, self._page_rows)

    async def _merge_document(self, heard: Heard) -> list[Message]:
        """The terminal's own document, or the hub's list that it lost: what is said to it, or refused of it.

        Everything else goes on.
        """
        try:
            if len(heard.documents) > 1:
                raise NotPermitted("A terminal has one document of its own.")
            return await self._take_document(heard, heard.documents[0]) if heard.documents else []
        except InputRefused as error:
            log.warning("refused a document of %s: %s: %s", heard.name, error.code.name, error)
            return [Refusal.of(error)]

    async def _take_document(self, heard: Heard, raw: bytes) -> list[Message]:
        """Take it; of a list the hub's own acknowledges that."""
        document = SignedDocument.decode(raw)
        if document.name == REVOKED_DOCUMENT and self._lost is not None:
            listed = await self._lost.take(document)
            return [self._certificate, DocumentFrame(listed.encode())]
        if self._documents is None or heard.terminal is None:
            raise NotPermitted("This hub keeps no documents of terminals.")
        await self._documents.take(heard.terminal, heard.replica, raw)
        return []

    async def _settlement(self, heard: Heard, pull: Pull, page: Page) -> list[Message]:
        messages: list[Message] = []
        if self._succeeds or page.restarts:
            messages.append(self._certificate)
        if page.restarts:
            messages += self._former
        if page.restarts and pull.series == page.series and pull.after != START:
            log.warning(_LOST, heard.name)
        for name, reading in [(name, self._ledger.document(name)) for name in DOCUMENTS]:
            document, theirs = await self._wait(reading), pull.documents.get(name, 0)
            ours = 0 if document is None else document.version
            if ours < theirs:
                document = None if self._lost is None else await self._lost.outbid(name, theirs)
            if document is not None and ours != theirs:
                messages.append(DocumentFrame(document.encode()))
        if self._documents is not None and heard.terminal is not None and TERMINAL_DOCUMENT in pull.documents:
            own = await self._documents.other(heard.terminal, pull.documents[TERMINAL_DOCUMENT])
            messages += [] if own is None else [DocumentFrame(own.encode())]
        return [*messages, PageFrame(page.raw)]

    async def _wanted(self, want: Want, most_bytes: int) -> list[Message]:
        """Blocks beyond what the terminal has, author by author, within what is left of the exchange.

        Nothing while a chain it names is being cut: what is to leave still counts, and is written again then.
        """
        heads = await self._wait(self._ledger.heads(None if want.others else sorted(want.after)))
        authors = self._ledger.authors()
        messages: list[Message] = []
        for replica, head in sorted(heads.items()):
            after_seq = want.after.get(replica, 0)
            if head.seq <= after_seq or replica not in authors:
                continue
            if most_bytes < MAX_BLOCK_BYTES:
                break
            room = most_bytes - MAX_BLOCK_BYTES + 1
            if authors[replica].role is Role.HUB:
                room = min(room, MAX_OWN_BYTES)
            raws = await self._wait(self._ledger.blocks_after(replica, after_seq, room))
            frames: list[Message] = [CertificateFrame(authors[replica].encode()), *map(BlockFrame, raws)]
            most_bytes -= _size(frames)
            messages += frames
        if await self._wait(self._ledger.are_being_cut(want.after)):  # last: a list may have come meanwhile
            return [Refusal.of(ComeAgain("What counts of it is not settled yet; ask again in a moment."))]
        return messages


def _goes_on(heard: Heard, page: Page) -> bool:
    """See `Answer`. Before a terminal replaces what it has installed it says what that was."""
    if page.final:
        return page.restarts and heard.pull is not None and heard.pull.base > 0
    return bool(page.rows or page.heads)


def _too_much() -> ComeAgain:
    return ComeAgain(
        f"The author has written far more than any bus does: after {MAX_AUTHOR_DELTAS:,} entries at once,"
        f" {AUTHOR_DELTAS_A_DAY:,} a day are taken. Look at the terminal; revoke it if it makes them up."
    )


def _too_long() -> ComeAgain:
    return ComeAgain(f"One exchange brings at most {MAX_EXCHANGE_DELTAS:,} entries; send the rest again.")


def _left(heads: Frontier, messages: Sequence[Message]) -> int:
    """How many bytes of blocks still fit the answer."""
    hello_bytes = FRAME_HEADER_BYTES + 64 + MAX_HEAD_BYTES * len(heads)
    return min(MAX_WANTED_BYTES, MAX_EXCHANGE_BYTES - hello_bytes - _size(messages))


def _size(messages: Sequence[Message]) -> int:
    return sum(FRAME_HEADER_BYTES + len(message.body()) for message in messages)
