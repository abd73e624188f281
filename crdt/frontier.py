"""How far a ledger has each replica's chain, and what that leaves to send."""

from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

from crdt.errors import Malformed, TooLarge
from crdt.facts import ID_BYTES, MAX_SEQ, ReplicaId
from crdt.signing import HASH_BYTES
from crdt.wire import Reader, Writer


class Head(NamedTuple):
    """The end of a replica's chain: its last sequence number, and its last block's hash (32 bytes)."""

    seq: int
    hash: bytes


Frontier = Mapping[ReplicaId, Head]

MAX_FRONTIER: Final = 16_000  # heads in one message: 55 bytes each at most, so that they fit a frame
GENESIS: Final = bytes(HASH_BYTES)  # the `previous` of a replica's first block


def write_frontier(writer: Writer, frontier: Frontier) -> None:
    """Append a frontier: count varint, then by ascending replica id: replica 16, seq varint, hash 32."""
    writer.varint(len(frontier))
    for replica in sorted(frontier):
        head = frontier[replica]
        writer.raw(replica).varint(head.seq).raw(head.hash)


def read_frontier(reader: Reader, most: int = MAX_FRONTIER, least_seq: int = 1) -> dict[ReplicaId, Head]:
    """The frontier written by write_frontier. Malformed when out of order, TooLarge past `most` heads."""
    size = reader.varint()
    if size > most:
        raise TooLarge(f"a frontier has at most {most} heads here")
    frontier: dict[ReplicaId, Head] = {}
    last = b""
    for _ in range(size):
        replica = ReplicaId(reader.raw(ID_BYTES))
        if replica <= last:
            raise Malformed("a frontier is not in ascending order")
        frontier[replica] = Head(reader.varint(least_seq, MAX_SEQ), reader.raw(HASH_BYTES))
        last = replica
    return frontier


def parts(frontier: Frontier) -> list[dict[ReplicaId, Head]]:
    """The frontier in parts that fit a message each, by replica id; at least one."""
    heads = sorted(frontier.items())
    return [dict(heads[at : at + MAX_FRONTIER]) for at in range(0, max(1, len(heads)), MAX_FRONTIER)]


def leading(frontier: Frontier, first: Collection[ReplicaId], settled: Frontier) -> dict[ReplicaId, Head]:
    """As much of a frontier as one message has room for: `first`, then what is not settled, then the rest.

    What is left out is not said to be missing; its turn comes when what is before it is settled.
    """
    if len(frontier) <= MAX_FRONTIER:
        return dict(frontier)

    def need(replica: ReplicaId) -> tuple[bool, bool, ReplicaId]:
        return replica not in first, settled.get(replica) == frontier[replica], replica

    return {replica: frontier[replica] for replica in sorted(frontier, key=need)[:MAX_FRONTIER]}


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


def without(gap: Gap, kept: Collection[tuple[int, int]]) -> Iterator[Gap]:
    """What is left of a gap beside what is kept, each from its first to its last number, in order."""
    after_seq = gap.after_seq
    for first_seq, last_seq in sorted(kept):
        if after_seq < first_seq - 1 < gap.until_seq:
            yield Gap(gap.replica, after_seq, first_seq - 1)
        after_seq = max(after_seq, last_seq)
    if after_seq < gap.until_seq:
        yield Gap(gap.replica, after_seq, gap.until_seq)


def joined(mine: Frontier, theirs: Frontier) -> dict[ReplicaId, Head]:
    """The frontier of both ledgers together: of each replica the longer chain."""
    heads = dict(mine)
    for replica, head in theirs.items():
        if replica not in heads or head.seq > heads[replica].seq:
            heads[replica] = head
    return heads
