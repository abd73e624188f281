"""Forks: what contradicts what, and what proves it (invariant 5)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.block import Block, parse, seal
from crdt.errors import BadSignature, InputRefused, Malformed, UnknownAuthor
from crdt.facts import CardId, Delta, FleetId, Kind
from crdt.forks import ForkProof, contradict
from crdt.frontier import GENESIS
from crdt.ledger import Ledger
from tests.crdt.world import CERTIFICATES, FLEET, FLEET_KEY, TERMINALS, Terminal

AUTHOR, OTHER = TERMINALS[0], TERMINALS[1]
CARD = CardId(bytes.fromhex("04a1b2c3d4e5f6"))


def fares(count: int, amount: int = -250, author: Terminal = AUTHOR) -> list[Delta]:
    return [Delta(author.key.replica, seq, CARD, Kind.FARE, amount, 0) for seq in range(1, count + 1)]


@st.composite
def branches(draw: st.DrawFn) -> tuple[list[Block], list[Block]]:
    """Two chains of one replica: a common beginning, cut alike or not, and what each went on with."""
    common = draw(st.integers(0, 6))
    chains = []
    for amount in (-1, -2):
        facts = fares(common)
        facts += [
            replace(fact, amount_minor=amount) for fact in fares(common + draw(st.integers(0, 6)))[common:]
        ]
        chains.append(AUTHOR.blocks(facts, draw(st.lists(st.integers(1, 3), max_size=6))))
    return chains[0], chains[1]


def can_be_in_one_chain(one: Block, other: Block, known: list[Block]) -> bool:
    """By trying: whether some chain of blocks that were ever sealed, from the first on, has both."""
    by_hash = {block.hash: block for block in known}

    def chain_to(block: Block) -> set[bytes]:
        found = {block.hash}
        while block.header.previous != GENESIS:
            block = by_hash[block.header.previous]
            found.add(block.hash)
        return found

    return one.hash in chain_to(other) or other.hash in chain_to(one)


@given(branches())
def test_two_blocks_contradict_each_other_exactly_when_they_cannot_be_in_one_chain(
    both: tuple[list[Block], list[Block]],
) -> None:
    """Overlapping or neighbouring blocks are judged exactly; of two far apart only those between can tell."""
    mine, theirs = both
    for one in mine + theirs:
        for other in mine + theirs:
            assert contradict(one, other) == contradict(other, one)
            in_one_chain = can_be_in_one_chain(one, other, mine + theirs)
            first, second = sorted((one, other), key=lambda block: block.header.first_seq)
            if second.header.first_seq <= first.last_seq + 1:
                assert contradict(one, other) is not in_one_chain
            else:
                assert not contradict(one, other)


@given(branches())
def test_two_histories_that_part_have_a_pair_that_contradicts_and_a_ledger_takes_one_of_it(
    both: tuple[list[Block], list[Block]],
) -> None:
    """A fork is always provable from the blocks, and what a ledger holds never contradicts itself."""
    mine, theirs = both
    prefix = len(mine) <= len(theirs) and [block.hash for block in theirs[: len(mine)]] == [
        block.hash for block in mine
    ]
    extends = prefix or [block.hash for block in mine[: len(theirs)]] == [block.hash for block in theirs]
    pairs = [(one, other) for one in mine for other in theirs if contradict(one, other)]
    assert bool(pairs) is not extends
    for one, other in pairs:
        proof = ForkProof(one.raw, other.raw)
        proof.verify(AUTHOR.certificate)
        assert proof.replica == AUTHOR.key.replica
    ledger = Ledger(FLEET_KEY.public_key)
    report = ledger.merge([block.raw for block in mine], CERTIFICATES)
    report = ledger.merge([block.raw for block in theirs])
    held = [parse(raw) for raw in ledger.blocks_after(AUTHOR.key.replica, 0)]
    assert not any(contradict(one, other) for one in held for other in held)
    assert bool(report.refused) is bool(pairs)


def test_blocks_of_different_authors_or_fleets_never_contradict_each_other() -> None:
    block = seal(AUTHOR.key, FLEET, fares(2), GENESIS)
    assert not contradict(block, seal(OTHER.key, FLEET, fares(2, author=OTHER), GENESIS))
    assert not contradict(block, seal(AUTHOR.key, FleetId(b"f" * 16), fares(2, -1), GENESIS))
    assert not contradict(block, block)


def test_a_block_with_another_signature_is_no_other_block() -> None:
    """Who holds the block can change the signature's bytes, and must not be able to frame its author so."""
    block = seal(AUTHOR.key, FLEET, fares(2), GENESIS)
    assert not contradict(block, parse(block.raw[:-1] + bytes([block.raw[-1] ^ 1])))


FIRST, SECOND = AUTHOR.blocks(fares(4), [2])
BRANCH = seal(AUTHOR.key, FLEET, fares(2, -1), GENESIS)
AFTER_BRANCH = seal(AUTHOR.key, FLEET, fares(4)[2:], BRANCH.hash)


@pytest.mark.parametrize(
    "pair", [(FIRST, BRANCH), (BRANCH, FIRST), (SECOND, AFTER_BRANCH), (FIRST, AFTER_BRANCH)]
)
def test_two_blocks_that_contradict_prove_a_fork_to_anybody(pair: tuple[Block, Block]) -> None:
    ForkProof(pair[0].raw, pair[1].raw).verify(AUTHOR.certificate)


FOREIGN = seal(OTHER.key, FLEET, fares(2, -1, OTHER), GENESIS)


@pytest.mark.parametrize(
    ("counted", "quarantined", "error"),
    [
        pytest.param(FIRST.raw, FIRST.raw, Malformed, id="one block twice"),
        pytest.param(FIRST.raw, SECOND.raw, Malformed, id="two blocks of one chain"),
        pytest.param(FIRST.raw, FOREIGN.raw, UnknownAuthor, id="another author's block"),
        pytest.param(FOREIGN.raw, FIRST.raw, UnknownAuthor, id="another author's block, counted"),
        pytest.param(
            FIRST.raw, BRANCH.raw[:40] + b"!" + BRANCH.raw[41:], InputRefused, id="an altered block"
        ),
        pytest.param(
            FIRST.raw,
            BRANCH.raw[:-1] + bytes([BRANCH.raw[-1] ^ 1]),
            BadSignature,
            id="not signed by the author",
        ),
        pytest.param(FIRST.raw, b"", Malformed, id="nothing"),
        pytest.param(b"junk", BRANCH.raw, Malformed, id="junk"),
    ],
)
def test_what_proves_nothing_accuses_nobody(
    counted: bytes, quarantined: bytes, error: type[InputRefused]
) -> None:
    with pytest.raises(error):
        ForkProof(counted, quarantined).verify(AUTHOR.certificate)
