"""The join: invariants 2, 3, 9 and 11, and what is refused (8)."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from crdt.block import Block, parse, seal, verify
from crdt.errors import ChainBroken, ForkDetected, InputRefused, NotPermitted, UnknownAuthor
from crdt.facts import CardId, Delta, Kind
from crdt.frontier import GENESIS, joined, missing
from crdt.ledger import Ledger
from tests.crdt.world import (
    ANYTHING,
    CERTIFICATES,
    FLEET,
    FLEET_KEY,
    OTHER_FLEET_KEY,
    TERMINALS,
    chains,
    delta_lists,
    money,
    terminal,
)

CARD = CardId(bytes.fromhex("04a1b2c3d4e5f6"))


def ledger_of(blocks: list[Block]) -> Ledger:
    ledger = Ledger(FLEET_KEY.public_key)
    report = ledger.merge([block.raw for block in blocks], CERTIFICATES)
    assert not report.refused
    return ledger


def errors(refused: tuple[object, ...]) -> list[type[InputRefused]]:
    return [type(item.error) for item in refused]  # type: ignore[attr-defined]


@given(chains(), st.data())
def test_invariant_2_any_order_repetition_and_grouping_give_the_same_digest(
    blocks: list[Block], data: st.DataObject
) -> None:
    """Merge is a join: shuffled, repeated and split over calls, the state digest is byte-identical."""
    expected = ledger_of(blocks)
    shuffled = data.draw(st.permutations(blocks + data.draw(st.lists(st.sampled_from(blocks), max_size=4))))
    ledger = Ledger(FLEET_KEY.public_key)
    left = [block.raw for block in shuffled]
    for _ in range(
        len(blocks) + 1
    ):  # a block that came before its predecessor is given again, as a sync does
        size = data.draw(st.integers(1, 4))
        refused = []
        for at in range(0, len(left), size):
            report = ledger.merge(left[at : at + size], CERTIFICATES)
            assert all(isinstance(item.error, ChainBroken) for item in report.refused)
            refused += [item.raw for item in report.refused]
        left = refused
    assert not left
    assert ledger.digest() == expected.digest()
    assert ledger.frontier == expected.frontier
    assert ledger.cards() == expected.cards()


@given(chains(), st.data())
def test_invariant_2_paths_through_other_ledgers_do_not_matter(
    blocks: list[Block], data: st.DataObject
) -> None:
    """Any path: parts learnt apart and exchanged by frontier end equal on both sides, (a+b)+c = a+(b+c)."""
    cut = data.draw(st.integers(0, len(blocks)))
    one, two = Ledger(FLEET_KEY.public_key), Ledger(FLEET_KEY.public_key)
    one.merge([block.raw for block in blocks[:cut]], CERTIFICATES)

    two.merge([block.raw for block in data.draw(st.permutations(blocks))], CERTIFICATES)
    expected_frontier = joined(one.frontier, two.frontier)
    for giver, taker in ((one, two), (two, one)):
        for gap in missing(giver.frontier, taker.frontier):
            taker.merge(giver.blocks_after(gap.replica, gap.after_seq), giver.certificates.values())
    assert one.digest() == two.digest() == ledger_of(blocks).digest()
    assert one.frontier == expected_frontier
    assert missing(one.frontier, two.frontier) == missing(two.frontier, one.frontier) == []


@given(chains())
def test_invariant_2_merging_again_changes_nothing(blocks: list[Block]) -> None:
    ledger = ledger_of(blocks)
    before = ledger.digest(), ledger.books()
    report = ledger.merge([block.raw for block in blocks], CERTIFICATES)
    assert (report.added, report.known, report.refused) == ((), len(blocks), ())
    assert report.heads == ledger.frontier
    assert (ledger.digest(), ledger.books()) == before


@given(chains())
def test_invariant_3_the_books_balance_after_every_step(blocks: list[Block]) -> None:
    """The sum of deltas is the sum of balances and voided openings; everything is an integer."""
    ledger = Ledger(FLEET_KEY.public_key)
    total = 0
    for block in blocks:
        report = ledger.merge([block.raw], CERTIFICATES)
        assert report.added == (block,)
        columns_total = sum(delta.amount_minor for delta in facts_of(block))
        total += columns_total
        books = ledger.books()
        assert books.balance
        assert books.deltas_minor == total
        assert books.balances_minor == sum(ledger.balance(card) for card in ledger.cards())
        assert all(type(value) is int for value in books)


def facts_of(block: Block) -> tuple[Delta, ...]:
    author = next(each for each in TERMINALS if each.key.replica == block.header.replica)
    return verify(block, author.certificate).deltas(block.header.replica, block.header.first_seq)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=3), st.integers(0, 400))
def test_invariant_11_one_opening_balance_for_a_card_that_several_buses_meet_first(
    openings: list[int], fare: int
) -> None:
    """Each bus gives its opening offline and takes a fare; after merging, the largest opening counts once."""
    ledger = Ledger(FLEET_KEY.public_key)
    for author, opening in zip(TERMINALS, openings, strict=False):
        deltas = [
            Delta(author.key.replica, 1, CARD, Kind.OPENING, opening, 1000),
            Delta(author.key.replica, 2, CARD, Kind.FARE, -fare, 2000),
        ]
        ledger.merge([seal(author.key, FLEET, deltas, GENESIS).raw], CERTIFICATES)
    assert ledger.balance(CARD) == max(openings) - fare * len(openings)
    assert ledger.books().voided_minor == sum(openings) - max(openings)
    assert ledger.books().balance


def test_invariant_11_also_within_one_block_and_across_blocks_of_one_replica() -> None:
    author = TERMINALS[0]
    opening = [
        Delta(author.key.replica, seq, CARD, Kind.OPENING, amount, 0)
        for seq, amount in enumerate([300, 700, 500], 1)
    ]
    for sizes in ([3], [1, 1, 1], [2, 1]):
        ledger = ledger_of(author.blocks(opening, sizes))
        assert ledger.balance(CARD) == 700
        assert ledger.books().voided_minor == 800


@given(delta_lists(), st.data())
def test_invariant_9_clocks_never_decide_a_merge(deltas: list[Delta], data: st.DataObject) -> None:
    """Whatever the clocks said when the same facts were written, balances and books are the same."""
    author = TERMINALS[0]
    wrong = [replace(delta, at_ms=data.draw(st.integers(0, 2**48 - 1))) for delta in deltas]
    right_ledger, wrong_ledger = ledger_of(author.blocks(deltas, [3])), ledger_of(author.blocks(wrong, [3]))
    assert right_ledger.cards() == wrong_ledger.cards()
    assert right_ledger.books() == wrong_ledger.books()


@given(chains(max_size=6), st.data())
def test_invariant_8_a_refused_block_changes_nothing(blocks: list[Block], data: st.DataObject) -> None:
    """One flipped bit anywhere in any block: a typed refusal, and the state is as it was."""
    ledger = ledger_of(blocks)
    before = ledger.digest(), ledger.books(), ledger.frontier
    victim = bytearray(data.draw(st.sampled_from(blocks)).raw)
    bit = data.draw(st.integers(0, len(victim) * 8 - 1))
    victim[bit // 8] ^= 1 << bit % 8
    fresh = Ledger(FLEET_KEY.public_key)
    empty = fresh.digest()
    for target in (ledger, fresh):
        report = target.merge([bytes(victim)], CERTIFICATES)
        assert not report.added
        # Flipping the signature alone leaves the hash: a ledger that holds the block has nothing to learn.
        assert report.refused or (target is ledger and report.known)
    assert (ledger.digest(), ledger.books(), ledger.frontier) == before
    assert fresh.digest() == empty


@given(delta_lists(max_size=12))
def test_a_gap_is_refused_and_mended_by_the_missing_block(deltas: list[Delta]) -> None:
    author = TERMINALS[0]
    blocks = author.blocks(deltas, [1] * len(deltas))
    ledger = Ledger(FLEET_KEY.public_key)
    report = ledger.merge([block.raw for block in blocks[1:]], CERTIFICATES)
    assert errors(report.refused) == [ChainBroken] * (len(blocks) - 1)
    assert all("missing" in str(item.error) for item in report.refused)
    assert not report.heads
    assert not ledger.merge([block.raw for block in blocks]).refused


def test_a_wrong_previous_hash_is_refused() -> None:
    author = TERMINALS[0]
    first = seal(author.key, FLEET, [fare(1)], GENESIS)
    stray = seal(author.key, FLEET, [fare(2)], b"?" * 32)
    report = ledger_of([first]).merge([stray.raw])
    assert errors(report.refused) == [ChainBroken]


def fare(seq: int, amount: int = -250) -> Delta:
    return Delta(TERMINALS[0].key.replica, seq, CARD, Kind.FARE, amount, 1000 * seq)


def test_two_histories_of_one_replica_are_a_fork_and_the_first_one_held_stays() -> None:
    """A restored SD card re-uses numbers: the second history is refused, and not counted."""
    author = TERMINALS[0]
    ours = author.blocks([fare(1), fare(2), fare(3)], [1, 2])
    theirs = author.blocks([fare(1), fare(2, -100)], [1, 1])
    ledger = ledger_of(ours)
    before = ledger.digest()
    report = ledger.merge([block.raw for block in theirs])
    assert report.known == 1
    assert errors(report.refused) == [ForkDetected]
    assert ledger.digest() == before


def test_a_block_without_its_authors_certificate_is_refused() -> None:
    block = TERMINALS[0].blocks([fare(1)], [])[0]
    report = Ledger(FLEET_KEY.public_key).merge([block.raw])
    assert errors(report.refused) == [UnknownAuthor]


def test_certificates_of_another_fleet_or_changed_ones_are_refused() -> None:
    """Only the fleet's own key enrols authors, and each key once."""
    certificate = TERMINALS[0].certificate
    foreign = Ledger(OTHER_FLEET_KEY.public_key)
    assert [item.error.code.name for item in foreign.merge([], [certificate]).refused] == ["FOREIGN_FLEET"]
    altered = replace(certificate, name="bus 99")
    assert [item.error.code.name for item in Ledger(FLEET_KEY.public_key).merge([], [altered]).refused] == [
        "BAD_SIGNATURE"
    ]
    ledger = ledger_of([])
    twice = terminal(1, replace(certificate.limits, max_credit_minor=1)).certificate
    assert errors(ledger.merge([], [twice]).refused) == [NotPermitted]
    assert ledger.certificates[certificate.replica] == certificate


