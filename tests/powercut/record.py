"""The record in a crash image: its chains verified by the ledger's own rules, each block only once."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from crdt.block import Block, parse, verify
from crdt.errors import LedgerError
from crdt.facts import ReplicaId
from crdt.frontier import GENESIS, Head
from tests.crdt import world
from tests.powercut.images import Broken, Opened
from tests.powercut.settling import Fact

AUTHORS = {
    world.HUB.replica: world.HUB,
    **{author.key.replica: author.certificate for author in world.TERMINALS},
}
_NOTHING: Final = Head(0, GENESIS)


@dataclass(frozen=True, eq=False)
class Verified:
    """A stored block whose signature holds, and its facts."""

    block: Block
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Record:
    """All chains, in the order in which their blocks arrived."""

    blocks: tuple[Verified, ...]
    heads: Mapping[ReplicaId, Head]

    def chain(self, replica: ReplicaId) -> list[Verified]:
        """One replica's blocks in order."""
        return [one for one in self.blocks if one.block.header.replica == replica]


@lru_cache(maxsize=4096)
def verified(raw: bytes) -> Verified:
    """A stored block. Raises Broken when it does not read, or nobody signed it."""
    try:
        block = parse(raw)
        columns = verify(block, AUTHORS[block.header.replica])
    except (LedgerError, KeyError) as err:
        raise Broken(f"a stored block is not what its author sealed: {err!r}") from err
    deltas = columns.deltas(block.header.replica, block.header.first_seq)
    return Verified(block, tuple((one.card, int(one.kind), one.amount_minor, one.at_ms) for one in deltas))


def read_record(opened: Opened, others: Collection[ReplicaId] = ()) -> Record:
    """Every block. Raises Broken unless the chains are whole and the heads are their ends.

    Of `others`, blocks that a settlement included when they came were not kept: their chains have gaps, and
    their heads may be ahead.
    """
    blocks = []
    ends: dict[ReplicaId, Head] = {}
    for raw, hash_, first_seq, last_seq in opened.rows(
        "SELECT raw, hash, first_seq, last_seq FROM block ORDER BY ordinal"
    ):
        one = verified(raw)
        header = one.block.header
        if (one.block.hash, header.first_seq, one.block.last_seq) != (hash_, first_seq, last_seq):
            raise Broken("a stored block's row does not describe it")
        end = ends.get(header.replica, _NOTHING)
        gap = header.replica in others and header.first_seq > end.seq + 1
        if not gap and (header.first_seq, header.previous) != (end.seq + 1, end.hash):
            raise Broken(f"the chain of {header.replica.hex()} breaks after {end.seq}")
        ends[header.replica] = one.block.head
        blocks.append(one)
    rows = opened.rows("SELECT replica, seq, hash FROM head")
    heads = {ReplicaId(replica): Head(seq, hash_) for replica, seq, hash_ in rows}
    ahead = {replica for replica in heads if heads[replica].seq > ends.get(replica, _NOTHING).seq}
    behind = {replica for replica in ends if replica not in ahead and heads.get(replica) != ends[replica]}
    if behind or not ahead <= {*others}:
        raise Broken("the stored heads are not the ends of the stored chains")
    return Record(tuple(blocks), heads)
