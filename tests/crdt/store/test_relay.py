"""Blocks of other terminals on a terminal: merged, held, believed, passed on (invariants 2, 5, 6, 8, 10)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.block import parse, seal
from crdt.certificate import Limits
from crdt.errors import BadSignature, ChainBroken, Malformed, NotPermitted, UnknownAuthor
from crdt.facts import CERTIFIED, Delta, Kind
from crdt.frames import BlockFrame, ShortBlockFrame, Want
from crdt.frontier import GENESIS
from crdt.numbering import restore
from crdt.settlement import UNMET, CardRow
from crdt.store import relay
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, added_up, card, deltas_of
from tests.crdt.store.relays import EVERYTHING, FARE, blocks, give, page, ride, taken_apart


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and three terminals."""
    fleet = Fleet(tmp_path, 3)
    yield fleet
    fleet.close()


def test_invariant_6_what_a_peer_sealed_counts_once_before_and_after_it_is_settled(fleet: Fleet) -> None:
    one, other, third = fleet.terminals
    one.tap(card(1), at_ms=70)
    other.tap(card(1), at_ms=90)
    one.ledger.seal()
    assert give(one, other) == 1
    assert give(one, other) == 0
    assert other.ledger.view(card(1)).balance_minor == 0
    assert other.ledger.held() == (4, 500)
    assert other.ledger.books().balance
    other.reopen()
    assert other.ledger.view(card(1)).balance_minor == 0
    assert other.ledger.status()["foreign_blocks"] == 1
    fleet.push(one)
    fleet.pull(other)
    assert other.ledger.view(card(1)).balance_minor == 0
    assert other.ledger.held() == (2, 250)
    other.ledger.seal()
    assert give(other, third) == 2
    assert third.ledger.view(card(1)).balance_minor == 0
    assert third.ledger.books().voided_minor == 500
    fleet.heal()
    assert len({terminal.ledger.digest() for terminal in fleet.terminals}) == 1


def test_any_terminal_carries_anothers_blocks_to_the_hub(fleet: Fleet) -> None:
    """Relay: the author never meets the hub, and its fares are settled."""
    one, other, _ = fleet.terminals
    ride(one, 5)
    give(one, other)
    raws, certificates = taken_apart(other.ledger.answer(Want({one.ledger.replica: 2}), EVERYTHING))
    assert [parse(raw).header.first_seq for raw in raws] == [3, 4, 5]
    assert certificates == [one.author.certificate]
    raws, certificates = taken_apart(other.ledger.answer(Want({}, others=True), EVERYTHING))
    assert fleet.hub.merge(raws, certificates).result().added == tuple(blocks(one))
    assert fleet.hub.balance(card(0)).result() == -500


def test_an_answer_is_bounded_and_asking_again_goes_on(fleet: Fleet) -> None:
    one, other, third = fleet.terminals
    ride(one, 4)
    ride(other, 3)
    give(other, one)
    steps = 0
    while give(one, third, max_bytes=300):
        steps += 1
    assert steps >= 4
    assert third.ledger.frontier() == one.ledger.frontier()
    assert third.ledger.answer(Want({}), EVERYTHING) == []


def test_merging_is_a_hubs_merging(fleet: Fleet) -> None:
    """Invariants 8 and 10: the same refusals for the same reasons, and what is good beside it is taken."""
    one, other, _ = fleet.terminals
    ride(one, 3)
    first, second, third = (block.raw for block in blocks(one))
    modest = world.terminal(9, Limits(frozenset({Kind.FARE}), 0, 300, 0))
    topup = Delta(modest.key.replica, 1, card(1), Kind.TOPUP, 5, 1)
    minted = seal(modest.key, world.FLEET, [topup], GENESIS)
    damaged = second[:-1] + bytes([second[-1] ^ 1])
    given = [third, b"junk", first, minted.raw, damaged]
    report = other.ledger.merge(given, [one.author.certificate, modest.certificate])
    assert [block.raw for block in report.added] == [first]
    assert {type(each.error): each.raw for each in report.refused} == {
        Malformed: b"junk",
        NotPermitted: minted.raw,
        BadSignature: damaged,
        ChainBroken: third,
    }
    stranger = other.ledger.merge([minted.raw])
    assert isinstance(stranger.refused[0].error, NotPermitted)
    nobody = fleet.terminals[2].ledger.merge([first])
    assert isinstance(nobody.refused[0].error, UnknownAuthor)
    assert other.ledger.merge([second, third]).heads == {one.ledger.replica: one.ledger.own_head()}


