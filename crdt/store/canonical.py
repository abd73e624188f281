"""The hub's chain of a replica, as a terminal is shown it before its own gives way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from crdt.block import Block
from crdt.columns import Columns
from crdt.documents import SignedDocument
from crdt.errors import ChainBroken
from crdt.facts import Delta, ReplicaId
from crdt.frontier import Frontier, Head
from crdt.store.blocks import NO_HEAD
from crdt.store.content import Content


@dataclass(frozen=True, slots=True)
class Canonical:
    """The hub's blocks of a replica, verified, one after another.

    `after_seq`: where they were asked for from. `ended`: the hub takes nothing of the chain beyond its
    cut-off, so what continues it there has to be written again as well. `elsewhere`: what the hub has of
    other identities that may have had this storage, which may be the same facts, written again before;
    `shown`: where their chains end there. `listed`: the list of revocations by which it has ended, where that
    is not kept here yet.
    """

    replica: ReplicaId
    blocks: Sequence[Block]
    facts: Sequence[Columns]
    after_seq: int = 0
    ended: bool = False
    elsewhere: AbstractSet[Content] = frozenset()
    listed: SignedDocument | None = None
    shown: Frontier = field(default_factory=dict)

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
