"""The record on disk: sealed blocks, the heads of their chains, their authors' certificates."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, func, select

from crdt.block import Block, contents, parse
from crdt.certificate import AuthorCertificate
from crdt.columns import Columns
from crdt.errors import InputRefused, StoreFailed
from crdt.facts import CardId, Context, Delta, Kind, ReplicaId
from crdt.frontier import GENESIS, Head
from crdt.store.schema import AUTHOR, BLOCK, HEAD
from crdt.store.sql import Bulk, Lookup, replacing
from crdt.store.statement import Statement


class Chain(NamedTuple):
    """How far a replica's chain is held, and what its credits add up to."""

    head: Head
    credit_minor: int = 0


NO_HEAD: Final = Head(0, GENESIS)  # of a replica that has sealed nothing
NO_CHAIN: Final = Chain(NO_HEAD)

MAX_ORDINAL: Final = 2**63 - 1
_PART_BLOCKS: Final = 32  # read at a time, so that a long chain is never in memory at once

_INSERT_BLOCK: Final = Bulk(BLOCK, ("replica", "first_seq", "last_seq", "hash", "raw"))
_PUT_HEAD: Final = replacing(HEAD)
_INSERT_AUTHOR: Final = Bulk(AUTHOR)
_CHAIN_COLUMNS: Final = ("replica", "seq", "hash", "credit_minor")
_CHAINS: Final = Statement(select(*(HEAD.c[name] for name in _CHAIN_COLUMNS)))
_CHAINS_OF: Final = Lookup(HEAD, "replica", _CHAIN_COLUMNS)
_AUTHORS: Final = Statement(select(AUTHOR.c.certificate))
_AUTHORS_OF: Final = Lookup(AUTHOR, "replica", ("certificate",))
_THE_REPLICA: Final = BLOCK.c.replica == bindparam("replica")
_SPANS: Final = Statement(
    select(BLOCK.c.first_seq, BLOCK.c.last_seq, BLOCK.c.hash)
    .where(_THE_REPLICA, BLOCK.c.first_seq <= bindparam("last"), BLOCK.c.last_seq >= bindparam("first"))
    .order_by(BLOCK.c.first_seq)
)
_OTHER: Final = BLOCK.alias("other")
_PLACE: Final = select(func.coalesce(func.max(_OTHER.c.first_seq), 0)).where(  # so that an index finds it
    _OTHER.c.replica == bindparam("replica"), _OTHER.c.first_seq <= bindparam("seq")
)
_AFTER: Final = Statement(
    select(BLOCK.c.last_seq, BLOCK.c.raw)
    .where(_THE_REPLICA, BLOCK.c.first_seq >= _PLACE.scalar_subquery(), BLOCK.c.last_seq > bindparam("seq"))
    .order_by(BLOCK.c.first_seq)
    .limit(_PART_BLOCKS)
)
_LAST: Final = Statement(select(BLOCK.c.raw).where(_THE_REPLICA).order_by(BLOCK.c.first_seq.desc()).limit(1))


class Removed(NamedTuple):
    """A block that left the record, and its facts."""

    block: Block
    facts: Columns

    def deltas(self) -> Sequence[Delta]:
        """Its facts, one by one."""
        return self.facts.deltas(self.block.header.replica, self.block.header.first_seq)


class Span(NamedTuple):
    """Which sequence numbers a stored block covers, and its hash."""

    first_seq: int
    last_seq: int
    hash: bytes


def store_blocks(connection: Connection, blocks: Sequence[Block]) -> None:
    """Append the blocks to the record."""
    rows = [
        (block.header.replica, block.header.first_seq, block.last_seq, block.hash, block.raw)
        for block in blocks
    ]
    _INSERT_BLOCK.run(connection, rows)


def put_heads(
    connection: Connection, heads: Iterable[tuple[ReplicaId, Head, int]], position: int = 0
) -> None:
    """Move the heads of these chains, each with its credits so far, changed by the merge at `position`."""
    rows = [(replica, *head, position, credit_minor) for replica, head, credit_minor in heads]
    _PUT_HEAD.run(connection, rows)


def chains_of(connection: Connection, replicas: Sequence[ReplicaId] | None = None) -> dict[ReplicaId, Chain]:
    """How far these replicas' chains are stored (of all, for None); those without one are left out."""
    rows = _CHAINS.rows(connection) if replicas is None else _CHAINS_OF.run(connection, replicas)
    return {ReplicaId(replica): Chain(Head(seq, hash_), minor) for replica, seq, hash_, minor in rows if seq}


def heads_of(connection: Connection, replicas: Sequence[ReplicaId] | None = None) -> dict[ReplicaId, Head]:
    """The stored heads of these replicas (of all, for None); replicas without one are left out."""
    return {replica: chain.head for replica, chain in chains_of(connection, replicas).items()}


def cut_off(connection: Connection, replica: ReplicaId, seq: int, position: int = 0) -> list[Removed]:
    """Remove a replica's blocks that end after `seq`, in order; the chain then ends before the first of them.

    `position`: of the change; 0 on a terminal. A chain of which nothing is left has no head; on a hub its row
    stays, with number 0, so that settlements tell of it.
    """
    removed = [Removed(block, facts_of(block)) for block in stored_blocks(connection, replica, seq)]
    if not removed:
        return []
    chain = chains_of(connection, [replica]).get(replica, NO_CHAIN)
    credit_minor = chain.credit_minor - sum(one.facts.credit_minor() for one in removed)
    first = removed[0].block.header
    connection.execute(BLOCK.delete().where(BLOCK.c.replica == replica, BLOCK.c.last_seq > seq))
    if first.first_seq == 1 and not position:
        connection.execute(HEAD.delete().where(HEAD.c.replica == replica))
    else:
        put_heads(connection, [(replica, Head(first.first_seq - 1, first.previous), credit_minor)], position)
    return removed


