"""A terminal gives way: where its chain of a replica and the hub's contradict each other, the hub's counts.

What is in the terminal's chain alone leaves the record for the quarantine. If this terminal wrote it, its
facts are written again (reissue.py), unless the hub has the very same ones: two chains of a copied storage
begin alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, update

from crdt.block import Block
from crdt.columns import Columns
from crdt.errors import ChainBroken, RefusalCode
from crdt.facts import MAX_SEQ, Delta, ReplicaId
from crdt.forks import contradict, unheld
from crdt.frontier import Frontier, Head
from crdt.revocations import Revocations
from crdt.store import papers, quarantine, reissue
from crdt.store.blocks import (
    NO_CHAIN,
    NO_HEAD,
    Chain,
    chains_of,
    cut_off,
    facts_of,
    heads_of,
    last_block,
    overlapping,
    put_heads,
    store_blocks,
    stored_blocks,
)
from crdt.store.content import Content
from crdt.store.quarantine import REISSUED, Quarantined
from crdt.store.schema import BLOCK, HEAD
from crdt.store.settled import settled_heads_of
from crdt.store.statement import Statement
from crdt.store.terminal_schema import TERMINAL

_DELETE: Final = Statement(
    BLOCK.delete().where(BLOCK.c.replica == bindparam("replica"), BLOCK.c.first_seq == bindparam("first_seq"))
)


class Conceded(NamedTuple):
    """What a concession did."""

    reissued: int  # facts written again
    quarantined: tuple[bytes, ...]  # hashes of the blocks that left the record


@dataclass(frozen=True, slots=True)
class Canonical:
    """The hub's blocks of a replica, verified, one after another.

    `after_seq`: where they were asked for from. `ended`: the hub takes nothing of the chain beyond its
    cut-off, so what continues it there has to be written again as well. `elsewhere`: what the hub has of
    other identities of the same terminal, which may be the same facts, written again before.
    """

    replica: ReplicaId
    blocks: Sequence[Block]
    facts: Sequence[Columns]
    after_seq: int = 0
    ended: bool = False
    elsewhere: AbstractSet[Content] = frozenset()

    @property
    def head(self) -> Head:
        """Where the hub's chain ends."""
        return self.blocks[-1].head if self.blocks else NO_HEAD

    @property
    def first_seq(self) -> int:
        """Where it begins, as far as it is given."""
        return self.blocks[0].header.first_seq if self.blocks else self.after_seq + 1

    def deltas(self) -> list[Delta]:
        """Its facts."""
        return [
            delta
            for block, columns in zip(self.blocks, self.facts, strict=True)
            for delta in columns.deltas(self.replica, block.header.first_seq)
        ]


def check_chain(blocks: Iterable[Block], replica: ReplicaId) -> None:
    """Raise ChainBroken unless the blocks are of this replica and each follows the one before."""
    before: Block | None = None
    for block in blocks:
        if block.header.replica != replica:
            raise ChainBroken("the blocks given are not of one replica")
        if before is not None and (block.header.first_seq, block.header.previous) != (
            before.last_seq + 1,
            before.hash,
        ):
            raise ChainBroken("the blocks given do not follow one another")
        before = block


def concede(
    connection: Connection,
    canonical: Canonical,
    writer: ReplicaId,
    own: AbstractSet[ReplicaId],
    noted_ms: int,
) -> Conceded:
    """Make the chain of a replica that of the hub. `writer`: who writes here now; `own`: whoever did.

    Blocks that continue the hub's chain stay, up to the cut-off of one that has ended: the hub takes them
    when they are sent. It may show less than that where it was put back; what is below the cut-off is never
    written again, because it counts wherever it turns up.
    Raises ChainBroken when the blocks given do not begin where the chains still agree; ask for earlier ones.
    """
    _check_beginning(connection, canonical)
    local = list(stored_blocks(connection, canonical.replica, canonical.first_seq - 1))
    stay, leave = _compared(local, canonical, _end(connection, canonical))
    _replace(connection, canonical, stay, leave)
    mine = canonical.replica in own
    again = mine and not reissue.is_for_review(connection, canonical.replica)
    how = REISSUED if again else quarantine.OPEN
    entries = [replace(_evidence(block, canonical.blocks), resolution=how) for block in leave]
    quarantine.put(connection, entries, noted_ms, bounded=False)
    count = 0
    if mine:
        given_up = reissue.set_aside(connection, canonical.replica) if again and canonical.ended else []
        held = {*canonical.deltas(), *(fact for block in stay for fact in _facts(block))}
        reissue.forget_open(connection, writer, canonical.elsewhere)
        written = [*leave, *given_up] if again else []
        lost = unheld((fact for block in written for fact in _facts(block)), held)
        lost = [fact for fact in lost if Content.of(fact) not in canonical.elsewhere]
        count = reissue.write_again(connection, canonical.replica, writer, lost, held)
    return Conceded(count, tuple(block.hash for block in leave))


