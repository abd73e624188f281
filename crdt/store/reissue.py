"""What a terminal writes again: facts of a chain that gave way, and what a suspended identity left unsealed.

They go into the open segment, with their own times, and are sealed by the identity that writes then.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from sqlalchemy import Connection, bindparam, update

from crdt.block import Block
from crdt.certificate import AuthorCertificate
from crdt.errors import NotPermitted, RefusalCode
from crdt.facts import CardId, Delta, Kind, ReplicaId
from crdt.forks import unheld
from crdt.store import papers, quarantine
from crdt.store.blocks import NO_HEAD, delta_of, fact_row, facts_of, heads_of, stored_blocks
from crdt.store.content import Content
from crdt.store.evidence import DELIVERED, TOLD
from crdt.store.memory import open_segment
from crdt.store.quarantine import OPEN, REISSUED
from crdt.store.sql import Bulk
from crdt.store.statement import Statement
from crdt.store.terminal_schema import OPEN_DELTA, TERMINAL

_INSERT: Final = Bulk(OPEN_DELTA)
_FORGET: Final = Statement(OPEN_DELTA.delete().where(OPEN_DELTA.c.seq == bindparam("seq")))
_WRITTEN: Final = ((OPEN, REISSUED), (DELIVERED, TOLD))


def renumber(connection: Connection, certificate: AuthorCertificate) -> None:
    """Give the open segment of a suspended identity to the one that takes over, numbered after its own head.

    Raises NotPermitted when that may not write one of the facts; then nothing may change.
    """
    rows = open_segment(connection)
    for row in rows:
        if not certificate.permits(Kind(row[2]), row[3]):
            raise NotPermitted(
                f"the new certificate does not allow a {Kind(row[2]).name} of {row[3]}, of before;"
                " issue one that does"
            )
    head = heads_of(connection, [certificate.replica]).get(certificate.replica, NO_HEAD)
    _put(connection, head.seq, [row[1:] for row in rows])


def cards_at_stake(connection: Connection, replica: ReplicaId, after_seq: int) -> set[CardId]:
    """The cards of all facts that may have to be written again once a chain is conceded from there on."""
    entries = quarantine.entries(connection, replica, reason=RefusalCode.REVOKED)
    blocks = [*stored_blocks(connection, replica, after_seq), *(entry.block for entry in entries)]
    cards = {card for block in blocks for card in facts_of(block).cards.ids}
    return cards | {CardId(row[1]) for row in open_segment(connection)}


def is_for_review(connection: Connection, replica: ReplicaId) -> bool:
    """Whether an operator decides what counts of this identity beside the hub's chain, because he has revoked
    it or its terminal: then nothing of it is written again."""
    return replica in papers.revocations(connection).revoked


def set_aside(connection: Connection, replica: ReplicaId) -> list[Block]:
    """What a list of revocations took out of the record of a replaced identity: it is written again now."""
    found: list[Block] = []
    for before, after in _WRITTEN:
        entries = quarantine.entries(connection, replica, before, reason=RefusalCode.REVOKED)
        quarantine.resolve(connection, [entry.hash for entry in entries], after)
        found += [entry.block for entry in entries]
    return sorted(found, key=lambda block: block.header.first_seq)


def forget_open(connection: Connection, writer: ReplicaId, elsewhere: AbstractSet[Content]) -> None:
    """Take out of the open segment what the hub has under another identity."""
    for row in open_segment(connection) if elsewhere else ():
        if Content.of(delta_of(writer, row[0], row[1:])) in elsewhere:
            _FORGET.run(connection, seq=row[0])


def write_again(
    connection: Connection,
    replica: ReplicaId,
    writer: ReplicaId,
    lost: Sequence[Delta],
    held: Collection[Delta],
) -> int:
    """Put lost facts into the open segment; returns how many facts are written again.

    When the chain was the writer's own, its open facts are numbers of that chain as well: those that are
    sealed in the hub's chain go, those that its chain has other facts for are written again, and the
    others keep their numbers, so that they are known when a block with them turns up.
    """
    rows = open_segment(connection)
    if replica != writer:
        if lost:
            first = rows[-1][0] if rows else heads_of(connection, [writer]).get(writer, NO_HEAD).seq
            _put(connection, first, [fact_row(delta) for delta in lost], keep=True)
        return len(lost)
    head = heads_of(connection, [writer]).get(writer, NO_HEAD)
    facts = unheld((delta_of(writer, row[0], row[1:]) for row in rows), held)
    later = [fact for fact in facts if fact.seq > head.seq]
    again = [*lost, *(fact for fact in facts if fact.seq <= head.seq)]
    _put(connection, head.seq, [fact_row(fact) for fact in (*later, *again)])
    connection.execute(update(TERMINAL).values(suspended=1))
    return len(again)


def _put(
    connection: Connection, after_seq: int, facts: Sequence[Sequence[object]], keep: bool = False
) -> None:
    """Number these facts from `after_seq` on, in place of the open segment or (`keep`) at its end."""
    if not keep:
        connection.execute(OPEN_DELTA.delete())
    _INSERT.run(connection, [(seq, *fact) for seq, fact in enumerate(facts, after_seq + 1)])