def test_one_bad_block_does_not_keep_the_good_ones_out() -> None:
    first, second = TERMINALS[0].blocks([fare(1), fare(2)], [1, 1])
    other = TERMINALS[1].blocks([replace(fare(1), replica=TERMINALS[1].key.replica)], [])[0]
    bad = parse(second.raw[:-1] + bytes([second.raw[-1] ^ 1]))
    report = Ledger(FLEET_KEY.public_key).merge([bad.raw, b"junk", first.raw, other.raw], CERTIFICATES)
    assert {block.hash for block in report.added} == {first.hash, other.hash}
    assert len(report.refused) == 2


@given(
    st.lists(st.tuples(money(), st.integers(0, 3)), min_size=1, max_size=12),
    st.integers(0, 6000),
    st.lists(st.integers(1, 4), max_size=6),
    st.data(),
)
def test_invariant_10_everybody_refuses_the_same_block_as_the_first_beyond_its_authors_allowance(
    facts: list[tuple[tuple[Kind, int], int]], allowance: int, sizes: list[int], data: st.DataObject
) -> None:
    """Credits add up along the chain, which has one order: how blocks come together does not matter."""
    author = terminal(7, replace(ANYTHING, allowance_minor=allowance))
    deltas = [
        Delta(author.key.replica, seq, CardId(bytes([card]) * 4), kind, amount, 0)
        for seq, ((kind, amount), card) in enumerate(facts, 1)
    ]
    blocks = author.blocks(deltas, sizes)
    credits, allowed = 0, []
    for block in blocks:
        header = block.header
        credits += sum(max(0, each.amount_minor) for each in deltas[header.first_seq - 1 : block.last_seq])
        if credits > allowance:
            break
        allowed.append(block)
    ledger = Ledger(FLEET_KEY.public_key)
    left = data.draw(st.permutations(blocks))
    for _ in range(len(blocks) + 1):
        size = data.draw(st.integers(1, 4))
        refused: dict[bytes, type[InputRefused]] = {}
        for at in range(0, len(left), size):
            report = ledger.merge([block.raw for block in left[at : at + size]], [author.certificate])
            refused |= {item.raw: type(item.error) for item in report.refused}
        left = [block for block in left if block.raw in refused]
        assert ledger.books().balance
    expected = [NotPermitted, *[ChainBroken] * len(blocks)][: len(blocks) - len(allowed)]
    beyond = blocks[len(allowed) :]
    assert [refused.get(block.raw) for block in beyond] == expected
    assert ledger.blocks_after(author.key.replica, 0) == [block.raw for block in allowed]


def test_an_allowance_is_used_up_to_the_last_unit_and_debits_do_not_give_it_back() -> None:
    author = terminal(7, replace(ANYTHING, allowance_minor=1000))
    rows = [(Kind.OPENING, 400), (Kind.FARE, -5000), (Kind.TOPUP, 600), (Kind.FARE, -1), (Kind.REFUND, 1)]
    deltas = [Delta(author.key.replica, seq, CARD, *row, 0) for seq, row in enumerate(rows, 1)]
    report = Ledger(FLEET_KEY.public_key).merge(
        [block.raw for block in author.blocks(deltas, [1] * 5)], [author.certificate]
    )
    assert len(report.added) == 4
    assert [type(item.error) for item in report.refused] == [NotPermitted]
    assert "1000 minor units of credit in all" in str(report.refused[0].error)