def contested(
    connection: Connection, settled: Frontier, writer: ReplicaId, own: AbstractSet[ReplicaId]
) -> list[ReplicaId]:
    """Those of this terminal's own chains that a settlement with these heads contradicts.

    It may go beyond what is held of an earlier identity: what that wrote and the settlement does not include
    stays in the record, and is written again when the chain is conceded. Beyond the writer's it may not go.
    """
    mine = heads_of(connection, list(own))
    found = []
    for replica in sorted(own & settled.keys()):
        head = settled[replica]
        beyond = head.seq > mine.get(replica, NO_HEAD).seq
        if (beyond and replica == writer) or _contradicted_from(connection, replica, head):
            found.append(replica)
    return found


def give_way(connection: Connection, settled: Frontier, own: AbstractSet[ReplicaId], noted_ms: int) -> None:
    """Take out of the record what a settlement contradicts in chains of other terminals, in this transaction.

    Chains that the settlement is ahead of go on at its head.
    """
    chains = chains_of(connection)
    for replica in sorted((chains.keys() & settled.keys()) - own):
        head, chain = settled[replica], chains[replica]
        if chain.head == head:
            continue
        first = _contradicted_from(connection, replica, head)
        if first:
            removed = cut_off(connection, replica, first - 1)
            entries = [Quarantined.of(one.block, RefusalCode.FORK_DETECTED) for one in removed]
            quarantine.put(connection, entries, noted_ms, bounded=False)
        if first or chain.head.seq <= head.seq:
            credit_minor = chains_of(connection, [replica]).get(replica, NO_CHAIN).credit_minor
            put_heads(connection, [(replica, head, credit_minor)])
    _end_revoked(connection, papers.revocations(connection), own)


def revoke(
    connection: Connection,
    revocations: Revocations,
    writer: ReplicaId,
    own: AbstractSet[ReplicaId],
    noted_ms: int,
) -> list[ReplicaId]:
    """Take out of the record what revoked replicas wrote beyond their cut-offs; returns the revoked ones.

    The replica that writes here keeps its head, so that no number is used twice, and is suspended.
    """
    chains = chains_of(connection)
    revoked = sorted(chains.keys() & revocations.cut_offs.keys())
    for replica in revoked:
        removed = cut_off(connection, replica, revocations.cut_offs[replica])
        entries = [Quarantined.of(one.block, RefusalCode.REVOKED) for one in removed]
        quarantine.put(connection, entries, noted_ms, bounded=False)
        if replica == writer:
            put_heads(connection, [(replica, *chains[replica])])
    _end_revoked(connection, revocations, own)
    if writer in revocations.cut_offs:
        connection.execute(update(TERMINAL).values(suspended=1))
    return revoked


def _end_revoked(connection: Connection, revocations: Revocations, own: AbstractSet[ReplicaId]) -> None:
    """Let the chains of other revoked authors end where they are held, or settled, and no further.

    One may have been known to be longer only from a settlement, which a later one has taken back.
    """
    chains = chains_of(connection, sorted(revocations.cut_offs.keys() - own))
    settled = settled_heads_of(connection, list(chains))
    for replica, chain in chains.items():
        end, block = settled.get(replica, NO_HEAD), last_block(connection, replica)
        if block is not None:
            end = max(end, block.head)
        if NO_HEAD.seq < end.seq < chain.head.seq:
            put_heads(connection, [(replica, end, chain.credit_minor)])
        elif end.seq == NO_HEAD.seq:
            connection.execute(HEAD.delete().where(HEAD.c.replica == replica))