def test_invariant_10_the_allowance_of_a_chain_counts_over_merges_and_restarts(fleet: Fleet) -> None:
    other = fleet.terminals[1]
    author = world.terminal(9, Limits(CERTIFIED, 600, 600, 1_000))
    facts = [Delta(author.key.replica, seq, card(1), Kind.TOPUP, 500, seq) for seq in (1, 2, 3)]
    chain = author.blocks(facts, [1, 1, 1])
    assert not other.ledger.merge([block.raw for block in chain[:2]], [author.certificate]).refused
    other.reopen()
    refused = other.ledger.merge([chain[2].raw]).refused
    assert [type(each.error) for each in refused] == [NotPermitted]
    assert other.ledger.view(card(1)).balance_minor == 1_000


def test_what_is_settled_need_not_be_held_and_the_chain_goes_on_from_there(fleet: Fleet) -> None:
    """A terminal that never saw the beginning of a chain takes its newest block, and asks for no old ones."""
    one, other, third = fleet.terminals
    ride(one, 5)
    fleet.push(one)
    fleet.pull(other)
    one.write(card(1), [FARE])
    one.ledger.seal()
    report = other.ledger.merge([block.raw for block in blocks(one)], [one.author.certificate])
    assert (len(report.added), report.known, report.refused) == (1, 5, ())
    assert other.ledger.frontier()[one.ledger.replica] == one.ledger.own_head()
    assert other.ledger.settled_frontier()[one.ledger.replica].seq == 5
    assert other.ledger.pruned_until() == {one.ledger.replica: 5}
    assert other.ledger.view(card(1)).balance_minor == one.ledger.view(card(1)).balance_minor == -500
    # A third terminal without the settlement cannot take it yet, and other chains come first.
    ride(other, 1)
    frames = other.ledger.answer(Want({}, others=True), EVERYTHING)
    assert [parse(frame.raw).header.replica for frame in frames if isinstance(frame, BlockFrame)] == [
        other.ledger.replica,
        one.ledger.replica,
    ]
    report = third.ledger.merge(*taken_apart(frames))
    assert [type(each.error) for each in report.refused] == [ChainBroken]
    assert third.ledger.held()[0] == 1


def test_settled_blocks_of_a_peer_are_asked_for_once_at_most(fleet: Fleet) -> None:
    one, other, _ = fleet.terminals
    ride(one, 3)
    fleet.push(one)
    fleet.pull(other)
    assert one.ledger.replica not in other.ledger.frontier()
    report = other.ledger.merge(*taken_apart(one.ledger.answer(Want({}, others=True), EVERYTHING)))
    assert (report.known, report.added) == (3, ())
    assert other.ledger.frontier()[one.ledger.replica] == one.ledger.own_head()
    assert give(one, other) == 0


def test_a_gap_is_filled_from_its_end_by_blocks_that_the_chain_names(fleet: Fleet) -> None:
    """After a restored hub settled anew from further back; invariant 6 at every step."""
    one, other, _ = fleet.terminals
    ride(one, 6)
    chain = blocks(one)
    rows = [CardRow(card(number), 0, 0, UNMET) for number in range(4)]
    assert other.ledger.install(page({one.ledger.replica: chain[3].head}, rows, 5))
    assert len(other.ledger.merge([chain[4].raw, chain[5].raw], [one.author.certificate]).added) == 2
    assert other.ledger.install(page({one.ledger.replica: chain[0].head}, rows, 1))
    assert other.ledger.held() == (2, -500)
    forged = seal(one.author.key, world.FLEET, [deltas_of(chain[2])[0]], b"?" * 32)
    report = other.ledger.merge([chain[1].raw, forged.raw])
    assert [type(each.error) for each in report.refused] == [ChainBroken, ChainBroken]
    report = other.ledger.merge([chain[1].raw, chain[2].raw, chain[2].raw, chain[3].raw, chain[3].raw])
    assert (len(report.added), report.known, report.refused) == (3, 2, ()), "each block counts once"
    assert other.ledger.held() == (5, -1250)
    before = other.ledger.status()
    other.reopen()
    assert other.ledger.status() == before


