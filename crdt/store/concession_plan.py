"""A terminal gives way: where its chain of a replica and the hub's contradict each other, the hub's counts.

What is in the terminal's chain alone leaves the record for the quarantine. If this terminal wrote it, its
facts are written again (reissue.py), unless the hub has the very same ones, whatever their numbers: two
chains of a copied storage begin alike, and as the same next identity both may write the rest again.

Of a month of taps that is a second of work, and as long no tap could be written. So what it comes to is
planned beside them, from a snapshot; carrying a plan out is short. It is good for what it rests on alone:
where that has changed meanwhile it has to be made anew. New taps are no such change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, update

from crdt.block import Block
from crdt.errors import ChainBroken, RefusalCode
from crdt.facts import MAX_SEQ, Delta, ReplicaId
from crdt.forks import contradict
from crdt.frontier import Frontier, Head
from crdt.store import papers, quarantine, reissue, segment
from crdt.store.blocks import (
    NO_CHAIN,
    NO_HEAD,
    Chain,
    SegmentRow,
    Span,
    chains_of,
    facts_of,
    heads_of,
    overlapping,
    put_heads,
    store_blocks,
    stored_blocks,
)
from crdt.store.canonical import Canonical
from crdt.store.content import Content
from crdt.store.identities import own_replicas
from crdt.store.quarantine import Quarantined
from crdt.store.reissue import NOTHING_AGAIN, Again
from crdt.store.resolutions import OPEN, REISSUED
from crdt.store.schema import BLOCK, HEAD
from crdt.store.settled import settled_heads_of
from crdt.store.statement import Statement
from crdt.store.terminal_schema import TERMINAL

_DELETE: Final = Statement(
    BLOCK.delete().where(BLOCK.c.replica == bindparam("replica"), BLOCK.c.first_seq == bindparam("first_seq"))
)


class Basis(NamedTuple):
    """What a plan rests on, beside the open segment after the writer's head."""

    mine: bool  # this terminal wrote the chain
    chain: Chain  # as far as it is held
    writer: Head  # of who writes here
    spans: Sequence[Span]  # of the blocks held from where the hub's begin
    settled: Head
    cut_off: int  # where a list of revocations ends it; MAX_SEQ: nowhere
    last_seq: int  # the hub never takes more of the chain
    is_for_review: bool
    aside: Sequence[Quarantined]  # what a list of revocations took out, to be written again
    lives: Frontier  # of the writer's chain that has ended: what is held here of other lives of its storage


class Plan(NamedTuple):
    """What carrying a concession out does."""

    basis: Basis
    leave: Sequence[Block]
    come: Sequence[Block]
    chain: Chain  # as it is then
    evidence: Sequence[Quarantined]
    again: Again
    gained: Collection[Content] | None  # facts that count more, where all others do that did; None: not so
    suspends: bool


def look(
    connection: Connection, hub: Canonical, writer: ReplicaId, of_terminal: AbstractSet[ReplicaId]
) -> Basis:
    """What the plan rests on now. `of_terminal`: its identities. Raises ChainBroken when the hub's blocks
    begin after the chains part.

    What other lives say matters only once a chain written here has ended: some of them end with it, without
    what they have not brought to the hub by then. And what a list took out of a former identity's is with
    what others wrote as that, who have written it again.
    """
    replica, own, lives = hub.replica, own_replicas(connection), of_terminal | hub.shown.keys()
    mine, revoked = replica in own, papers.revocations(connection, hub.listed)
    cut_off = revoked.cut_offs.get(replica, MAX_SEQ)
    _check_beginning(connection, hub, cut_off)
    review = replica in revoked.revoked
    chains = chains_of(connection, [replica, writer])
    return Basis(
        mine,
        chains.get(replica, NO_CHAIN),
        chains.get(writer, NO_CHAIN).head,
        overlapping(connection, replica, hub.first_seq, MAX_SEQ),
        settled_heads_of(connection, [replica]).get(replica, NO_HEAD),
        cut_off,
        revoked.cut_offs.get(replica, hub.head.seq) if hub.ended else MAX_SEQ,
        review,
        reissue.set_aside(connection, replica) if replica == writer and hub.ended and not review else [],
        heads_of(connection, sorted(lives - own)) if mine and hub.ended else {},
    )


def held(connection: Connection, hub: Canonical) -> list[Block]:
    """The blocks that `look` tells the spans of."""
    return list(stored_blocks(connection, hub.replica, hub.first_seq - 1))


def planned(
    hub: Canonical, writer: ReplicaId, basis: Basis, local: Sequence[Block], rows: Sequence[SegmentRow]
) -> Plan:
    """What has to become of these blocks, and of the open segment that followed `basis.writer`.

    Blocks that continue the hub's chain stay, up to the cut-off of one that has ended: the hub takes them
    when they are sent. It may show less than that where it was put back; what is below the cut-off is never
    written again, because it counts wherever it turns up.
    """
    stay, leave = _compared(local, hub, basis.last_seq)
    here = {block.hash for block in stay}
    come = [block for block in hub.blocks if block.hash not in here]
    how = REISSUED if basis.mine and not basis.is_for_review else OPEN
    chain = Chain(_end(hub, basis, stay, leave), basis.chain.credit_minor + _credit(come) - _credit(leave))
    evidence = [_evidence(block, hub.blocks, basis.cut_off, how) for block in leave]
    again = _again(hub, basis, stay, leave, rows) if basis.mine else NOTHING_AGAIN
    gained = _gained(basis, rows, leave, come, again)
    return Plan(basis, leave, come, chain, evidence, again, gained, basis.mine and hub.replica == writer)


