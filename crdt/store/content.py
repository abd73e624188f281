"""What makes a fact the same under another identity: that is how one tells what was written again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from crdt.facts import CardId, Context, Delta, Kind, ReplicaId


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

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Content:
        """The inverse of `row`."""
        card, kind, amount_minor, at_ms, *context = row
        return cls(CardId(card), Kind(kind), amount_minor, at_ms, Context(*context))

    @property
    def row(self) -> tuple[Any, ...]:
        """As the history's columns, in their order."""
        context = self.context
        place = (context.route, context.trip, context.stop, context.clock_epoch, context.clock_error_ms)
        return (self.card, int(self.kind), self.amount_minor, self.at_ms, *place)

    def by(self, author: ReplicaId) -> Delta:
        """As an author's fact; it is not numbered yet, so it says 1."""
        return Delta(author, 1, self.card, self.kind, self.amount_minor, self.at_ms, self.context)

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
