"""What lies beyond the cut-offs of revoked authors leaves the record, some facts a transaction.

A list counts from the moment it is stored: nothing beyond its cut-offs comes in. What was here before may be
years of facts, and nobody's merge waits for all of it. So chains are cut from their ends down. After each
step every chain is a shorter beginning of itself, and balances and history are those of what is left. Nothing
but the database says what is still to be done: the next start goes on, or another process of the hub. The
last step asks for what is left to be compared with what the hub has copied.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, select

from crdt.block import parse
from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from crdt.revocations import Revocations
from crdt.store import balances, blocks, comparing, papers, projection, quarantine
from crdt.store.blocks import Removed
from crdt.store.hub_schema import CUT
from crdt.store.quarantine import Quarantined
from crdt.store.recording import Change
from crdt.store.rewriting import coming_again
from crdt.store.schema import BLOCK, HEAD
from crdt.store.sql import Bulk, Lookup
from crdt.store.statement import Statement

STEP_FACTS: Final = 1_000  # that leave in one transaction, but for the rest of a block
STEP_BLOCKS: Final = 64

_PUT: Final = Bulk(CUT)
_CUT_OFF_OF: Final = Statement(select(CUT.c.seq).where(CUT.c.replica == bindparam("replica")))
_DONE: Final = Statement(CUT.delete().where(CUT.c.replica == bindparam("replica")))
_NEXT: Final = Statement(select(CUT.c.replica, CUT.c.seq).order_by(CUT.c.replica).limit(STEP_BLOCKS))
_ANY: Final = Statement(select(CUT.c.replica).limit(1))
_PLACE: Final = Statement(
    select(CUT.c.replica, HEAD.c.seq)
    .join_from(CUT, HEAD, HEAD.c.replica == CUT.c.replica, isouter=True)
    .order_by(CUT.c.replica)
    .limit(1)
)
_OF: Final = Lookup(CUT, "replica", ("replica",))
_END: Final = Statement(
    select(BLOCK.c.first_seq, BLOCK.c.last_seq)
    .where(BLOCK.c.replica == bindparam("replica"), BLOCK.c.last_seq > bindparam("seq"))
    .order_by(BLOCK.c.first_seq.desc())
    .limit(bindparam("most", type_=BigInteger))
)


class Cut(NamedTuple):
    """What a step did."""

    change: Change | None  # None: nothing left the record
    more: bool  # whether there is more to do


def begin(connection: Connection, revocations: Revocations) -> None:
    """From now on chains are cut by this list."""
    heads = blocks.heads_of(connection, list(revocations.cut_offs))
    cut_offs = revocations.cut_offs
    longer = [(replica, cut_offs[replica]) for replica, head in heads.items() if head.seq > cut_offs[replica]]
    connection.execute(CUT.delete())
    _PUT.run(connection, longer)


def is_under_way(connection: Connection) -> bool:
    """Whether any chain is still longer than it may be."""
    return _ANY.row(connection) is not None


def place(connection: Connection) -> tuple[bytes, int | None] | None:
    """Where it is: whose chain is cut now, and where that ends; None: at its end."""
    row = _PLACE.row(connection)
    return None if row is None else (row[0], row[1])


def among(connection: Connection, replicas: Collection[ReplicaId]) -> set[ReplicaId]:
    """Those of these authors whose chains are."""
    return {ReplicaId(replica) for (replica,) in _OF.run(connection, replicas)}


def counted_after(connection: Connection, replica: ReplicaId, seq: int, max_bytes: int) -> list[bytes]:
    """See `blocks.blocks_after`; without those that are still to leave.

    A terminal that compares with its chain would take them for counted, and not write them again.
    """
    found = blocks.blocks_after(connection, replica, seq, max_bytes)
    cut_off = _CUT_OFF_OF.value(connection, replica=replica)
    return found if cut_off is None else [raw for raw in found if parse(raw).last_seq <= cut_off]


def cut_some(connection: Connection, at_ms: int) -> Cut:
    """Take some of it out of record, history and balances, into quarantine. `at_ms`: the hub's clock.

    The history comes first, where it is behind: it says what of a card is left.
    """
    if not is_under_way(connection):
        return Cut(None, more=False)
    if projection.catch_up_some(connection, at_ms):
        return Cut(None, more=True)
    position = balances.next_position(connection)
    removed = _shorten(connection, position)
    projection.forget(connection, removed, at_ms)
    loss = balances.Gain()
    for one in removed:
        loss.add(one.facts)
    balances.take_back(connection, loss, position)
    evidence = [Quarantined.of_removed(one, RefusalCode.REVOKED) for one in removed]
    entries = coming_again(evidence, papers.revocations(connection))
    quarantine.put(connection, entries, at_ms, bounded=False)
    authors = {entry.replica for entry in entries}
    more = is_under_way(connection)
    change = Change(position, loss.sums.keys(), authors, suspects=authors, gone=not more)
    return Cut(comparing.asking(connection, change), more)


def _shorten(connection: Connection, position: int) -> Sequence[Removed]:
    """Cut the ends of some chains off; what they were, each chain's in order."""
    removed: list[Removed] = []
    facts, most = STEP_FACTS, STEP_BLOCKS
    for replica, cut_off in _NEXT.rows(connection):
        first_seq = _beginning(connection, replica, cut_off, facts, most)
        if first_seq <= cut_off + 1:
            _DONE.run(connection, replica=replica)
        those = blocks.cut_off(connection, ReplicaId(replica), first_seq - 1, position)
        removed += those
        facts -= sum(one.block.header.count for one in those)
        most -= len(those)
        if facts <= 0 or most <= 0:
            break
    return removed


def _beginning(connection: Connection, replica: bytes, cut_off: int, facts: int, most: int) -> int:
    """With which number a chain's last blocks begin: `most` of them, or `facts` in them, or all beyond."""
    first_seq = cut_off + 1
    for first, last in _END.rows(connection, replica=replica, seq=cut_off, most=most):
        first_seq = first
        facts -= last - first + 1
        if facts <= 0:
            break
    return first_seq
