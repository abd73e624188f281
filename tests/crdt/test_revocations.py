"""Revocations: what a revoked author wrote in time counts, and nothing after it, whoever brings it (10)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.block import Block
from crdt.documents import MAX_DOCUMENT_BYTES, SignedDocument
from crdt.errors import ChainBroken, InputRefused, Malformed, MisuseError, Revoked, TooLarge
from crdt.facts import MAX_SEQ, ReplicaId
from crdt.frontier import MAX_FRONTIER
from crdt.ledger import Ledger
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.wire import Writer
from tests.crdt.vectors import deltas
from tests.crdt.world import CERTIFICATES, FLEET, FLEET_KEY, HUB, HUB_KEY, TERMINALS, chains

REPLICAS = [ReplicaId(bytes([at]) * 16) for at in range(1, 4)]
revocations = st.dictionaries(
    st.binary(min_size=16, max_size=16).map(ReplicaId), st.tuples(st.integers(0, MAX_SEQ), st.booleans())
).map(
    lambda rows: Revocations(
        {replica: cut_off for replica, (cut_off, _) in rows.items()},
        {replica for replica, (_, replaced) in rows.items() if replaced},
    )
)


def _of(listed: Revocations, replica: ReplicaId) -> tuple[object, ...]:
    """What a list says of one."""
    return listed.cut_offs.get(replica), replica in listed.replaced, replica in listed.stopped


@given(revocations)
def test_a_list_reads_as_written_and_travels_as_a_document(listed: Revocations) -> None:
    assert Revocations.decode(listed.encode()) == listed
    document = SignedDocument.seal(HUB_KEY, FLEET, REVOKED_DOCUMENT, 1, listed.encode())
    assert Revocations.decode(SignedDocument.decode(document.encode()).verify(HUB).body) == listed


@given(revocations)
def test_every_truncation_and_any_appended_byte_is_refused(listed: Revocations) -> None:
    body = listed.encode()
    for changed in [*(body[:end] for end in range(len(body))), body + b"\0"]:
        with pytest.raises(InputRefused):
            Revocations.decode(changed)


@given(st.binary(max_size=100))
def test_random_bytes_are_refused_or_are_the_only_writing_of_a_list(data: bytes) -> None:
    try:
        listed = Revocations.decode(data)
    except InputRefused:
        return
    assert listed.encode() == data


def written(*rows: tuple[bytes, int], reason: int = 0) -> bytes:
    writer = Writer().varint(len(rows))
    for replica, cut_off in rows:
        writer.raw(replica).varint(cut_off).uint(reason, 1)
    return writer.done()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(written((REPLICAS[1], 1), (REPLICAS[0], 1)), Malformed, id="out of order"),
        pytest.param(written((REPLICAS[0], 1), (REPLICAS[0], 1)), Malformed, id="twice"),
        pytest.param(written((REPLICAS[0], MAX_SEQ + 1)), Malformed, id="no such number"),
        pytest.param(written((REPLICAS[0], 1), reason=3), Malformed, id="no such reason"),
        pytest.param(Writer().varint(MAX_FRONTIER + 1).done(), TooLarge, id="too many"),
        pytest.param(Writer().varint(2**64 - 1).done(), TooLarge, id="far too many"),
        pytest.param(b"", Malformed, id="nothing"),
    ],
)
def test_a_list_that_breaks_a_rule_is_refused(body: bytes, error: type[InputRefused]) -> None:
    with pytest.raises(error):
        Revocations.decode(body)


def test_the_longest_list_fits_its_document() -> None:
    longest = Revocations({ReplicaId(at.to_bytes(16, "big")): MAX_SEQ for at in range(MAX_FRONTIER)})
    assert len(longest.encode()) <= MAX_DOCUMENT_BYTES
    assert Revocations.decode(longest.encode()) == longest
    with pytest.raises(MisuseError):
        longest.with_cut_off(ReplicaId(b"x" * 16), 0)


@pytest.mark.parametrize("cut_off", [-1, MAX_SEQ + 1, 1.5, True])
def test_a_cut_off_is_a_number(cut_off: int) -> None:
    with pytest.raises(MisuseError):
        NONE_REVOKED.with_cut_off(REPLICAS[0], cut_off)
    with pytest.raises(MisuseError):
        Revocations({ReplicaId(b"short"): 1})
    with pytest.raises(MisuseError):
        Revocations({}, {REPLICAS[0]})


def test_a_cut_off_is_the_last_number_that_counts() -> None:
    listed = NONE_REVOKED.with_cut_off(REPLICAS[0], 5).with_cut_off(REPLICAS[1], 0)
    listed.check(REPLICAS[0], 5)
    listed.check(REPLICAS[2], MAX_SEQ)
    for replica, last_seq in ((REPLICAS[0], 6), (REPLICAS[1], 1)):
        with pytest.raises(Revoked, match="after"):
            listed.check(replica, last_seq)
    assert listed.with_cut_off(REPLICAS[0], 3).cut_offs == {REPLICAS[0]: 3, REPLICAS[1]: 0}


def test_a_replaced_identity_is_told_from_a_revoked_one_and_revokes_nobody_less() -> None:
    listed = NONE_REVOKED.with_cut_off(REPLICAS[0], 5).with_replaced({REPLICAS[0]: 9, REPLICAS[1]: 2})
    assert (listed.cut_offs, listed.replaced) == ({REPLICAS[0]: 5, REPLICAS[1]: 2}, {REPLICAS[1]})
    assert listed.with_cut_off(REPLICAS[1], 1).replaced == {REPLICAS[1]}
    for replica, why in ((REPLICAS[0], "was revoked"), (REPLICAS[1], "was replaced after a restore")):
        with pytest.raises(Revoked, match=why):
            listed.check(replica, 6)


def test_a_revocation_leaves_a_replaced_identity_where_it_ended_and_says_that_it_is_revoked_too() -> None:
    """What it had not sent may have been written again: its cut-off moves for nobody."""
    listed = NONE_REVOKED.with_replaced({REPLICAS[0]: 2}).with_revoked({REPLICAS[0]: 9, REPLICAS[1]: 5})
    assert listed.cut_offs == {REPLICAS[0]: 2, REPLICAS[1]: 5}
    assert (listed.replaced, listed.revoked) == ({REPLICAS[0]}, {*REPLICAS[:2]})
    with pytest.raises(MisuseError, match="stopped"):
        Revocations({REPLICAS[0]: 1}, stopped={REPLICAS[0]})


@given(chains(), st.data())
def test_a_ledger_takes_what_was_written_in_time_in_any_order_and_nothing_later(
    blocks: list[Block], data: st.DataObject
) -> None:
    """Invariants 2, 3 and 10: two ledgers that know one list agree, however the blocks came to them."""
    ends = {author.key.replica: data.draw(st.integers(0, 12)) for author in TERMINALS[:2]}
    listed = Revocations(ends)
    in_time = [block for block in blocks if block.last_seq <= ends.get(block.header.replica, MAX_SEQ)]
    expected = Ledger(FLEET_KEY.public_key)
    expected.merge([block.raw for block in in_time], CERTIFICATES)
    ledger = Ledger(FLEET_KEY.public_key, listed)
    left = data.draw(st.permutations(blocks))
    for _ in range(len(blocks) + 1):
        size = data.draw(st.integers(1, 4))
        refused = []
        for at in range(0, len(left), size):
            report = ledger.merge([block.raw for block in left[at : at + size]], CERTIFICATES)
            assert all(isinstance(item.error, Revoked | ChainBroken) for item in report.refused)
            refused += [item.raw for item in report.refused]
        left = [block for block in left if block.raw in refused]
        assert ledger.books().balance
    assert {block.hash for block in left} == {block.hash for block in blocks} - {
        block.hash for block in in_time
    }
    assert ledger.digest() == expected.digest()


def test_a_block_that_reaches_beyond_the_cut_off_is_refused_whole() -> None:
    """A block is signed as a whole: there is no part of it to take."""
    author = TERMINALS[0]
    from_vectors = [replace(delta, replica=author.key.replica) for delta in deltas()]
    first, second = author.blocks(from_vectors, [2])
    ledger = Ledger(FLEET_KEY.public_key, Revocations({author.key.replica: 3}))
    report = ledger.merge([first.raw, second.raw], CERTIFICATES)
    assert (report.added, [type(item.error) for item in report.refused]) == ((first,), [Revoked])


@st.composite
def lists(draw: st.DrawFn) -> Revocations:
    ends = draw(st.dictionaries(st.sampled_from(REPLICAS), st.integers(0, 9)))
    replaced = {replica for replica in sorted(ends) if draw(st.booleans())}
    return Revocations(ends, replaced, {replica for replica in sorted(replaced) if draw(st.booleans())})


LISTS = lists()


@given(LISTS, LISTS, LISTS)
def test_joining_lists_is_a_join_and_lets_nothing_count_that_one_of_them_ends(
    one: Revocations, two: Revocations, three: Revocations
) -> None:
    """Invariant 2, for a hub that hears of lists it lost, in any order and again."""
    assert one.joined(two) == two.joined(one)
    assert one.joined(two).joined(three) == one.joined(two.joined(three))
    assert one.joined(one) == one
    for listed in (one, two):
        for replica, seq in listed.cut_offs.items():
            assert one.joined(two).cut_offs[replica] <= seq
        assert listed.replaced <= one.joined(two).replaced
        assert listed.revoked <= one.joined(two).revoked
        assert not one.joined(two).lacking(listed)
    assert (not one.lacking(two)) == (one.joined(two) == one)
    unlike = {replica for replica in two.cut_offs if _of(one.joined(two), replica) != _of(one, replica)}
    assert one.lacking(two) == unlike
    assert Revocations.decode(one.encode()) == one
