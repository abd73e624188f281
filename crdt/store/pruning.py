"""Pruning: a terminal forgets blocks, but only those that a settlement signed by the hub has long included.

How long is counted in the terminal's own time, from the first look after the block was settled. That time may
jump, so the newest facts are kept whatever it says, and with them all that the passback rule remembers.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, update

from crdt.facts import Kind
from crdt.store.authorship import ANY, FOREIGN, OWN, Blocks
from crdt.store.blocks import facts_of, newest_first
from crdt.store.held import RECENT_FARES
from crdt.store.memory import Memory
from crdt.store.owned import Owned
from crdt.store.schema import BLOCK
from crdt.store.terminal_schema import SETTLED_HEAD, TERMINAL

CHUNK_BLOCKS: Final = 64  # of one transaction: a tap waits for one at most


def prune(store: Owned, memory: Memory, now_ms: int, retention_ms: int, keep_deltas: int) -> int:
    """See TerminalLedger.prune."""
    store.write(lambda connection: _note_settled(connection, now_ms))
    keep = store.read(lambda connection: kept(connection, keep_deltas))
    total = 0
    while True:
        deleted, _ = store.write(
            lambda connection: _prune_some(connection, now_ms - retention_ms, keep),
            lambda result: memory.pruned(result[1]),
        )
        if not deleted:
            return total
        total += deleted


class Kept(NamedTuple):
    """The blocks that are kept in any case: from which ordinals on."""

    own: int
    foreign: int
    every: int


def kept(connection: Connection, keep_deltas: int) -> Kept:
    """What is kept: the fares that the passback rule remembers, and the last `keep_deltas` facts."""
    own = _from(connection, OWN, RECENT_FARES, 0)
    foreign = _from(connection, FOREIGN, RECENT_FARES, 0)
    return Kept(own, foreign, _from(connection, ANY, 0, keep_deltas))


def _prune_some(connection: Connection, settled_before_ms: int, kept: Kept) -> tuple[int, int]:
    """Delete up to CHUNK_BLOCKS blocks, oldest first; how many, and how many of them were of others."""
    ordinal = BLOCK.c.ordinal
    remembered = or_(and_(OWN.fit, ordinal >= kept.own), and_(FOREIGN.fit, ordinal >= kept.foreign))
    old = (BLOCK.c.settled_ms <= settled_before_ms) & (ordinal < kept.every) & ~remembered & _settled()
    query = select(ordinal, OWN.fit.label("own")).where(old).order_by(ordinal).limit(CHUNK_BLOCKS)
    rows = connection.execute(query).all()
    connection.execute(BLOCK.delete().where(ordinal.in_([row.ordinal for row in rows])))
    return len(rows), sum(not row.own for row in rows)


def _note_settled(connection: Connection, now_ms: int) -> None:
    """Note when blocks were first seen settled; forget it of those that are not any more.

    They are not when a hub that was restored settles anew, from further back.
    """
    settled = _settled()
    connection.execute(update(BLOCK).where(BLOCK.c.settled_ms.is_(None), settled).values(settled_ms=now_ms))
    connection.execute(update(BLOCK).where(BLOCK.c.settled_ms.is_not(None), ~settled).values(settled_ms=None))


def _settled() -> ColumnElement[bool]:
    """Whether the settlement that shows includes a block: its chain's settled head is not before its end."""
    generation = select(TERMINAL.c.head_generation).scalar_subquery()
    head = SETTLED_HEAD.c
    same_end = or_(BLOCK.c.last_seq < head.seq, and_(BLOCK.c.last_seq == head.seq, BLOCK.c.hash == head.hash))
    included = (head.generation == generation) & (head.replica == BLOCK.c.replica) & same_end
    return select(head.seq).where(included).correlate(BLOCK).exists()


def _from(connection: Connection, some: Blocks, fares: int, deltas: int) -> int:
    """The ordinal from which on there are so many fares and facts; 0 when there are not so many."""
    blocks = 0
    for block in newest_first(connection, some.newest):
        blocks += 1
        deltas -= block.header.count
        columns = facts_of(block)
        fares -= sum(columns.money[entry][0] is Kind.FARE for entry in columns.index)
        if fares <= 0 and deltas <= 0:
            break
    else:
        return 0
    last = select(BLOCK.c.ordinal).where(some.fit).order_by(BLOCK.c.ordinal.desc()).limit(blocks).subquery()
    ordinal: int = connection.execute(select(func.min(last.c.ordinal))).scalar_one()
    return ordinal
