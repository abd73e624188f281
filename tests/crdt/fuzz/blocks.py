"""Blocks, in full and short: mutants signed by their author, merged into ledgers when they are accepted."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import zstandard

from crdt.block import HEADER, Block, Encoding, parse, seal, verify
from crdt.columns import Columns, encode
from crdt.errors import InputRefused
from crdt.facts import (
    MAX_AMOUNT_MINOR,
    MAX_AT_MS,
    MAX_CLOCK_EPOCH,
    MAX_CLOCK_ERROR_MS,
    CardId,
    CardState,
    Context,
    Delta,
    Kind,
)
from crdt.forks import ForkProof, contradict
from crdt.frontier import GENESIS
from crdt.ledger import Ledger
from crdt.numbering import cards_of, restore, shorten
from crdt.signing import BLOCK_TAG, SIGNATURE_BYTES
from tests.crdt.fuzz.loose import loose_rest
from tests.crdt.fuzz.mutate import Mutator
from tests.crdt.fuzz.target import Target
from tests.crdt.test_columns import many_deltas
from tests.crdt.world import CERTIFICATES, FLEET, FLEET_KEY, TERMINALS

AUTHOR: Final = TERMINALS[0]
CONTEXT: Final = Context("110", "T7", "750123", 2, 500)


def _taps(count: int) -> list[Delta]:
    cards = [CardId(bytes([4, at, 0, 0, 0, 0, 1])[: 7 if at % 3 else 4]) for at in range(max(2, count // 2))]
    rows = [(Kind.OPENING, 500), (Kind.FARE, -250), (Kind.FARE, 0), (Kind.TOPUP, 2000), (Kind.ADJUSTMENT, -1)]
    return [
        Delta(
            AUTHOR.key.replica,
            seq,
            cards[seq * 7 % len(cards)],
            *rows[seq % 5],
            10**12 + seq * seq * 100,
            CONTEXT,
        )
        for seq in range(1, count + 1)
    ]


CHAIN: Final = AUTHOR.blocks(_taps(12), [3, 4, 5])
SEEDS: Final = [
    *CHAIN,
    *AUTHOR.blocks(_taps(1), [1]),
    *AUTHOR.blocks(many_deltas(60, 200, 20), [60]),
    *AUTHOR.blocks(many_deltas(300, 100, 300), [300]),
]
NUMBERS: Final = {
    card: number for number, card in enumerate({c for block in SEEDS for c in cards_of(block)}, 1)
}
CARDS: Final = {number: card for card, number in NUMBERS.items()}


def find(numbers: Sequence[int]) -> list[CardId | None]:
    """The cards with these numbers, as a hub would know them."""
    return [CARDS.get(number) for number in numbers]


def signed(body: bytes) -> bytes:
    """The block that its author makes of any body."""
    return body + AUTHOR.key.sign(BLOCK_TAG + sha256(body).digest())


def facts_of(block: Block) -> tuple[Delta, ...]:
    """A seed's facts."""
    return verify(block, AUTHOR.certificate).deltas(AUTHOR.key.replica, block.header.first_seq)


_FACTS: Final = {block.hash: facts_of(block) for block in SEEDS}
_PLAIN: Final = {hash_: encode(facts) for hash_, facts in _FACTS.items()}


def packed(mutator: Mutator, header: bytes, ids: bytes, rest: bytes) -> bytes:
    """A signed block of any header and payload, its rest compressed or not."""
    encoding = Encoding.RAW
    if mutator.chance(2):
        encoding, rest = Encoding.ZSTD, zstandard.compress(rest, mutator.pick((1, 9)))
    return signed(header[:-1] + bytes([encoding]) + ids + rest)


def mutant_block(mutator: Mutator) -> bytes:
    """A block whose signature is right and whose contents may be anything."""
    block = mutator.pick(SEEDS)
    header, whole = block.raw[: HEADER.size], _PLAIN[block.hash]
    ids, rest = whole.ids, whole.rest
    match mutator.source.randrange(9):
        case 0:
            return signed(mutator.mutated(block.raw[:-SIGNATURE_BYTES]))
        case 1:
            return packed(mutator, header, mutator.mutated(ids), rest)
        case 2 | 3:
            return packed(mutator, header, ids, mutator.mutated(rest))
        case 4:
            return packed(mutator, mutant_header(mutator, block), ids, rest)
        case 5:
            return sealed(mutator)
        case 6 | 7:
            return packed(mutator, header, ids, loose_rest(mutator, _FACTS[block.hash]))
        case _:
            return mutator.mutated(block.raw)


def mutant_header(mutator: Mutator, block: Block) -> bytes:
    """The header with one field changed to something else that the format can say."""
    fields = list(HEADER.unpack(block.raw[: HEADER.size]))
    at = mutator.source.randrange(len(fields))
    value = fields[at]
    if isinstance(value, bytes):
        fields[at] = mutator.mutated(value)[: len(value)].ljust(len(value), b"\0")
    else:
        fields[at] = mutator.number((255, 0, 0, 0, 2**64 - 1, 65535, 255)[at])
    return HEADER.pack(*fields)


