"""Short blocks: numbers travel in the place of card ids, and are never believed (invariants 2 and 8)."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crdt.block import HEADER, MAX_BLOCK_BYTES, Block, parse, seal, verify
from crdt.errors import BadSignature, InputRefused, Malformed, MisuseError, TooLarge, UnknownCardNumber
from crdt.facts import MAX_CARD_NUMBER, CardId, Delta
from crdt.frontier import GENESIS
from crdt.numbering import cards_of, restore, shorten
from crdt.planes import write_numbers
from crdt.signing import SIGNATURE_BYTES
from crdt.wire import Writer
from tests.crdt.test_columns import BUSY
from tests.crdt.world import FLEET, TERMINALS, any_card, delta_lists, few_cards

AUTHOR = TERMINALS[0]
BLOCK = seal(AUTHOR.key, FLEET, BUSY[:250], GENESIS)
NUMBERS = {card: number for number, card in enumerate(cards_of(BLOCK), 1000)}


def finder(numbers: dict[CardId, int]) -> "Finder":
    return Finder({number: card for card, number in numbers.items()})


class Finder:
    """What a hub knows: cards by number."""

    def __init__(self, cards: dict[int, CardId]) -> None:
        self.cards = cards

    def __call__(self, numbers: Sequence[int]) -> list[CardId | None]:
        return [self.cards.get(number) for number in numbers]


blocks = delta_lists(cards=st.one_of(few_cards, any_card)).map(
    lambda deltas: seal(AUTHOR.key, FLEET, deltas, GENESIS)
)


@given(blocks, st.data())
def test_any_block_with_any_of_its_cards_numbered_comes_back_byte_for_byte(
    block: Block, data: st.DataObject
) -> None:
    """Hash and signature are those of the block in full, whichever cards had a number."""
    cards = cards_of(block)
    assert list(cards) == list(dict.fromkeys(delta.card for delta in facts(block)))
    numbered = data.draw(st.lists(st.sampled_from(cards), unique=True))
    size = data.draw(st.sampled_from([100, 2**16, MAX_CARD_NUMBER]))
    given_numbers = data.draw(
        st.lists(st.integers(1, size), min_size=len(numbered), max_size=len(numbered), unique=True)
    )
    numbers = dict(zip(numbered, given_numbers, strict=True))
    short = shorten(block, numbers)
    if short is None:
        return
    assert len(short) < len(block.raw)
    assert restore(short, finder(numbers)) == block.raw


def facts(block: Block) -> tuple[Delta, ...]:
    return verify(block, AUTHOR.certificate).deltas(block.header.replica, block.header.first_seq)


def test_a_nominal_block_of_known_cards_is_shorter_by_their_ids() -> None:
    """250 cards: seven bytes of id become two of number."""
    short = shorten(BLOCK, NUMBERS)
    assert short
    assert len(BLOCK.raw) - len(short) >= len(NUMBERS) * 4
    assert restore(short, finder(NUMBERS)) == BLOCK.raw


def test_a_block_that_would_not_be_shorter_is_not_shortened() -> None:
    """No number is known, or the numbers are as long as the ids."""
    assert shorten(BLOCK, {}) is None
    wide = seal(AUTHOR.key, FLEET, [replace(BUSY[0], card=CardId(b"four"))], GENESIS)
    assert shorten(wide, {CardId(b"four"): MAX_CARD_NUMBER}) is None


@given(blocks, st.data())
def test_a_number_that_is_not_known_here_is_refused_as_such(block: Block, data: st.DataObject) -> None:
    """The sender then sends the block in full."""
    numbers = {card: number for number, card in enumerate(cards_of(block), 1)}
    short = shorten(block, numbers)
    assume(short)
    assert short
    del numbers[data.draw(st.sampled_from(sorted(numbers)))]
    with pytest.raises(UnknownCardNumber, match="in full"):
        restore(short, finder(numbers))


@given(blocks, st.data())
def test_a_wrong_number_can_only_make_the_signature_wrong(block: Block, data: st.DataObject) -> None:
    """Whatever cards the receiver's numbers stand for: the very block, or a refusal, never another fact."""
    numbers = {card: number for number, card in enumerate(cards_of(block), 1)}
    short = shorten(block, numbers)
    assume(short)
    assert short
    wrong = {
        number: data.draw(st.one_of(st.sampled_from(sorted(numbers)), any_card))
        for number in numbers.values()
    }
    raw = restore(short, Finder(wrong))
    if [wrong[number] for number in numbers.values()] == list(numbers):
        assert raw == block.raw
    else:
        with pytest.raises(BadSignature):
            verify(parse(raw), AUTHOR.certificate)


