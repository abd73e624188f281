"""The payload: one encoding for each list of deltas, everything else is Malformed (invariants 2 and 8)."""

import random
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crdt.columns import MAX_BLOCK_DELTAS, decode, encode
from crdt.errors import InputRefused, Malformed, MisuseError
from crdt.facts import NEW_CARD, CardId, CardState, Context, Delta, Kind
from crdt.planes import write_numbers
from crdt.time_column import read_times
from crdt.wire import Reader, Writer
from tests.crdt.world import TERMINALS, any_card, delta_lists, few_cards

REPLICA = TERMINALS[0].key.replica
cards = st.one_of(few_cards, any_card)


def many_deltas(count: int, cards: int, fares: int) -> list[Delta]:
    """A busy replica: enough different cards, amounts and stops for indexes of two bytes."""
    source = random.Random(count)  # noqa: S311  # a fixed seed, no secret
    return [
        Delta(
            REPLICA,
            seq,
            CardId(source.randrange(cards).to_bytes(7, "big")),
            Kind.FARE,
            -source.randrange(fares),
            seq * 60_000 - source.randrange(120_000) + 10**9,
            Context(route="110", trip=f"trip {seq // 300}", stop=f"stop {seq // 3}"),
        )
        for seq in range(1, count + 1)
    ]


BUSY = many_deltas(MAX_BLOCK_DELTAS, 3000, 2000)


def totals_of(deltas: list[Delta]) -> dict[CardId, CardState]:
    totals: dict[CardId, CardState] = {}
    for delta in deltas:
        totals[delta.card] = totals.get(delta.card, NEW_CARD).plus(delta.kind, delta.amount_minor)
    return totals


@given(delta_lists(cards=cards))
@example(BUSY)
@example(many_deltas(300, 200, 20))
@example(many_deltas(300, 10_000, 1))
def test_deltas_read_as_written_and_sums_match_them(deltas: list[Delta]) -> None:
    columns = decode(encode(deltas).data, len(deltas))
    assert columns.deltas(REPLICA, 1) == tuple(deltas)
    assert columns.totals() == totals_of(deltas)
    assert columns.total_minor() == sum(delta.amount_minor for delta in deltas)
    assert columns.openings_minor() == sum(
        delta.amount_minor for delta in deltas if delta.kind is Kind.OPENING
    )
    assert columns.credit_minor() == sum(delta.amount_minor for delta in deltas if delta.amount_minor > 0)


@given(delta_lists(cards=cards, max_size=8), st.data())
def test_changed_bytes_are_refused_or_are_the_only_writing_of_other_facts(
    deltas: list[Delta], data: st.DataObject
) -> None:
    """The payload is strict even without its signature: what decodes, encodes to the same bytes again."""
    payload = bytearray(encode(deltas).data)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.one_of(st.integers(0, 3), st.integers(0, 255)))
    count = data.draw(st.sampled_from([len(deltas), len(deltas) + 1, 1]))
    try:
        columns = decode(bytes(payload), count)
        found = columns.deltas(REPLICA, 1)
    except InputRefused:
        return
    assert encode(found).data == payload
    assert columns.totals() == totals_of(list(found))


@given(delta_lists(cards=cards, max_size=5))
def test_every_truncation_and_any_appended_byte_is_malformed(deltas: list[Delta]) -> None:
    payload = encode(deltas).data
    for end in range(len(payload)):
        with pytest.raises(Malformed):
            decode(payload[:end], len(deltas))
    with pytest.raises(Malformed):
        decode(payload + b"\0", len(deltas))


@given(st.binary(max_size=300), st.integers(1, MAX_BLOCK_DELTAS))
def test_random_bytes_are_refused(data: bytes, count: int) -> None:
    try:
        columns = decode(data, count)
    except InputRefused:
        return
    assert encode(columns.deltas(REPLICA, 1)).data == data


def test_a_busy_payload_with_one_changed_byte_is_refused_or_canonical() -> None:
    """The same for wide indexes and planes, which small examples do not reach."""
    payload = encode(BUSY).data
    source = random.Random(7)  # noqa: S311  # a fixed seed, no secret
    for _ in range(60):
        at = source.randrange(len(payload))
        changed = payload[:at] + bytes([source.randrange(256)]) + payload[at + 1 :]
        try:
            found = decode(changed, len(BUSY)).deltas(REPLICA, 1)
        except InputRefused:
            continue
        assert encode(found).data == changed


def test_a_block_holds_at_least_one_and_at_most_4096_deltas() -> None:
    with pytest.raises(MisuseError):
        encode([])
    with pytest.raises(MisuseError):
        encode([*BUSY, replace(BUSY[0], seq=len(BUSY) + 1)])


@pytest.mark.parametrize("unit_ms", [1, 10, 100, 1000])
def test_times_are_written_in_the_largest_unit_that_divides_them(unit_ms: int) -> None:
    """Rounding times is worth bytes: the offsets shrink with the unit."""
    start = 1_790_000_001 * 1000
    deltas = [replace(BUSY[0], seq=seq, at_ms=start + 7 * seq**2 * unit_ms) for seq in (1, 2, 3)]
    columns = decode(encode(deltas).data, 3)
    assert columns.times.unit_ms == unit_ms
    assert list(columns.times.values()) == [delta.at_ms for delta in deltas]


def test_times_may_run_backwards_and_reach_both_ends_of_the_range() -> None:
    """A bus's clock is set while it runs; that is data like any other (invariant 9)."""
    times = [2**48 - 1, 0, 2**48 - 1, 5, 5]
    deltas = [replace(BUSY[0], seq=seq, at_ms=at_ms) for seq, at_ms in enumerate(times, 1)]
    assert list(decode(encode(deltas).data, 5).times.values()) == times


@pytest.mark.parametrize(
    ("first", "step", "offsets"),
    [
        pytest.param(0, -1, [0], id="before 1970"),
        pytest.param(2**48 - 1, 1, [0], id="after the range"),
        pytest.param(5, 1, [], id="a step without a second time"),
        pytest.param(5, 1, [1, 2], id="the smallest step is not the step"),
        pytest.param(10, 20, [0], id="a larger unit would do"),
    ],
)
def test_times_not_written_the_one_way_are_malformed(first: int, step: int, offsets: list[int]) -> None:
    writer = Writer().uint(0, 1).varint(first).zigzag(step)
    write_numbers(writer, offsets)
    with pytest.raises(Malformed):
        read_times(Reader(writer.done()), len(offsets) + 1)