def sealed(mutator: Mutator) -> bytes:
    """A block of facts at the borders of what a fact may be, sealed as its author does: always acceptable."""
    facts = []
    for seq in range(1, 1 + mutator.source.choice((1, 2, 5, 40))):
        kind = mutator.pick(list(Kind))
        amount = mutator.number(MAX_AMOUNT_MINOR)
        signs = {
            Kind.FARE: -amount,
            Kind.ADJUSTMENT: mutator.pick((1, -1)) * max(1, amount),
            Kind.OPENING: amount,
            Kind.REVERSAL: amount,
            Kind.DUPLICATE: amount,
            Kind.REINSTATED: -amount,
        }
        text = mutator.pick(("", "110", "x" * 64, "ü" * 32, "\U0001f68c"))
        context = Context(
            text,
            mutator.pick(("", text)),
            "",
            mutator.number(MAX_CLOCK_EPOCH),
            mutator.number(MAX_CLOCK_ERROR_MS),
        )
        card = (
            CardId(mutator.source.randbytes(mutator.source.randint(4, 16))) if mutator.chance(2) else CARDS[1]
        )
        at_ms = mutator.number(MAX_AT_MS)
        facts.append(
            Delta(AUTHOR.key.replica, seq, card, kind, signs.get(kind, max(1, amount)), at_ms, context)
        )
    return seal(AUTHOR.key, FLEET, facts, GENESIS).raw


def check_block(raw: bytes) -> bool:
    """Refused, or the only writing of facts that merge like any others."""
    try:
        block = parse(raw)
        columns = verify(block, AUTHOR.certificate)
    except InputRefused:
        if raw[-1:] < b"\x20":  # a refused block changes nothing; a part of them shows it
            merged(raw)
        return False
    check_contents(block, columns)
    check_short(block)
    merged(raw)
    return True


def check_contents(block: Block, columns: Columns) -> None:
    """One encoding, and sums that are those of the facts."""
    facts = columns.deltas(block.header.replica, block.header.first_seq)
    again = encode(facts)
    assert block.payload.startswith(again.ids)
    stored = block.payload[len(again.ids) :]
    assert (stored if block.encoding is Encoding.RAW else zstandard.decompress(stored)) == again.rest
    totals: dict[CardId, CardState] = {}
    for fact in facts:
        totals[fact.card] = totals.get(fact.card, CardState()).plus(fact.kind, fact.amount_minor)
    assert columns.totals() == totals
    assert columns.credit_minor() == sum(fact.amount_minor for fact in facts if fact.amount_minor > 0)


def check_short(block: Block) -> None:
    """However it travels, it arrives as it was."""
    short = shorten(block, NUMBERS)
    if short is not None:
        assert restore(short, find) == block.raw


def merged(raw: bytes) -> None:
    """Books balance; where the mutant contradicts nothing held, the order of merging makes no difference."""
    before, after = Ledger(FLEET_KEY.public_key), Ledger(FLEET_KEY.public_key)
    chain = [block.raw for block in CHAIN]
    after.merge(chain, CERTIFICATES)
    after.merge([raw])
    before.merge([raw], CERTIFICATES)
    before.merge(chain)
    before.merge([raw])
    for ledger in (before, after):
        assert ledger.books().balance
        held = [parse(each) for each in ledger.blocks_after(AUTHOR.key.replica, 0)]
        assert not any(contradict(one, other) for one in held for other in held)
    try:
        mutant = parse(raw)
    except InputRefused:
        mutant = CHAIN[0]
    if not any(contradict(mutant, block) for block in CHAIN):
        assert before.digest() == after.digest()


def mutant_short(mutator: Mutator) -> bytes:
    """A short block whose restored block, if there is one, is signed right."""
    short = mutator.pick(_SHORTS)
    if mutator.chance(2):
        short = shorten(parse(sealed(mutator)), NUMBERS) or short
    body = mutator.mutated(short[:-SIGNATURE_BYTES])
    try:
        whole = restore(body + bytes(SIGNATURE_BYTES), find)
    except InputRefused:
        return body + short[-SIGNATURE_BYTES:]
    return body + signed(whole[:-SIGNATURE_BYTES])[-SIGNATURE_BYTES:]


def _shorts() -> list[bytes]:
    some = {card: number for card, number in NUMBERS.items() if number % 3}
    made = [shorten(block, numbers) for block in SEEDS for numbers in (NUMBERS, some)]
    return [short for short in made if short is not None]


_SHORTS: Final = _shorts()


def check_short_block(short: bytes) -> bool:
    """Refused, or restored to a block that is judged as any other."""
    try:
        raw = restore(short, find)
    except InputRefused:
        return False
    assert len(raw) <= len(short) + 16 * len(short)
    return check_block(raw)


def mutant_proof(mutator: Mutator) -> bytes:
    """Two blocks that may or may not prove a fork: the length of the first as u32, and both."""
    first, second = mutant_block(mutator), mutant_block(mutator)
    if mutator.chance(2):
        first = mutator.pick(CHAIN).raw
    return len(first).to_bytes(4, "big") + first + second


def check_proof(both: bytes) -> bool:
    """Refused, or two blocks of one author of which no ledger holds both."""
    end = 4 + int.from_bytes(both[:4], "big")
    proof = ForkProof(both[4:end], both[end:])
    try:
        proof.verify(AUTHOR.certificate)
    except InputRefused:
        return False
    ledger = Ledger(FLEET_KEY.public_key)
    ledger.merge([proof.counted, proof.quarantined], CERTIFICATES)
    ledger.merge([block.raw for block in CHAIN])
    ledger.merge([proof.counted, proof.quarantined])
    held = ledger.blocks_after(proof.replica, 0)
    assert not {proof.counted, proof.quarantined} <= set(held)
    return True


TARGETS: Final = [
    Target("block", mutant_block, check_block, weight=24),
    Target("short-block", mutant_short, check_short_block, weight=16),
    Target("fork-proof", mutant_proof, check_proof, weight=4),
]
