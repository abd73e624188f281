"""How far a ledger has each replica's chain, and what that leaves to send."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from crdt.facts import ReplicaId


class Head(NamedTuple):
    """The end of a replica's chain: its last sequence number, and its last block's hash (32 bytes)."""

    seq: int
    hash: bytes


Frontier = Mapping[ReplicaId, Head]

GENESIS: Final = bytes(32)  # the `previous` of a replica's first block


class Gap(NamedTuple):
    """A stretch of one replica's chain that somebody lacks: after_seq < seq <= until_seq."""

    replica: ReplicaId
    after_seq: int
    until_seq: int


def missing(mine: Frontier, theirs: Frontier) -> list[Gap]:
    """What `theirs` lacks of `mine`, by replica id. What I lack is `missing(theirs, mine)`.

    Only replicas where mine is ahead appear; one that forked is noticed when a block is refused.
    """
    gaps = []
    for replica in sorted(mine):
        head = mine[replica]
        held = theirs[replica].seq if replica in theirs else 0
        if head.seq > held:
            gaps.append(Gap(replica, held, head.seq))
    return gaps


def disagreements(mine: Frontier, theirs: Frontier) -> list[ReplicaId]:
    """Replicas whose heads have the same sequence number and different hashes: a fork for certain."""
    return sorted(
        replica
        for replica in mine.keys() & theirs.keys()
        if mine[replica].seq == theirs[replica].seq and mine[replica].hash != theirs[replica].hash
    )


def joined(mine: Frontier, theirs: Frontier) -> dict[ReplicaId, Head]:
    """The frontier of both ledgers together: of each replica the longer chain."""
    heads = dict(mine)
    for replica, head in theirs.items():
        if replica not in heads or head.seq > heads[replica].seq:
            heads[replica] = head
    return heads
