"""Whether a block may enter the record: verified before the writer sees it, put in its chain by the writer.

The questions and their order are those of `crdt.ledger.Ledger`, the model: known, author, signature and
contents, then the chain, then the author's allowance; and before the chain, whether the author was revoked.
What is refused because it contradicts the record, or was written after a revocation, is evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, bindparam, select

from crdt.block import Block, parse, verify
from crdt.certificate import AuthorCertificate
from crdt.columns import Columns
from crdt.errors import (
    ChainBroken,
    ForkDetected,
    InputRefused,
    NotPermitted,
    RefusalCode,
    Revoked,
    UnknownAuthor,
)
from crdt.facts import ReplicaId
from crdt.forks import contradict
from crdt.frontier import Head
from crdt.ledger import RefusedInput
from crdt.revocations import NONE_REVOKED, Revocations
from crdt.store.authors import Authors, second_certificate
from crdt.store.blocks import NO_CHAIN, Chain
from crdt.store.quarantine import Quarantined, is_forked
from crdt.store.record import RECORD, Record
from crdt.store.schema import QUARANTINE
from crdt.store.statement import Statement

_BEYOND_CUT_OFF: Final = Statement(
    select(QUARANTINE.c.raw)
    .where(
        QUARANTINE.c.replica == bindparam("replica"),
        QUARANTINE.c.reason == int(RefusalCode.REVOKED),
        QUARANTINE.c.first_seq <= bindparam("until"),
    )
    .order_by(QUARANTINE.c.first_seq.desc())
    .limit(3)
)


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


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A verified author did what it may not: the operator should know."""

    replica: ReplicaId
    code: RefusalCode  # as a flag's
    seq: int  # of the first fact that it is about
    sentence: str


@dataclass(slots=True)
class Admitted:
    """What a merge adds to the record."""

    blocks: list[Block] = field(default_factory=list)
    facts: list[Columns] = field(default_factory=list)
    chains: dict[ReplicaId, Chain] = field(default_factory=dict)  # of every replica given and held
    moved: dict[ReplicaId, Chain] = field(default_factory=dict)  # those of them that are new
    authors: list[AuthorCertificate] = field(default_factory=list)  # stored now
    refused: list[RefusedInput] = field(default_factory=list)
    evidence: list[Quarantined] = field(default_factory=list)  # refused blocks for the quarantine
    suspicions: list[Suspicion] = field(default_factory=list)
    ahead: dict[ReplicaId, int] = field(default_factory=dict)  # what a block beyond a gap shows to exist
    known: int = 0

    @property
    def heads(self) -> dict[ReplicaId, Head]:
        """How far every replica given is held: what to acknowledge."""
        return {replica: chain.head for replica, chain in self.chains.items()}


