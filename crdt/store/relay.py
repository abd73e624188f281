"""Blocks of others on a terminal: taken in as a hub does, and held until they are settled.

A terminal does not hold every chain from its beginning: what its settlement includes it need not hold, and
what was settled long ago it deletes. So a chain goes on at its settled head, and may lack blocks before that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import Connection

from crdt.block import Block
from crdt.certificate import AuthorCertificate
from crdt.columns import Columns, decode
from crdt.errors import (
    ChainBroken,
    ForkDetected,
    InputRefused,
    Malformed,
    NotPermitted,
    Restored,
    UnknownAuthor,
)
from crdt.facts import MAX_SEQ, Delta, ReplicaId
from crdt.frontier import Frontier, Head
from crdt.ledger import RefusedInput
from crdt.open_segment import OpenSegment
from crdt.store import papers, quarantine
from crdt.store.admission import Admitted, Candidate, Prepared, admit
from crdt.store.authors import Authors
from crdt.store.blocks import (
    NO_CHAIN,
    NO_HEAD,
    Chain,
    chains_of,
    heads_of,
    overlapping,
    put_heads,
    store_blocks,
    stored_blocks,
)
from crdt.store.identities import own_replicas
from crdt.store.memory import count_quarantined
from crdt.store.record import Record
from crdt.store.settled import settled_heads_of
from crdt.store.terminal_schema import TERMINAL

CHUNK_BLOCKS: Final = 16  # of one transaction: a tap waits for one at most


class TerminalRecord(Record):
    """What a terminal holds, or need not hold because its settlement includes it."""

    def chains(self, connection: Connection, replicas: Sequence[ReplicaId]) -> dict[ReplicaId, Chain]:
        """See Record. The credits of a chain whose beginning is not held are counted from there on only."""
        found = chains_of(connection, replicas)
        for replica, head in settled_heads_of(connection, replicas).items():
            chain = found.get(replica, NO_CHAIN)
            if head.seq > chain.head.seq:
                found[replica] = Chain(head, chain.credit_minor)
        return found

    def holds(self, connection: Connection, block: Block) -> bool:
        """See Record."""
        if super().holds(connection, block):
            return True
        replica = block.header.replica
        settled = settled_heads_of(connection, [replica]).get(replica, NO_HEAD)
        return block.last_seq < settled.seq or block.head == settled


RECORD: Final = TerminalRecord()


@dataclass(slots=True)
class Taken:
    """What one transaction took in."""

    admitted: Admitted
    blocks: list[Block] = field(default_factory=list)
    facts: list[Columns] = field(default_factory=list)
    foreign: int = 0  # of the blocks, how many are of other terminals
    quarantined: int = 0  # in all
    suspended: bool = False  # the blocks prove that this terminal's storage was restored

    @property
    def heads(self) -> Frontier:
        """How far each replica given is held."""
        return self.admitted.heads


def parts_of(prepared: Prepared) -> Iterator[Prepared]:
    """The merge in parts of CHUNK_BLOCKS, in order; at least one."""
    yield replace(prepared, candidates=prepared.candidates[:CHUNK_BLOCKS])
    for at in range(CHUNK_BLOCKS, len(prepared.candidates), CHUNK_BLOCKS):
        yield Prepared(prepared.candidates[at : at + CHUNK_BLOCKS], (), (), ())


def take_in(
    connection: Connection, authors: Authors, prepared: Prepared, writer: ReplicaId, noted_ms: int
) -> Taken:
    """Admit a prepared merge, record it, and keep the evidence. `writer`: the replica that writes here."""
    own, others = _parted(prepared.candidates, lambda one: one.block.header.replica == writer)
    gaps, others = _parted(others, _gap_filler(connection, others))
    admitted = admit(
        connection, authors, replace(prepared, candidates=others), RECORD, papers.revocations(connection)
    )
    taken = Taken(admitted, list(admitted.blocks), list(admitted.facts))
    _fill(connection, gaps, taken)
    taken.suspended = _hear_of_own(connection, own, admitted)
    store_blocks(connection, taken.blocks)
    put_heads(connection, ((replica, *chain) for replica, chain in admitted.chains.items()))
    quarantine.put(connection, admitted.evidence, noted_ms, authors.stored())
    quarantine.take_out(connection, [block.hash for block in taken.blocks])
    own_ever = own_replicas(connection)
    taken.foreign = sum(block.header.replica not in own_ever for block in taken.blocks)
    taken.quarantined = count_quarantined(connection)
    return taken


def open_facts(author: AuthorCertificate, segment: OpenSegment) -> Sequence[Delta]:
    """The facts of a peer's open segment. Raises Malformed or NotPermitted."""
    if not segment.count:
        return ()
    if segment.after.seq + segment.count > MAX_SEQ:
        raise Malformed("the open segment goes beyond the last number there is")
    columns = decode(segment.payload, segment.count)
    for kind, amount_minor in columns.money:
        if not author.permits(kind, amount_minor):
            raise NotPermitted(f"{author.name or 'the peer'} may not write a {kind.name} of {amount_minor}")
    return columns.deltas(author.replica, segment.after.seq + 1)


