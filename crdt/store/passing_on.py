"""What a terminal passes on of the blocks it holds, its own and those of others, and what it cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, func, select

from crdt.block import Block, parse
from crdt.facts import ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, ShortBlockFrame, Want
from crdt.numbering import cards_of, shorten
from crdt.store.blocks import NO_HEAD, authors_of, blocks_after, heads_of, overlapping
from crdt.store.identities import replaced_here
from crdt.store.schema import BLOCK
from crdt.store.settled import numbers_of, read_standing, settled_heads_of
from crdt.store.statement import Statement

_FIRST: Final = Statement(select(BLOCK.c.replica, func.min(BLOCK.c.first_seq)).group_by(BLOCK.c.replica))


def answer(connection: Connection, want: Want, max_bytes: int) -> list[CertificateFrame | BlockFrame]:
    """What is held beyond what somebody else has: at most `max_bytes` of blocks, but at least one.

    Replica by replica, each with its certificate first. Chains that the other cannot continue, because what
    lies between was deleted here after it was settled, come last: they must not keep the others back.
    """
    heads = heads_of(connection)
    asked = [replica for replica in sorted(heads) if want.others or replica in want.after]
    lacking = [replica for replica in asked if heads[replica].seq > want.after.get(replica, 0)]
    first = _first_after(connection, lacking, want)
    frames: list[CertificateFrame | BlockFrame] = []
    cut_offs = replaced_here(connection)
    for replica in sorted(lacking, key=lambda each: (first.get(each, 0) > want.after.get(each, 0) + 1, each)):
        raws = blocks_after(connection, replica, want.after.get(replica, 0), max(1, max_bytes))
        raws = _passable(raws, replica, cut_offs)
        if not raws:
            continue
        if frames and len(raws[0]) > max_bytes:
            break
        certificate = authors_of(connection, [replica])[replica]
        frames += [CertificateFrame(certificate.encode()), *map(BlockFrame, raws)]
        max_bytes -= sum(map(len, raws))
        if max_bytes <= 0:
            break
    return frames


def blocks_of(connection: Connection, replica: ReplicaId, seq: int, max_bytes: int) -> list[bytes]:
    """See blocks.blocks_after. What a list of revocations cuts off of who was replaced here nobody would
    take."""
    return _passable(blocks_after(connection, replica, seq, max_bytes), replica, replaced_here(connection))


def lacking(connection: Connection) -> dict[ReplicaId, int]:
    """Of each chain that has a gap beyond the settlement: the last number before it.

    A hub that was put back from a backup settles less than it did, and what it had settled need not be held.
    """
    heads = heads_of(connection)
    settled = settled_heads_of(connection, list(heads))
    found = {}
    for replica, head in heads.items():
        until = settled.get(replica, NO_HEAD).seq
        for span in overlapping(connection, replica, until + 1, head.seq) if head.seq > until else ():
            if span.first_seq > until + 1:
                break
            until = span.last_seq
        if until < head.seq:
            found[replica] = until
    return found


def pruned_until(connection: Connection) -> dict[ReplicaId, int]:
    """Of each chain that is not held from its beginning: the last number before what is held."""
    rows = _FIRST.rows(connection)
    return {ReplicaId(replica): first - 1 for replica, first in rows if first > 1}


def shortened(connection: Connection, given: Sequence[Block]) -> list[ShortBlockFrame | BlockFrame]:
    """The blocks, in short form where that is shorter."""
    cards = list({card for block in given for card in cards_of(block)})
    numbers = numbers_of(connection, read_standing(connection), cards)
    shorts = [shorten(block, numbers) for block in given]
    return [
        BlockFrame(block.raw) if short is None else ShortBlockFrame(short)
        for block, short in zip(given, shorts, strict=True)
    ]


def _passable(raws: list[bytes], replica: ReplicaId, cut_offs: Mapping[ReplicaId, int]) -> list[bytes]:
    if replica not in cut_offs:
        return raws
    return [raw for raw in raws if parse(raw).last_seq <= cut_offs[replica]]


def _first_after(connection: Connection, replicas: Sequence[ReplicaId], want: Want) -> dict[ReplicaId, int]:
    """The first number of each replica that is held as a block after what is wanted."""
    first = {}
    for replica in replicas:
        after = BLOCK.c.last_seq > want.after.get(replica, 0)
        query = select(func.min(BLOCK.c.first_seq)).where(BLOCK.c.replica == replica, after)
        first[replica] = connection.execute(query).scalar_one() or 0
    return first
