"""What a block in quarantine says, entry by entry: who decides about it compares with receipts and cards."""

import asyncio
from dataclasses import dataclass
from typing import Self

from sqlalchemy import Connection

from crdt.facts import Delta, Kind
from crdt.store import blocks, quarantine
from crdt.store.store import Store
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


async def entries(database: Store, block: str, page: int) -> Excerpt[EntryRow]:
    """A page of what the block of this hash (hex) says, by number; nothing where it is not in quarantine."""

    def read(connection: Connection) -> Excerpt[EntryRow]:
        found = quarantine.find(connection, [bytes.fromhex(block)])
        said = [
            delta
            for entry in found
            for delta in blocks.facts_of(entry.block).deltas(entry.replica, entry.first_seq)
        ]
        part = Excerpt.of(said, page)
        return Excerpt([EntryRow.of(delta) for delta in part.rows], part.page, part.total)

    return await asyncio.wrap_future(database.read(read))