def _check_beginning(connection: Connection, canonical: Canonical) -> None:
    if canonical.first_seq == 1 or not canonical.blocks:
        return
    for span in overlapping(connection, canonical.replica, canonical.first_seq - 1, canonical.first_seq - 1):
        if (span.last_seq, span.hash) != (canonical.first_seq - 1, canonical.blocks[0].header.previous):
            raise ChainBroken("the chains part before the blocks given; ask for earlier ones")


def _end(connection: Connection, canonical: Canonical) -> int:
    """The last number that the hub ever takes of the chain."""
    if not canonical.ended:
        return MAX_SEQ
    return papers.revocations(connection).cut_offs.get(canonical.replica, canonical.head.seq)


def _compared(local: Sequence[Block], canonical: Canonical, last_seq: int) -> tuple[list[Block], list[Block]]:
    """Local blocks that are in the hub's chain or continue it up to that number, and all others."""
    hashes = {block.hash for block in canonical.blocks}
    stay: list[Block] = []
    leave: list[Block] = []
    end = canonical.head
    for block in local:
        follows = (block.header.first_seq, block.header.previous) == (end.seq + 1, end.hash)
        apart = block.header.first_seq > end.seq + 1 and not leave  # what lies between is not held here
        continues = block.header.first_seq > canonical.head.seq and (follows or apart)
        if block.hash in hashes or (continues and block.last_seq <= last_seq):
            stay.append(block)
            end = max(end, block.head)
        else:
            leave.append(block)
    return stay, leave


def _replace(
    connection: Connection, canonical: Canonical, stay: Sequence[Block], leave: Sequence[Block]
) -> None:
    replica = canonical.replica
    chain = chains_of(connection, [replica]).get(replica, NO_CHAIN)
    for block in leave:
        _DELETE.run(connection, replica=replica, first_seq=block.header.first_seq)
    held = {block.hash for block in stay}
    new = [block for block in canonical.blocks if block.hash not in held]
    store_blocks(connection, new)
    quarantine.take_out(connection, [block.hash for block in new])
    credit_minor = chain.credit_minor + sum(facts_of(block).credit_minor() for block in new)
    credit_minor -= sum(facts_of(block).credit_minor() for block in leave)
    if canonical.ended and not (canonical.blocks or stay):
        settled = settled_heads_of(connection, [replica]).get(replica, NO_HEAD)
        end = settled if settled.seq == canonical.after_seq else NO_HEAD
    else:
        before = [Head(block.header.first_seq - 1, block.header.previous) for block in leave[:1]]
        end = max([block.head for block in (*canonical.blocks, *stay)] or before, default=chain.head)
    if end.seq:
        put_heads(connection, [(replica, *Chain(end, credit_minor))])
    else:
        connection.execute(HEAD.delete().where(HEAD.c.replica == replica))


def _contradicted_from(connection: Connection, replica: ReplicaId, head: Head) -> int:
    """Where the chain held contradicts a settled head: the first number of that block; 0 for nowhere."""
    for span in overlapping(connection, replica, head.seq, head.seq):
        return 0 if (span.last_seq, span.hash) == head else span.first_seq
    following = next(stored_blocks(connection, replica, head.seq), None)
    if following is None or following.header.first_seq > head.seq + 1:
        return 0
    return 0 if following.header.previous == head.hash else following.header.first_seq


def _evidence(block: Block, counted: Sequence[Block]) -> Quarantined:
    other = next((each.raw for each in counted if contradict(each, block)), None)
    return Quarantined.of(block, RefusalCode.FORK_DETECTED, other)


def _facts(block: Block) -> tuple[Delta, ...]:
    return facts_of(block).deltas(block.header.replica, block.header.first_seq)
