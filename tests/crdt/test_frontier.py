"""Frontiers: one writing on the wire (invariant 8), and what one ledger lacks of another (2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.errors import Malformed, TooLarge
from crdt.facts import MAX_SEQ, ReplicaId
from crdt.frames import Ack, encode_frame
from crdt.frontier import (
    MAX_FRONTIER,
    Gap,
    Head,
    joined,
    leading,
    missing,
    parts,
    read_frontier,
    write_frontier,
)
from crdt.wire import Reader, Writer

A, B = ReplicaId(b"a" * 16), ReplicaId(b"b" * 16)
HASH = bytes(32)

replicas = st.sampled_from([ReplicaId(bytes([at]) * 16) for at in range(4)])
frontiers = st.dictionaries(replicas, st.builds(Head, st.integers(1, 5), st.just(HASH)))
Heads = dict[ReplicaId, Head]


def written(*heads: tuple[ReplicaId, int]) -> bytes:
    writer = Writer().varint(len(heads))
    for replica, seq in heads:
        writer.raw(replica).varint(seq).raw(HASH)
    return writer.done()


@given(frontiers)
def test_a_frontier_reads_as_written(frontier: Heads) -> None:
    writer = Writer()
    write_frontier(writer, frontier)
    reader = Reader(writer.done())
    assert read_frontier(reader) == frontier
    reader.end()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(written((B, 1), (A, 1)), id="not in ascending order"),
        pytest.param(written((A, 1), (A, 2)), id="a replica twice"),
        pytest.param(written((A, 0)), id="number 0"),
        pytest.param(written((A, MAX_SEQ + 1)), id="a number out of range"),
        pytest.param(written((A, 1))[:-1], id="cut short"),
    ],
)
def test_a_frontier_written_otherwise_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_frontier(Reader(data))


def test_a_frontier_that_declares_too_many_heads_is_too_large() -> None:
    with pytest.raises(TooLarge):
        read_frontier(Reader(Writer().varint(MAX_FRONTIER + 1).done()))


@given(frontiers, frontiers, frontiers)
def test_joining_frontiers_is_a_join_and_leaves_nothing_missing(one: Heads, two: Heads, three: Heads) -> None:
    assert joined(one, two) == joined(two, one)
    assert joined(one, one) == one
    assert joined(joined(one, two), three) == joined(one, joined(two, three))
    assert missing(one, joined(one, two)) == missing(two, joined(one, two)) == []


def test_what_is_missing_is_named_by_replica_and_numbers() -> None:
    mine = {B: Head(9, HASH), A: Head(4, HASH)}
    assert missing(mine, {B: Head(5, HASH)}) == [Gap(A, 0, 4), Gap(B, 5, 9)]
    assert missing(mine, mine) == []


@pytest.mark.parametrize("count", [0, 1, MAX_FRONTIER, MAX_FRONTIER + 1, 40_000])
def test_a_frontier_that_is_too_long_for_a_message_goes_in_several(count: int) -> None:
    """What a terminal's settlement had included, told to a hub that was put back: nothing is left out."""
    whole = {ReplicaId(at.to_bytes(16, "big")): Head(at + 1, bytes(32)) for at in range(count)}
    split = parts(whole)
    assert [len(part) for part in split[:-1]] == [MAX_FRONTIER] * (len(split) - 1)
    assert all(encode_frame(Ack(part)) for part in split)
    assert {replica: head for part in split for replica, head in part.items()} == whole


def test_of_more_heads_than_a_message_has_room_for_those_that_matter_are_told() -> None:
    """One's own, then what the hub has not settled: so every block finds its way, however many are held."""
    held = {ReplicaId(at.to_bytes(16, "big")): Head(at + 1, bytes(32)) for at in range(40_000)}
    replicas = sorted(held)
    own, waiting = replicas[-1], set(replicas[20_000:21_000])
    settled = {replica: head for replica, head in held.items() if replica not in waiting}
    told = leading(held, [own], settled)
    assert len(told) == MAX_FRONTIER
    assert {own, *waiting} <= told.keys()
    assert told.items() <= held.items()
    assert leading(told, [], {}) == told
