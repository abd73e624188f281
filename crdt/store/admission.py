"""Whether a block may enter the record: verified before the writer sees it, put in its chain by the writer.

The questions and their order are those of `crdt.ledger.Ledger`, the model: known, author, signature and
contents, then the chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from crdt.block import Block, parse, verify
from crdt.certificate import AuthorCertificate
from crdt.columns import Columns
from crdt.errors import ChainBroken, ForkDetected, InputRefused, UnknownAuthor
from crdt.facts import ReplicaId
from crdt.frontier import Head
from crdt.ledger import RefusedInput
from crdt.store.authors import Authors, second_certificate
from crdt.store.blocks import NO_HEAD, heads_of, overlapping


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block that is given: its facts and its author once verified, or why it cannot be."""

    block: Block
    facts: Columns | None = None
    author: AuthorCertificate | None = None
    error: InputRefused | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A merge before the writer sees it: everything verified that can be."""

    candidates: Sequence[Candidate]  # each replica's in chain order
    known: Sequence[ReplicaId]  # the author of each block given that is held already
    certificates: Sequence[AuthorCertificate]
    refused: Sequence[RefusedInput]


@dataclass(slots=True)
class Admitted:
    """What a merge adds to the record."""

    blocks: list[Block] = field(default_factory=list)
    facts: list[Columns] = field(default_factory=list)
    heads: dict[ReplicaId, Head] = field(default_factory=dict)  # of every replica given and held
    moved: dict[ReplicaId, Head] = field(default_factory=dict)  # those of them that are new
    authors: list[AuthorCertificate] = field(default_factory=list)  # stored now
    refused: list[RefusedInput] = field(default_factory=list)
    known: int = 0


def prepare(
    connection: Connection,
    authors: Authors,
    raws: Iterable[bytes],
    presented: Iterable[AuthorCertificate],
) -> Prepared:
    """Parse and verify what is given, outside any write. What is held already is not verified again."""
    refused: list[RefusedInput] = []
    unread: list[RefusedInput] = []
    presented = tuple(presented)
    blocks = _parsed(raws, unread)
    authors.learn(connection, [one.replica for one in presented])
    authors.learn(connection, [block.header.replica for block in blocks])
    certificates = authors.checked(presented, refused)
    refused += unread
    heads = heads_of(connection, list({block.header.replica for block in blocks}))
    candidates, known = [], []
    for block in blocks:
        head = heads.get(block.header.replica, NO_HEAD)
        if block.header.first_seq <= head.seq and _is_stored(connection, block):
            known.append(block.header.replica)
        else:
            candidates.append(_verified(block, authors))
    return Prepared(candidates, known, certificates, refused)


def admit(connection: Connection, authors: Authors, prepared: Prepared) -> Admitted:
    """Judge a prepared merge against the record in this transaction. Stores certificates, nothing else."""
    result = Admitted(known=len(prepared.known), refused=list(prepared.refused))
    enrolling = {certificate.replica: certificate for certificate in prepared.certificates}
    enrolling |= {one.author.replica: one.author for one in prepared.candidates if one.author is not None}
    result.authors, barred = authors.store(connection, enrolling.values(), result.refused)
    given = {candidate.block.header.replica for candidate in prepared.candidates}
    result.heads = heads_of(connection, list(given.union(prepared.known)))
    fresh: set[bytes] = set()
    for candidate in prepared.candidates:
        try:
            if candidate.block.header.replica in barred:
                raise second_certificate()  # noqa: TRY301 - refused like any other block
            if candidate.block.hash in fresh or _continue(connection, candidate, result):
                result.known += 1
            else:
                fresh.add(candidate.block.hash)
        except InputRefused as error:
            result.refused.append(RefusedInput(candidate.block.raw, error))
    return result


def _continue(connection: Connection, candidate: Candidate, result: Admitted) -> bool:
    """Add a block that continues its chain; True when it is held after all. Raises InputRefused."""
    block, header = candidate.block, candidate.block.header
    head = result.heads.get(header.replica, NO_HEAD)
    behind = header.first_seq <= head.seq
    if behind and _is_stored(connection, block):
        return True
    if candidate.error is not None or candidate.facts is None or candidate.author is None:
        raise candidate.error or UnknownAuthor("the block was not verified")
    if behind:
        raise ForkDetected("the author sealed two different blocks for the same sequence numbers")
    if header.first_seq > head.seq + 1:
        raise ChainBroken(f"the author's deltas {head.seq + 1} to {header.first_seq - 1} are missing")
    if header.previous != head.hash:
        raise ChainBroken("the block does not follow the one held before it")
    result.blocks.append(block)
    result.facts.append(candidate.facts)
    result.heads[header.replica] = result.moved[header.replica] = block.head
    return False


def _parsed(raws: Iterable[bytes], refused: list[RefusedInput]) -> list[Block]:
    blocks = []
    for raw in raws:
        try:
            blocks.append(parse(raw))
        except InputRefused as error:  # noqa: PERF203 - one bad block must not stop the others
            refused.append(RefusedInput(raw, error))
    return sorted(blocks, key=_order)


def _order(block: Block) -> tuple[bytes, int, bytes]:
    return block.header.replica, block.header.first_seq, block.raw


def _is_stored(connection: Connection, block: Block) -> bool:
    """Whether this very block is in the record."""
    header = block.header
    spans = overlapping(connection, header.replica, header.first_seq, header.first_seq)
    return any(span.hash == block.hash for span in spans)


def _verified(block: Block, authors: Authors) -> Candidate:
    author = authors.seen.get(block.header.replica)
    if author is None:
        return Candidate(block, error=UnknownAuthor("there is no certificate for the block's author"))
    try:
        return Candidate(block, verify(block, author), author)
    except InputRefused as error:
        return Candidate(block, error=error)