def prepare(
    connection: Connection,
    authors: Authors,
    raws: Iterable[bytes],
    presented: Iterable[AuthorCertificate],
    record: Record = RECORD,
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
    chains = record.chains(connection, list({block.header.replica for block in blocks}))
    candidates, known = [], []
    for block in blocks:
        head = chains.get(block.header.replica, NO_CHAIN).head
        if block.header.first_seq <= head.seq and record.holds(connection, block):
            known.append(block.header.replica)
        else:
            candidates.append(_verified(block, authors))
    return Prepared(candidates, known, certificates, refused)


def admit(
    connection: Connection,
    authors: Authors,
    prepared: Prepared,
    record: Record = RECORD,
    revocations: Revocations = NONE_REVOKED,
) -> Admitted:
    """Judge a prepared merge against the record in this transaction. Stores certificates, nothing else.

    `revocations`: those that hold in this transaction.
    """
    result = Admitted(known=len(prepared.known), refused=list(prepared.refused))
    enrolling = {certificate.replica: certificate for certificate in prepared.certificates}
    enrolling |= {one.author.replica: one.author for one in prepared.candidates if one.author is not None}
    result.authors, barred = authors.store(connection, enrolling.values(), result.refused)
    given = {candidate.block.header.replica for candidate in prepared.candidates}
    result.chains = record.chains(connection, list(given.union(prepared.known)))
    judge = _Judge(connection, record, revocations, result)
    for candidate in prepared.candidates:
        try:
            if candidate.block.header.replica in barred:
                raise second_certificate()  # noqa: TRY301 - refused like any other block
            judge.take(candidate)
        except InputRefused as error:
            result.refused.append(RefusedInput(candidate.block.raw, error))
    return result


class _Judge:
    """Takes the verified blocks of one merge, each replica's in chain order."""

    def __init__(
        self, connection: Connection, record: Record, revocations: Revocations, result: Admitted
    ) -> None:
        self._connection = connection
        self._record = record
        self._revocations = revocations
        self._result = result
        self._fresh: set[bytes] = set()
        self._branches: set[bytes] = set()  # hashes of this merge's blocks beside the record
        self._revoked: dict[ReplicaId, Block] = {}  # of each author, this merge's last one for later

    def take(self, candidate: Candidate) -> None:
        """Add a block that continues its chain, or note that it is held after all. Raises InputRefused."""
        block, result = candidate.block, self._result
        head, credit_minor = result.chains.get(block.header.replica, NO_CHAIN)
        behind = block.header.first_seq <= head.seq
        if block.hash in self._fresh or (behind and self._record.holds(self._connection, block)):
            result.known += 1
            return
        facts, author = self._verified(candidate)
        self._check_revoked(block)
        self._check_chain(block, head)
        credit_minor += facts.credit_minor()
        self._check_allowance(block, author, credit_minor)
        self._fresh.add(block.hash)
        result.blocks.append(block)
        result.facts.append(facts)
        chain = Chain(block.head, credit_minor)
        result.chains[block.header.replica] = result.moved[block.header.replica] = chain

    def _verified(self, candidate: Candidate) -> tuple[Columns, AuthorCertificate]:
        if candidate.facts is not None and candidate.author is not None:
            return candidate.facts, candidate.author
        if isinstance(candidate.error, NotPermitted):  # found after the signature
            self._suspect(candidate.block, candidate.error)
        raise candidate.error or UnknownAuthor("the block was not verified")

    def _check_revoked(self, block: Block) -> None:
        try:
            self._revocations.check(block.header.replica, block.last_seq)
        except Revoked as error:
            self._keep_revoked(block, error)
            raise

    def _keep_revoked(self, block: Block, error: Revoked) -> None:
        """Evidence, of a branch where it contradicts what was first: that counts if the cut-off moves."""
        replica = block.header.replica
        before = self._revoked.get(replica)
        rival = before if before is not None and contradict(before, block) else None
        rival = rival or _beyond_cut_off(self._connection, block)
        counted = self._contradicted(block) if rival is None else rival.raw
        if counted is not None or self._is_branch(block.header.previous):
            fork = ForkDetected(f"{error}; and its author sealed other blocks for these sequence numbers")
            self._keep(block, fork, counted)
        else:
            self._keep(block, error, None)
            self._revoked[replica] = block

    def _check_chain(self, block: Block, head: Head) -> None:
        header = block.header
        if header.first_seq == head.seq + 1 and header.previous == head.hash:
            return
        if header.first_seq <= head.seq:
            fork = ForkDetected("the author sealed two different blocks for the same sequence numbers")
            self._keep(block, fork, self._contradicted(block))
            raise fork
        if self._is_branch(header.previous):
            fork = ForkDetected("the block continues a branch of its author's chain that does not count")
            self._keep(block, fork, None)
            raise fork
        if header.first_seq > head.seq + 1:
            self._result.ahead[header.replica] = block.last_seq
            raise ChainBroken(f"the author's deltas {head.seq + 1} to {header.first_seq - 1} are missing")
        error = ChainBroken("the block does not follow the one held before it")
        self._keep(block, ForkDetected(str(error)), self._contradicted(block))
        raise error

    def _check_allowance(self, block: Block, author: AuthorCertificate, credit_minor: int) -> None:
        try:
            author.check_allowance(credit_minor)
        except NotPermitted as error:
            self._suspect(block, error)
            raise

    def _is_branch(self, hash_: bytes) -> bool:
        return hash_ in self._branches or is_forked(self._connection, hash_)

    def _contradicted(self, block: Block) -> bytes | None:
        fresh = (held for held in self._result.blocks if contradict(held, block))
        found = next(fresh, None)
        return self._record.contradicted(self._connection, block) if found is None else found.raw

    def _keep(self, block: Block, error: InputRefused, counted: bytes | None) -> None:
        self._result.evidence.append(Quarantined.of(block, error.code, counted))
        if error.code is RefusalCode.FORK_DETECTED:
            self._branches.add(block.hash)
        self._suspect(block, error)

    def _suspect(self, block: Block, error: InputRefused) -> None:
        header = block.header
        self._result.suspicions.append(Suspicion(header.replica, error.code, header.first_seq, str(error)))


def _beyond_cut_off(connection: Connection, block: Block) -> Block | None:
    """The block in quarantine for a revocation alone that cannot be in one chain with this one.

    Those of one author are of one chain, so that of the last ones before this one's end three tell.
    """
    rows = _BEYOND_CUT_OFF.rows(connection, replica=block.header.replica, until=block.last_seq + 1)
    return next((other for other in (parse(raw) for (raw,) in rows) if contradict(other, block)), None)


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


def _verified(block: Block, authors: Authors) -> Candidate:
    author = authors.seen.get(block.header.replica)
    if author is None:
        return Candidate(block, error=UnknownAuthor("there is no certificate for the block's author"))
    try:
        return Candidate(block, verify(block, author), author)
    except InputRefused as error:
        return Candidate(block, error=error)