def test_a_card_that_was_only_hotlisted_is_not_known_unless_it_is_held(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    one.ledger.install(page({}, [CardRow(card(1), 0, 0, UNMET), CardRow(card(2), 0, 0, 4)], 1))
    assert not one.ledger.view(card(1)).known
    assert not one.ledger.view(card(1)).hotlisted
    assert one.ledger.view(card(2)).hotlisted
    one.write(card(1), [FARE])
    assert one.ledger.view(card(1)).known


def test_blocks_go_short_where_the_settlement_gave_numbers(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    ids = [card(number) for number in range(60)]
    numbers = {which: number for number, which in enumerate(ids, 1) if number != 7}
    rows = [CardRow(which, 0, 0, 0, numbers.get(which, 0)) for which in ids]
    assert one.ledger.install(page({}, rows, 1))
    assert one.ledger.install(page({}, [CardRow(ids[0], 0, 0, 0, 61)], 2, base=1))
    for which in [*ids, card(99)]:
        one.write(which, [FARE])
    block = one.ledger.seal()
    assert block is not None
    (short,) = one.ledger.short_blocks([block.raw])
    assert isinstance(short, ShortBlockFrame)
    assert len(short.raw) < len(block.raw) - 200
    cards = {number: which for which, number in {**numbers, ids[0]: 61}.items()}
    assert restore(short.raw, lambda column: [cards.get(number) for number in column]) == block.raw
    one.write(card(98), [FARE])
    unknown = one.ledger.seal()
    assert unknown is not None
    assert one.ledger.short_blocks([unknown.raw]) == [BlockFrame(unknown.raw)]


def test_a_large_merge_comes_in_transactions_short_enough_for_a_tap(fleet: Fleet) -> None:
    """Invariant 7; and the report is that of one merge."""
    one, other, _ = fleet.terminals
    ride(one, 3 * relay.CHUNK_BLOCKS + 1)
    writes: list[int] = []
    writer = other.database._writer
    wrote = writer._wrote

    def note(rows: int) -> None:
        writes.append(rows)
        wrote(rows)

    writer._wrote = note
    report = other.ledger.merge([block.raw for block in reversed(blocks(one))], [one.author.certificate])
    assert len(report.added) == 3 * relay.CHUNK_BLOCKS + 1
    assert report.heads == {one.ledger.replica: one.ledger.own_head()}
    assert len([rows for rows in writes if rows]) == 4
    assert max(writes) <= 2 * relay.CHUNK_BLOCKS + 4
    assert other.ledger.view(card(0)).balance_minor == one.ledger.view(card(0)).balance_minor


def test_the_believed_state_adds_up_to_every_fact_held(fleet: Fleet) -> None:
    """Invariant 3 with relayed blocks: Σ deltas = Σ balances, by the model's sums."""
    one, other, third = fleet.terminals
    for number in range(12):
        one.tap(card(number % 5))
        other.tap(card(number % 3))
        if number % 4 == 0:
            one.ledger.seal()
            other.ledger.seal()
    for giver in (one, other):
        giver.ledger.seal()
        give(giver, third)
    expected = added_up([*one.written, *other.written])
    for which, state in expected.items():
        assert third.ledger.view(which).balance_minor == state.balance_minor
    books = third.ledger.books()
    assert books.balance
    assert books.deltas_minor == sum(fact.amount_minor for fact in [*one.written, *other.written])