def overlapping(connection: Connection, replica: ReplicaId, first_seq: int, last_seq: int) -> list[Span]:
    """The stored blocks of a replica that share a sequence number with this range, in order."""
    rows = _SPANS.rows(connection, replica=replica, first=first_seq, last=last_seq)
    return [Span(*row) for row in rows]


def blocks_after(connection: Connection, replica: ReplicaId, seq: int, max_bytes: int) -> list[bytes]:
    """A replica's blocks after `seq`, in order, at most `max_bytes` together but at least one."""
    found: list[bytes] = []
    size = 0
    for raw in _raw_after(connection, replica, seq):
        size += len(raw)
        if found and size > max_bytes:
            break
        found.append(raw)
    return found


def stored_blocks(connection: Connection, replica: ReplicaId, after_seq: int) -> Iterator[Block]:
    """The stored blocks of a replica that end after `after_seq`, in order."""
    return map(parse, _raw_after(connection, replica, after_seq))


def last_block(connection: Connection, replica: ReplicaId) -> Block | None:
    """The end of a replica's chain."""
    raw = _LAST.value(connection, replica=replica)
    return None if raw is None else parse(raw)


def newest(*conditions: ColumnElement[bool]) -> Statement:
    """What `newest_first` reads: blocks that fit the conditions."""
    before = BLOCK.c.ordinal < bindparam("before")
    query = select(BLOCK.c.ordinal, BLOCK.c.raw).where(before, *conditions)
    return Statement(query.order_by(BLOCK.c.ordinal.desc()).limit(_PART_BLOCKS))


_NEWEST: Final = newest()


def newest_first(connection: Connection, blocks: Statement = _NEWEST) -> Generator[Block]:
    """Every stored block (or those of `newest`), the last to arrive first; a part at a time."""
    part = blocks.rows(connection, before=MAX_ORDINAL)
    while part:
        yield from (parse(raw) for _, raw in part)
        if len(part) < _PART_BLOCKS:
            return
        part = blocks.rows(connection, before=part[-1][0])


def facts_of(block: Block) -> Columns:
    """The facts of a stored block. Raises StoreFailed when it does not read: the file is damaged."""
    try:
        return contents(block)
    except InputRefused as err:
        raise StoreFailed(
            f"A stored block does not read back ({err}); restore the ledger from a backup or from the hub."
        ) from err


def enrol(
    connection: Connection, certificates: Sequence[AuthorCertificate]
) -> tuple[list[AuthorCertificate], list[AuthorCertificate]]:
    """Keep verified certificates, of different authors; returns those stored now or before, and the refused.

    Refused is one whose key has another certificate already: a key is certified once.
    """
    stored = authors_of(connection, [certificate.replica for certificate in certificates])
    new = [one for one in certificates if one.replica not in stored]
    _INSERT_AUTHOR.run(connection, [(one.replica, one.encode()) for one in new])
    stored.update((one.replica, one) for one in new)
    good = [one for one in certificates if stored[one.replica] == one]
    return good, [one for one in certificates if stored[one.replica] != one]


def authors_of(
    connection: Connection, replicas: Sequence[ReplicaId] | None = None
) -> dict[ReplicaId, AuthorCertificate]:
    """The stored certificates of these authors (of all, for None)."""
    rows = _AUTHORS.rows(connection) if replicas is None else _AUTHORS_OF.run(connection, replicas)
    stored = [_decoded(raw) for (raw,) in rows]
    return {certificate.replica: certificate for certificate in stored}


@lru_cache(maxsize=1024)
def _decoded(raw: bytes) -> AuthorCertificate:
    """A stored certificate; few are read over and over, in every exchange."""
    return AuthorCertificate.decode(raw)


FactRow = tuple[bytes, int, int, int, str, str, str, int, int]
SegmentRow = tuple[int, bytes, int, int, int, str, str, str, int, int]  # a number, and a FactRow


def fact_row(delta: Delta) -> FactRow:
    """A delta's columns after its author and number, in the schema's order."""
    context = delta.context
    return (
        delta.card,
        int(delta.kind),
        delta.amount_minor,
        delta.at_ms,
        context.route,
        context.trip,
        context.stop,
        context.clock_epoch,
        context.clock_error_ms,
    )


def delta_of(replica: bytes, seq: int, fact: FactRow) -> Delta:
    """The delta of a row: the inverse of `fact_row`."""
    card, kind, amount_minor, at_ms, route, trip, stop, epoch, error_ms = fact
    context = Context(route, trip, stop, epoch, error_ms)
    return Delta(ReplicaId(replica), seq, CardId(card), Kind(kind), amount_minor, at_ms, context)


def _raw_after(connection: Connection, replica: ReplicaId, seq: int) -> Iterator[bytes]:
    """A part at a time. No streamed result: MariaDB's driver would read it to its end, wanted or not."""
    while part := _AFTER.rows(connection, replica=replica, seq=seq):
        yield from (raw for _, raw in part)
        if len(part) < _PART_BLOCKS:
            return
        seq = part[-1][0]
