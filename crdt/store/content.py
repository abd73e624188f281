"""What makes a fact the same under another identity: that is how one tells what was written again."""

from __future__ import annotations

from typing import NamedTuple

from crdt.facts import CardId, Context, Delta, Kind


class Content(NamedTuple):
    """What makes a fact the same under another identity: everything but its author and number.

    Of kinds only an opening tells: where the hub may not write another, it books an adjustment of the same
    amount. A first ride has an opening and a fare of one moment, which may be as large.
    """

    card: CardId
    amount_minor: int
    at_ms: int
    context: Context
    opening: bool

    @classmethod
    def of(cls, delta: Delta) -> Content:
        """A fact's."""
        opening = delta.kind is Kind.OPENING
        return cls(delta.card, delta.amount_minor, delta.at_ms, delta.context, opening)

    @property
    def may_be_taken_back(self) -> bool:
        """Of a card's openings the largest counts anyway, and what moves no money has no contrary."""
        return self.amount_minor != 0 and not self.opening

    @property
    def back(self) -> Content:
        """What takes it back, where that may be."""
        return self._replace(amount_minor=-self.amount_minor)
