"""Another terminal of the fleet, as the blocks it sends."""

from random import Random
from typing import Final

from crdt.block import Block, seal
from crdt.facts import Delta, Kind
from crdt.frontier import GENESIS, Head
from tests.crdt import world
from tests.powercut.parties import CARDS, FARE, OPENING_MINOR
from tests.powercut.settling import Fact

_BEGINNING: Final = Head(0, GENESIS)
_APART_MS: Final = 1_000_000


class Chain:
    """A chain of blocks that grows by what a bus would write."""

    def __init__(self, author: world.Terminal, after: Head = _BEGINNING) -> None:
        self.author = author
        self.facts: list[Fact] = []  # that it grew by
        self.blocks: list[Block] = []
        self._head = after

    def grow(self, chance: Random) -> Block:
        """The next block: some rides, some of cards met for the first time."""
        seqs = range(self._head.seq + 1, self._head.seq + chance.randrange(2, 6))
        deltas = [self._delta(seq, chance) for seq in seqs]
        block = seal(self.author.key, world.FLEET, deltas, self._head.hash)
        self._head = block.head
        self.blocks.append(block)
        self.facts += [(one.card, one.kind, one.amount_minor, one.at_ms) for one in deltas]
        return block

    def _delta(self, seq: int, chance: Random) -> Delta:
        opens = chance.random() < 0.3
        kind, amount = (Kind.OPENING, OPENING_MINOR) if opens else (FARE.kind, FARE.amount_minor)
        at_ms = _APART_MS * self.author.certificate.terminal[-1] + seq  # no two of them are of one moment
        return Delta(self.author.key.replica, seq, chance.choice(CARDS), kind, amount, at_ms)
