"""Pruning: a terminal forgets blocks, but only those that a settlement signed by the hub has long included.

How long is counted in the terminal's own time, from the first look after the block was settled. That time may
jump, so the newest facts are kept whatever it says, and with them all that the passback rule remembers.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, update

from crdt.facts import Kind, ReplicaId
from crdt.store.blocks import facts_of, newest_first
from crdt.store.held import RECENT_FARES
from crdt.store.schema import BLOCK, SETTLED_HEAD, TERMINAL

CHUNK_BLOCKS: Final = 64  # of one transaction: a tap waits for one at most


def note_settled(connection: Connection, now_ms: int) -> None:
    """Note when blocks were first seen settled; forget it of those that are not any more.

    They are not when a hub that was restored settles anew, from further back.
    """
    settled = _settled()
    connection.execute(update(BLOCK).where(BLOCK.c.settled_ms.is_(None), settled).values(settled_ms=now_ms))
    connection.execute(update(BLOCK).where(BLOCK.c.settled_ms.is_not(None), ~settled).values(settled_ms=None))


def kept_from(connection: Connection, own: set[ReplicaId], keep_deltas: int) -> int:
    """The first of the blocks that are kept in any case, by ordinal."""
    mine = BLOCK.c.replica.in_(own)
    counts = (
        _from(connection, mine, RECENT_FARES, 0),
        _from(connection, ~mine, RECENT_FARES, 0),
        _from(connection, and_(True), 0, keep_deltas),
    )
    return min(counts)


def prune_some(connection: Connection, settled_before_ms: int, kept_from: int) -> list[ReplicaId]:
    """Delete up to CHUNK_BLOCKS blocks, oldest first; the authors of those deleted."""
    old = (BLOCK.c.settled_ms <= settled_before_ms) & (BLOCK.c.ordinal < kept_from) & _settled()
    query = select(BLOCK.c.ordinal, BLOCK.c.replica).where(old).order_by(BLOCK.c.ordinal).limit(CHUNK_BLOCKS)
    rows = connection.execute(query).all()
    if rows:
        connection.execute(BLOCK.delete().where(BLOCK.c.ordinal.in_([row.ordinal for row in rows])))
    return [ReplicaId(row.replica) for row in rows]


def _settled() -> ColumnElement[bool]:
    """Whether the settlement that shows includes a block: its chain's settled head is not before its end."""
    generation = select(TERMINAL.c.head_generation).scalar_subquery()
    head = SETTLED_HEAD.c
    same_end = or_(BLOCK.c.last_seq < head.seq, and_(BLOCK.c.last_seq == head.seq, BLOCK.c.hash == head.hash))
    included = (head.generation == generation) & (head.replica == BLOCK.c.replica) & same_end
    return select(head.seq).where(included).correlate(BLOCK).exists()


def _from(connection: Connection, whose: ColumnElement[bool], fares: int, deltas: int) -> int:
    """The ordinal from which on there are so many fares and facts; 0 when there are not so many."""
    blocks = 0
    for block in newest_first(connection, whose):
        blocks += 1
        deltas -= block.header.count
        columns = facts_of(block)
        fares -= sum(columns.money[entry][0] is Kind.FARE for entry in columns.index)
        if fares <= 0 and deltas <= 0:
            break
    else:
        return 0
    newest = select(BLOCK.c.ordinal).where(whose).order_by(BLOCK.c.ordinal.desc()).limit(blocks).subquery()
    ordinal: int = connection.execute(select(func.min(newest.c.ordinal))).scalar_one()
    return ordinal