def test_every_truncation_and_flipped_bit_is_refused_or_the_same_block() -> None:
    small = seal(AUTHOR.key, FLEET, BUSY[:6], GENESIS)
    numbers = dict(list(zip(cards_of(small), range(1, 5), strict=False)))  # the others' ids follow in full
    short = shorten(small, numbers)
    assert short
    changed = [short[:end] for end in range(len(short))] + [short + b"\0"]
    for bit in range(len(short) * 8):
        flipped = bytearray(short)
        flipped[bit // 8] ^= 1 << bit % 8
        changed.append(bytes(flipped))
    for each in changed:
        with pytest.raises(InputRefused):
            verify(parse(restore(each, finder(numbers))), AUTHOR.certificate)


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_refused(data: bytes, after_header: bool) -> None:
    with pytest.raises(InputRefused):
        raw = restore((BLOCK.raw[: HEADER.size] if after_header else b"") + data, finder(NUMBERS))
        verify(parse(raw), AUTHOR.certificate)


def short_of(count: int, numbers: Sequence[int], rest: bytes = bytes(200)) -> bytes:
    writer = Writer().raw(BLOCK.raw[: HEADER.size]).varint(count)
    write_numbers(writer, numbers)
    return writer.raw(rest).done()


@pytest.mark.parametrize(
    ("short", "error"),
    [
        pytest.param(bytes(MAX_BLOCK_BYTES + 1), TooLarge, id="larger than any block"),
        pytest.param(short_of(0, []), Malformed, id="no cards"),
        pytest.param(short_of(4097, [1] * 4097), Malformed, id="more cards than deltas"),
        pytest.param(short_of(2**60, [1]), Malformed, id="more cards than bytes"),
        pytest.param(short_of(1, [2**40]), Malformed, id="a number of six bytes"),
        pytest.param(
            short_of(1, [1000], bytes(SIGNATURE_BYTES - 1)), Malformed, id="no room for a signature"
        ),
        pytest.param(short_of(2, [0, 0], b"\x01\x03" + bytes(200)), Malformed, id="an id of three bytes"),
        pytest.param(
            short_of(2, [0, 0], b"\x01\x04" + b"aaaaaaaa" + bytes(200)), Malformed, id="an id twice"
        ),
    ],
)
def test_a_short_block_that_breaks_a_rule_is_refused_in_bounded_memory(
    short: bytes, error: type[InputRefused]
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(error):
            restore(short, finder(NUMBERS))
        assert tracemalloc.get_traced_memory()[1] < 2 * MAX_BLOCK_BYTES
    finally:
        tracemalloc.stop()


def test_a_short_block_that_becomes_too_large_is_refused() -> None:
    """One byte of number may stand for sixteen of id; the block is bounded as any other."""
    cards = {number: CardId(number.to_bytes(16, "big")) for number in range(1, 4097)}
    room = MAX_BLOCK_BYTES - HEADER.size - 2 - 1 - 2 * 4096
    raw = restore(short_of(4096, list(cards), bytes(room)), Finder(cards))
    assert len(raw) > MAX_BLOCK_BYTES
    with pytest.raises(TooLarge):
        parse(raw)


@pytest.mark.parametrize("number", [-1, MAX_CARD_NUMBER + 1])
def test_a_number_out_of_range_is_our_own_mistake(number: int) -> None:
    with pytest.raises(MisuseError):
        shorten(BLOCK, {cards_of(BLOCK)[0]: number})
