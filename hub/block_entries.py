"""What a block in quarantine says, entry by entry: who decides about it compares with receipts and cards."""

from dataclasses import dataclass
from typing import Self

from sqlalchemy import Connection

from crdt.facts import Delta, Kind
from crdt.store import blocks, quarantine
from hub.cardids import card_text
from hub.excerpt import Excerpt


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One entry of the block, as it was signed. It changes no balance."""

    seq: int
    card: str
    kind: Kind
    amount_minor: int  # negative for a fare
    at_ms: int  # the author's clock, which may be wrong
    clock_error_ms: int
    route: str

    @classmethod
    def of(cls, delta: Delta) -> Self:
        """The ledger's, for people."""
        return cls(
            delta.seq,
            card_text(delta.card),
            delta.kind,
            delta.amount_minor,
            delta.at_ms,
            delta.context.clock_error_ms,
            delta.context.route,
        )


def entries(connection: Connection, block: bytes, page: int) -> Excerpt[EntryRow]:
    """A page of what the block of this hash says, by number; nothing where it is not in quarantine."""
    said = [
        delta
        for entry in quarantine.find(connection, [block])
        for delta in blocks.facts_of(entry.block).deltas(entry.replica, entry.first_seq)
    ]
    part = Excerpt.of(said, page)
    return Excerpt([EntryRow.of(delta) for delta in part.rows], part.page, part.total)
