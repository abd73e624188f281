"""What makes a fact the same under another identity: that is how one tells what was written again."""

from __future__ import annotations

from typing import NamedTuple

from crdt.facts import CardId, Context, Delta, Kind


class Content(NamedTuple):
    """What makes a fact the same under another identity: everything but its author and number."""

    card: CardId
    kind: Kind
    amount_minor: int
    at_ms: int
    context: Context

    @classmethod
    def of(cls, delta: Delta) -> Content:
        """A fact's."""
        return cls(delta.card, delta.kind, delta.amount_minor, delta.at_ms, delta.context)

    @property
    def may_be_taken_back(self) -> bool:
        """Of a card's openings the largest counts anyway."""
        return self.kind is not Kind.OPENING

    @property
    def back(self) -> Content:
        """What takes it back, where that may be.

        It is of the same moment and place, so the day and the route that had a ride twice give it back; and
        of a kind of its own where it is a ride, which may be free.
        """
        kind = Kind.REVERSAL if self.kind is Kind.FARE else Kind.RETRACTION
        return self._replace(kind=kind, amount_minor=-self.amount_minor)
