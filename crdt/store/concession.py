"""Whose chains a terminal has otherwise than the hub: what a settlement contradicts, what a list cuts off.

A chain of another terminal gives way in the transaction that says so. What who writes here wrote leaves the
record only after it was compared with the hub's chain (conceding.py), but for what an operator revoked.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from sqlalchemy import Connection, update

from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from crdt.frontier import Frontier, Head
from crdt.revocations import Revocations
from crdt.store import papers, quarantine
from crdt.store.blocks import (
    NO_CHAIN,
    NO_HEAD,
    chains_of,
    cut_off,
    heads_of,
    last_block,
    overlapping,
    put_heads,
    stored_blocks,
)
from crdt.store.identities import kept_of_former
from crdt.store.quarantine import Quarantined
from crdt.store.schema import HEAD
from crdt.store.settled import settled_heads_of
from crdt.store.terminal_schema import TERMINAL


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
            entries = [Quarantined.of_removed(one, RefusalCode.FORK_DETECTED) for one in removed]
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
) -> bool:
    """Take out of the record what revoked replicas wrote beyond their cut-offs; whether there was any.

    The replica that writes here keeps its head, so that no number is used twice, and is suspended. Where it
    was only replaced, it keeps all: that counts here until it is written again (concession_plan.py). So does
    one that wrote here before, and then the writer is suspended: the next one writes it again.
    """
    chains = chains_of(connection)
    revoked = sorted(chains.keys() & revocations.cut_offs.keys())
    less = False
    for replica in revoked:
        if replica in own and replica in revocations.written_again:
            continue
        removed = cut_off(connection, replica, revocations.cut_offs[replica])
        entries = [Quarantined.of_removed(one, RefusalCode.REVOKED) for one in removed]
        quarantine.put(connection, entries, noted_ms, bounded=False)
        less = less or bool(removed)
        if replica == writer:
            put_heads(connection, [(replica, *chains[replica])])
    _end_revoked(connection, revocations, own)
    if writer in revocations.cut_offs or kept_of_former(connection, revocations, writer):
        connection.execute(update(TERMINAL).values(suspended=1))
    return less


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


def _contradicted_from(connection: Connection, replica: ReplicaId, head: Head) -> int:
    """Where the chain held contradicts a settled head: the first number of that block; 0 for nowhere."""
    for span in overlapping(connection, replica, head.seq, head.seq):
        return 0 if (span.last_seq, span.hash) == head else span.first_seq
    following = next(stored_blocks(connection, replica, head.seq), None)
    if following is None or following.header.first_seq > head.seq + 1:
        return 0
    return 0 if following.header.previous == head.hash else following.header.first_seq