def carry_out(
    connection: Connection, replica: ReplicaId, plan: Plan, hidden: list[SegmentRow], noted_ms: int
) -> list[SegmentRow]:
    """Do what was planned; the rows that the open segment has more. `hidden`: they stand there already."""
    for block in plan.leave:
        _DELETE.run(connection, replica=replica, first_seq=block.header.first_seq)
    store_blocks(connection, plan.come)
    quarantine.take_out(connection, [block.hash for block in plan.come])
    if plan.chain.head.seq:
        put_heads(connection, [(replica, *plan.chain)])
    else:
        connection.execute(HEAD.delete().where(HEAD.c.replica == replica))
    quarantine.put(connection, plan.evidence, noted_ms, bounded=False)
    reissue.resolve(connection, plan.basis.aside)
    if plan.suspends:
        connection.execute(update(TERMINAL).values(suspended=1))
    segment.delete(connection, plan.again.gone)
    if hidden:
        segment.show(connection)
        return hidden
    rows = segment.placed(plan.again.lost, segment.last_place(connection))
    segment.put(connection, rows)
    return rows


def _check_beginning(connection: Connection, hub: Canonical, cut_off: int) -> None:
    if overlapping(connection, hub.replica, cut_off + 1, hub.first_seq - 1):
        raise ChainBroken("the chain ends before the blocks given; ask for earlier ones")
    if hub.first_seq == 1 or not hub.blocks:
        return
    for span in overlapping(connection, hub.replica, hub.first_seq - 1, hub.first_seq - 1):
        if (span.last_seq, span.hash) != (hub.first_seq - 1, hub.blocks[0].header.previous):
            raise ChainBroken("the chains part before the blocks given; ask for earlier ones")


def _compared(local: Sequence[Block], hub: Canonical, last_seq: int) -> tuple[list[Block], list[Block]]:
    """Local blocks that are in the hub's chain or continue it up to that number, and all others."""
    hashes = {block.hash for block in hub.blocks}
    stay: list[Block] = []
    leave: list[Block] = []
    end = hub.head
    for block in local:
        follows = (block.header.first_seq, block.header.previous) == (end.seq + 1, end.hash)
        apart = block.header.first_seq > end.seq + 1 and not leave  # what lies between is not held here
        continues = block.header.first_seq > hub.head.seq and (follows or apart)
        if block.hash in hashes or (continues and block.last_seq <= last_seq):
            stay.append(block)
            end = max(end, block.head)
        else:
            leave.append(block)
    return stay, leave


def _end(hub: Canonical, basis: Basis, stay: Sequence[Block], leave: Sequence[Block]) -> Head:
    """Where the chain ends then; NO_HEAD where nothing is left of it."""
    if hub.ended and not (hub.blocks or stay):
        return basis.settled if basis.settled.seq == hub.after_seq else NO_HEAD
    before = [Head(block.header.first_seq - 1, block.header.previous) for block in leave[:1]]
    return max([block.head for block in (*hub.blocks, *stay)] or before, default=basis.chain.head)


def _credit(blocks: Sequence[Block]) -> int:
    return sum(facts_of(block).credit_minor() for block in blocks)


def _evidence(block: Block, counted: Sequence[Block], cut_off: int, how: str) -> Quarantined:
    other = next((each.raw for each in counted if contradict(each, block)), None)
    reason = RefusalCode.REVOKED if block.last_seq > cut_off else RefusalCode.FORK_DETECTED
    entry = Quarantined.of(block, reason, other)
    return replace(entry, resolution=how, amount_minor=facts_of(block).total_minor())


def _again(
    hub: Canonical, basis: Basis, stay: Sequence[Block], leave: Sequence[Block], rows: Sequence[SegmentRow]
) -> Again:
    """What is written again: what the chain that counts then does not have, nor the hub otherwise."""
    said = {*map(Content.of, hub.deltas()), *map(Content.of, _facts(stay)), *hub.elsewhere}
    gone = [row[0] for row in rows if Content.of_row(row[1:]) in said] if said else []
    if basis.is_for_review or not (leave or basis.aside):
        return Again(gone, [])
    said.update(Content.of_row(row[1:]) for row in rows)  # a former identity's may be there already
    lost = [fact for fact in _facts(leave) if Content.of(fact) not in said]
    said.update(map(Content.of, lost))
    # What a list of revocations took out another copy of the storage may have written, as the same identity.
    aside = _facts(entry.block for entry in basis.aside)
    return Again(gone, [*lost, *(fact for fact in aside if Content.of(fact) not in said)])


def _gained(
    basis: Basis, rows: Sequence[SegmentRow], leave: Sequence[Block], come: Sequence[Block], again: Again
) -> Collection[Content] | None:
    """What a view has more. None where it has less too, or a settlement has some of it: count anew then."""
    first_seq = min((block.header.first_seq for block in (*leave, *come)), default=MAX_SEQ)
    if basis.aside or first_seq <= basis.settled.seq:
        return None
    gone = {*again.gone}
    went = Counter(Content.of_row(row[1:]) for row in rows if row[0] in gone)
    went.update(map(Content.of, _facts(leave)))
    went.subtract(map(Content.of, again.lost))  # which are among those that left
    came = Counter(map(Content.of, _facts(come)))
    return [*(came - went).elements()] if went <= came else None


def _facts(blocks: Iterable[Block]) -> Iterator[Delta]:
    for block in blocks:
        yield from facts_of(block).deltas(block.header.replica, block.header.first_seq)