def follows(
    connection: Connection, author: AuthorCertificate, segment: OpenSegment, facts: Sequence[Delta]
) -> Head | None:
    """The head held, when the segment begins there or before; None when blocks in between are missing.

    `facts`: the segment's. Raises ForkDetected when it follows another chain than the one held, Revoked,
    NotPermitted when the credit in it is beyond the author's allowance.
    """
    replica = author.replica
    if segment.count:
        papers.revocations(connection).check(replica, segment.after.seq + segment.count)
    (head, credit_minor), after = RECORD.chains(connection, [replica]).get(replica, NO_CHAIN), segment.after
    same_end = after == head
    if after.seq < head.seq:
        spans = overlapping(connection, replica, after.seq, after.seq)
        same_end = all((span.last_seq, span.hash) == after for span in spans)
    if after.seq <= head.seq and not same_end:
        raise ForkDetected("the peer's open segment follows another chain than the one that it sent before")
    if after.seq > head.seq:
        return None
    credit_minor += sum(max(0, fact.amount_minor) for fact in facts if fact.seq > head.seq)
    author.check_allowance(credit_minor)
    return head


def _parted(
    some: Iterable[Candidate], condition: Callable[[Candidate], bool]
) -> tuple[list[Candidate], list[Candidate]]:
    """Those for which the condition holds, and the others."""
    yes: list[Candidate] = []
    no: list[Candidate] = []
    for one in some:
        (yes if condition(one) else no).append(one)
    return yes, no


def _hear_of_own(connection: Connection, given: Sequence[Candidate], admitted: Admitted) -> bool:
    """Judge blocks of the replica that writes here; whether one of them proves a restored storage.

    Nobody else has its key: a block of it that is not held was sealed here once, and forgotten.
    """
    restored = False
    for candidate in given:
        try:
            if RECORD.holds(connection, candidate.block):
                admitted.known += 1
                continue
            if candidate.error is not None:
                raise candidate.error
            restored = True
            raise Restored(
                "this terminal sealed a block that it does not hold: its storage was put back, or copied"
            )
        except InputRefused as error:
            admitted.refused.append(RefusedInput(candidate.block.raw, error))
    if restored:
        connection.execute(TERMINAL.update().values(suspended=1))
    if given:
        admitted.chains |= chains_of(connection, [given[0].block.header.replica])
    return restored


def _gap_filler(connection: Connection, given: Sequence[Candidate]) -> Callable[[Candidate], bool]:
    """Whether a block lies where its chain has a gap: before the head, after the settlement, on nothing."""
    replicas = list({one.block.header.replica for one in given})
    heads, settled = heads_of(connection, replicas), settled_heads_of(connection, replicas)

    def fits(candidate: Candidate) -> bool:
        block, header = candidate.block, candidate.block.header
        begins = settled.get(header.replica, NO_HEAD).seq + 1
        if not begins <= header.first_seq <= block.last_seq <= heads.get(header.replica, NO_HEAD).seq:
            return False
        return not overlapping(connection, header.replica, header.first_seq, block.last_seq)

    return fits


def _fill(connection: Connection, gaps: Sequence[Candidate], taken: Taken) -> None:
    """Take blocks that lie in a gap: from its end on, each named by the one that follows it."""
    admitted = taken.admitted
    previous: dict[tuple[ReplicaId, int], bytes] = {}
    filled: set[bytes] = set()
    for candidate in reversed(gaps):
        block, header = candidate.block, candidate.block.header
        if block.hash in filled:
            admitted.known += 1
            continue
        admitted.chains |= chains_of(connection, [header.replica])
        try:
            if candidate.error is not None or candidate.facts is None:
                raise candidate.error or UnknownAuthor("the block was not verified")
            if block.hash != previous.get((header.replica, block.last_seq)) and not _is_named(
                connection, block
            ):
                raise ChainBroken(f"the author's deltas after {block.last_seq} are missing")
        except InputRefused as error:
            admitted.refused.append(RefusedInput(block.raw, error))
            continue
        previous[header.replica, header.first_seq - 1] = header.previous
        filled.add(block.hash)
        taken.blocks.append(block)
        taken.facts.append(candidate.facts)


def _is_named(connection: Connection, block: Block) -> bool:
    """Whether the chain held names this block: as its head, or as the one before a block of it."""
    replica = block.header.replica
    if heads_of(connection, [replica]).get(replica) == block.head:
        return True
    following = next(stored_blocks(connection, replica, block.last_seq), None)
    if following is None:
        return False
    return (following.header.first_seq, following.header.previous) == (block.last_seq + 1, block.hash)
