"""Courier files at the hub: blocks from a USB stick or a laptop into the ledger, and out of it into a file.

A file may have any size, so it is taken and made piece by piece. Every block proves itself and counts once,
so a file may be imported again, or be cut off and begun anew; what it says at its end tells whether all of
it came.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from crdt.block import Block, parse
from crdt.certificate import AuthorCertificate
from crdt.courier import OF_NO_USE, CourierReader, CourierWriter, lacks_room
from crdt.documents import SignedDocument
from crdt.errors import InputRefused, NotPermitted, RefusalCode
from crdt.facts import ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, DocumentFrame
from crdt.frontier import Frontier, Head, missing, without
from crdt.ledger import RefusedInput
from crdt.revocations import REVOKED_DOCUMENT
from crdt.session import Event, Refused
from crdt.store.hub import HubLedger
from hub.authornames import author_name
from hub.errors import RequestRefused
from hub.evidence import Evidence
from hub.recalling import Recall

BATCH_BYTES = 1024 * 1024  # of blocks and certificates in one merge
BATCH_ITEMS = 4096
MAX_TOLD = 20  # refusals, and gaps, told one by one; the rest are counted


EVIDENCE: Final = frozenset({RefusalCode.FORK_DETECTED, RefusalCode.REVOKED})


@dataclass(frozen=True, slots=True)
class Missing:
    """Numbers that the file speaks of, or that come before what it has, and that are not here."""

    author: str  # see author_name
    replica: str  # hex
    first_seq: int
    last_seq: int


@dataclass(slots=True)
class Imported:
    """What an import did."""

    blocks: int = 0  # new ones
    entries: int = 0  # facts in them
    known: int = 0  # blocks that were here before
    refused: int = 0  # blocks and certificates
    refusals: list[str] = field(default_factory=list)  # whose and why, of the first ones
    evidence: int = 0  # those of them that the quarantine has
    dropped: int = 0  # and those that would be there too, had their terminals' shares of it had room
    missing: list[Missing] = field(default_factory=list)  # the first ones
    missing_more: int = 0  # and how many more such stretches
    trouble: str = ""  # why the file was not read to its end; what came before counts
    damaged: bool = False  # and whether another copy of it may be read further

    def refuse(self, sentence: str) -> None:
        """Note one that was refused."""
        self.refused += 1
        if len(self.refusals) < MAX_TOLD and sentence not in self.refusals:
            self.refusals.append(sentence)


class Import:
    """One file on its way into the ledger."""

    def __init__(self, ledger: HubLedger, evidence: Evidence, lost: Recall) -> None:
        self._ledger = ledger
        self._evidence = evidence
        self._lost = lost
        self._reader = CourierReader(ledger.fleet, ledger.replica)
        self._certificates: list[AuthorCertificate] = []
        self._blocks: list[bytes] = []
        self._bytes = 0
        self._done = Imported()
        self._kept: dict[ReplicaId, set[tuple[int, int]]] = defaultdict(set)  # first and last numbers

    async def run(self, pieces: AsyncIterator[bytes]) -> Imported:
        """Take the whole file; durable when done. Raises StoreError; what was merged before stays."""
        async for piece in pieces:
            await self._take(self._reader.receive_data(piece))
            if self._done.trouble:
                break
        if not self._done.trouble:
            await self._take(self._reader.receive_eof())
        await self._merge()
        if self._reader.heads is not None:
            await self._compare(self._reader.heads)
        return self._done

    async def _take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case CertificateFrame(raw):
                    self._learn(raw)
                    self._bytes += len(raw)
                case DocumentFrame(raw):
                    await self._recall(raw)
                case BlockFrame(raw):
                    self._blocks.append(raw)
                    self._bytes += len(raw)
                case Refused():
                    self._done.trouble = event.text
                    self._done.damaged = event.code not in OF_NO_USE
                case _:
                    pass
            items = len(self._blocks) + len(self._certificates)
            if self._bytes >= BATCH_BYTES or items >= BATCH_ITEMS:
                await self._merge()

    def _learn(self, raw: bytes) -> None:
        try:
            self._certificates.append(AuthorCertificate.decode(raw))
        except InputRefused as error:
            self._done.refuse(str(error))

    async def _recall(self, raw: bytes) -> None:
        """Join a list of revocations that this hub has lost with its own, before the blocks that follow."""
        await self._merge()
        try:
            document = SignedDocument.decode(raw)
            if document.name != REVOKED_DOCUMENT:
                raise NotPermitted(f"a document {document.name!r} is not for a courier file")
            if document != await asyncio.wrap_future(self._ledger.document(REVOKED_DOCUMENT)):
                await self._lost.take(document)
        except InputRefused as error:
            self._done.refuse(str(error))

    async def _merge(self) -> None:
        blocks, self._blocks, self._bytes = self._blocks, [], 0
        certificates, self._certificates = self._certificates, []
        if not blocks and not certificates:
            return
        report = await asyncio.wrap_future(self._ledger.merge(blocks, certificates))
        self._done.blocks += len(report.added)
        self._done.entries += sum(block.header.count for block in report.added)
        self._done.known += report.known
        await self._refuse(report.refused)

    async def _refuse(self, refused: Sequence[RefusedInput]) -> None:
        """Tell of these, and note those that the quarantine has: they are here, and wait for a decision."""
        blocks: dict[bytes, Block] = {}
        suspect: set[bytes] = set()
        for each in refused:
            try:
                block = parse(each.raw)
            except InputRefused:  # it is no block, or a certificate
                self._done.refuse(str(each.error))
                continue
            self._done.refuse(f"{author_name(self._ledger.authors(), block.header.replica)}: {each.error}")
            blocks[block.hash] = block
            if each.error.code in EVIDENCE:
                suspect.add(block.hash)
        kept = await self._evidence.kept(blocks) if blocks else set()
        self._done.evidence += len(kept)
        self._done.dropped += len(suspect - kept)
        for header in (blocks[hash_].header for hash_ in kept):
            self._kept[header.replica].add((header.first_seq, header.last_seq))

    async def _compare(self, promised: Frontier) -> None:
        held = await asyncio.wrap_future(self._ledger.heads(sorted(promised)))
        authors = self._ledger.authors()
        gaps = [
            rest for gap in missing(promised, held) for rest in without(gap, self._kept.get(gap.replica, ()))
        ]
        self._done.missing = [
            Missing(author_name(authors, replica), replica.hex(), after_seq + 1, until_seq)
            for replica, after_seq, until_seq in gaps[:MAX_TOLD]
        ]
        self._done.missing_more = len(gaps[MAX_TOLD:])


async def export(ledger: HubLedger) -> AsyncIterator[bytes]:
    """The whole ledger as a courier file, in pieces: what is held at this moment, author by author, without
    what a revocation takes out of it meanwhile. Raises RequestRefused, with the first piece, where there are
    more authors than a file has room for."""
    heads = await asyncio.wrap_future(ledger.heads())
    if too_many := lacks_room(len(heads)):
        raise RequestRefused(
            "too_large",
            f"Nothing was exported: {too_many}. A backup has all of them: farebox-hub backup FILE.",
            HTTPStatus.CONFLICT,
        )
    listed = await asyncio.wrap_future(ledger.document(REVOKED_DOCUMENT))
    authors = ledger.authors()
    writer = CourierWriter(ledger.fleet, ledger.replica)
    written: dict[ReplicaId, Head] = {}
    yield writer.beginning(heads)
    if listed is not None:
        yield writer.message(CertificateFrame(authors[listed.signer].encode()))
        yield writer.message(DocumentFrame(listed.encode()))
    for replica, head in sorted(heads.items()):
        yield writer.message(CertificateFrame(authors[replica].encode()))
        async for block in _chain(ledger, replica, head):
            yield writer.message(BlockFrame(block.raw))
            written[replica] = block.head
    yield writer.end(written)


async def _chain(ledger: HubLedger, replica: ReplicaId, head: Head) -> AsyncIterator[Block]:
    """The replica's blocks up to a head, or up to where its chain ends by now."""
    at_seq = 0
    while at_seq < head.seq:
        raws = await asyncio.wrap_future(ledger.blocks_after(replica, at_seq, BATCH_BYTES))
        if not raws:
            return
        for block in map(parse, raws):
            if block.last_seq > head.seq:
                return
            at_seq = block.last_seq
            yield block
