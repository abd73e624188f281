"""What is held already, for judging a block that is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from crdt.block import Block
from crdt.facts import ReplicaId
from crdt.forks import contradict
from crdt.store.blocks import Chain, chains_of, overlapping, stored_blocks


class Record:
    """What is held already, for judging a block: all of it in the tables `block` and `head`."""

    def chains(self, connection: Connection, replicas: Sequence[ReplicaId]) -> dict[ReplicaId, Chain]:
        """How far these replicas' chains are held; those without one are left out."""
        return chains_of(connection, replicas)

    def holds(self, connection: Connection, block: Block) -> bool:
        """Whether this very block, which begins at or before its chain's head, is held."""
        header = block.header
        spans = overlapping(connection, header.replica, header.first_seq, header.first_seq)
        return any(span.hash == block.hash for span in spans)

    def contradicted(self, connection: Connection, block: Block) -> bytes | None:
        """The first block held that cannot be in one chain with this one, as it was signed."""
        header = block.header
        for held in stored_blocks(connection, header.replica, max(0, header.first_seq - 2)):
            if contradict(held, block):
                return held.raw
            if held.header.first_seq > block.last_seq + 1:
                break
        return None


RECORD: Final = Record()
