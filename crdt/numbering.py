"""Short blocks: a block on the wire with its cards as the numbers that the hub gave them.

A card's number takes two or three bytes where its id takes seven, and ids do not compress. A short block is
the block with another section of card ids, and the receiver puts the ids back before it looks at hash and
signature. So a number is never believed: a wrong one can only make the signature wrong, and what is signed,
chained and stored does not know of numbers.

    header of the block | count varint | numbers(count) | ids section of the cards whose number is 0, if any
    | the rest of the payload | signature 64
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from crdt.block import HEADER, MAX_BLOCK_BYTES, Block
from crdt.card_column import read_card_ids, write_card_ids
from crdt.columns import MAX_BLOCK_DELTAS, ids_section, read_ids
from crdt.errors import Malformed, MisuseError, TooLarge, UnknownCardNumber
from crdt.facts import MAX_CARD_NUMBER, CardId
from crdt.planes import read_numbers, write_numbers
from crdt.signing import SIGNATURE_BYTES
from crdt.wire import Reader, Writer

_NUMBER_BYTES: Final = 5


def cards_of(block: Block) -> Sequence[CardId]:
    """The distinct cards of a block, in order of first appearance. Raises Malformed."""
    return read_ids(Reader(block.payload), block.header.count)


def shorten(block: Block, numbers: Mapping[CardId, int]) -> bytes | None:
    """The short form of a block; None when it would not be shorter. `numbers`: the known ones, from 1."""
    reader = Reader(block.payload)
    ids = read_ids(reader, block.header.count)
    column = [numbers.get(card, 0) for card in ids]
    if max(column) > MAX_CARD_NUMBER or min(column) < 0:
        raise MisuseError("a card's number is an integer from 1 to 2**40 - 1")
    writer = Writer().raw(block.raw[: HEADER.size]).varint(len(ids))
    write_numbers(writer, column)
    in_full = [card for card, number in zip(ids, column, strict=True) if not number]
    if in_full:
        write_card_ids(writer, in_full)
    short = writer.raw(reader.rest()).raw(block.signature).done()
    return short if len(short) < len(block.raw) else None


def restore(short: bytes, cards: Callable[[Sequence[int]], Sequence[CardId | None]]) -> bytes:
    """The block of a short block, as bytes; nothing of it is verified. `cards` finds cards by number,
    None for a number it does not know; what it says to 0 does not matter.

    Raises UnknownCardNumber, Malformed or TooLarge.
    """
    if len(short) > MAX_BLOCK_BYTES:
        raise TooLarge(f"a block has at most {MAX_BLOCK_BYTES} bytes")
    reader = Reader(short)
    header = reader.raw(HEADER.size)
    size = reader.varint(1, MAX_BLOCK_DELTAS)
    column, _ = read_numbers(reader, size, _NUMBER_BYTES)
    zeros = column.count(0)
    in_full = read_card_ids(reader, zeros) if zeros else ()
    rest = reader.rest()
    if len(rest) < SIGNATURE_BYTES:
        raise Malformed("the block is cut short")
    found = cards(column)
    if zeros:
        found = _put_between(in_full, found, column)
    if None in found:
        number = column[found.index(None)]
        raise UnknownCardNumber(f"there is no card with the number {number} here; send the block in full")
    return header + ids_section(found) + rest  # type: ignore[arg-type]  # None is not among them


def _put_between(
    in_full: Sequence[CardId], found: Sequence[CardId | None], column: Sequence[int]
) -> list[CardId | None]:
    ids = iter(in_full)
    return [card if number else next(ids) for card, number in zip(found, column, strict=True)]
