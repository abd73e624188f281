"""How much is taken in of what terminals bring, so that none of them fills the ledger or keeps it busy.

What merges is the same everywhere and for ever, so nothing is judged here: what is too much is left lying,
not acknowledged, and comes again. What an author may write in a day is far above what a bus does. A terminal
that writes more for long is slowed down to it, and the operator is told.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from crdt.block import Block, claim_of
from crdt.certificate import AuthorCertificate
from crdt.facts import ReplicaId, TerminalId
from crdt.frames import MAX_EXCHANGE_DELTAS

MAX_AUTHOR_DELTAS: Final = 150_000  # new ones of one terminal at once: four months of a bus
AUTHOR_DELTAS_A_DAY: Final = 15_000  # from then on: twelve times what a bus does
DAY_MS: Final = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Let:
    """What of an exchange is taken in now."""

    blocks: Sequence[bytes]
    shorts: Sequence[bytes]
    left: int  # blocks that are to come again
    slowed: bool  # whether some of them are of an author that wrote too much


@dataclass(slots=True)
class _Budget:
    """What a terminal's identities may still write."""

    deltas: float
    at_ms: int

    def at(self, now_ms: int) -> "_Budget":
        """The budget at a later time; a clock that was put back gives nothing and takes nothing."""
        earned = max(0, now_ms - self.at_ms) * AUTHOR_DELTAS_A_DAY / DAY_MS
        return _Budget(min(MAX_AUTHOR_DELTAS, self.deltas + earned), now_ms)


class Door:
    """Counts what each terminal has written, whoever brings it. Forgotten with the process."""

    def __init__(
        self, authors: Callable[[], Mapping[ReplicaId, AuthorCertificate]], now_ms: Callable[[], int]
    ) -> None:
        """`authors`: who is enrolled. `now_ms`: the hub's clock."""
        self._authors = authors
        self._now_ms = now_ms
        self._budgets: dict[TerminalId, _Budget] = {}

    def let(self, blocks: Sequence[bytes], shorts: Sequence[bytes]) -> Let:
        """As much of these as is taken at a time, in their order, and at least one block."""
        room = MAX_EXCHANGE_DELTAS
        left, slowed = 0, False
        taken: tuple[list[bytes], list[bytes]] = ([], [])
        for given, kept in zip((blocks, shorts), taken, strict=True):
            for raw in given:
                replica, count = claim_of(raw) or (None, 0)
                spent = replica is not None and self._is_spent(replica)
                if spent or count > room:
                    slowed = slowed or spent
                    room = room if spent else 0  # what comes after it may be of the same chain
                    left += 1
                else:
                    room -= count
                    kept.append(raw)
        return Let(*taken, left, slowed)

    def took(self, added: Iterable[Block]) -> list[Block]:
        """Note what was new; of each author that has written too much with it, the block that was."""
        authors, now_ms = self._authors(), self._now_ms()
        beyond = []
        for block in added:
            terminal = authors[block.header.replica].terminal
            before = self._budgets.get(terminal, _Budget(MAX_AUTHOR_DELTAS, now_ms)).at(now_ms)
            after = self._budgets[terminal] = _Budget(before.deltas - block.header.count, now_ms)
            if after.deltas <= 0 < before.deltas:
                beyond.append(block)
        return beyond

    def _is_spent(self, replica: ReplicaId) -> bool:
        """Whether nothing of this author is taken now."""
        author = self._authors().get(replica)
        budget = None if author is None else self._budgets.get(author.terminal)
        return budget is not None and budget.at(self._now_ms()).deltas <= 0
