"""What makes a fact the same under another identity: that is how one tells what was written again."""

from __future__ import annotations

from typing import NamedTuple

from crdt.facts import CardId, Context, Delta


class Content(NamedTuple):
    """What makes a fact the same under another identity: everything but its author and number.

    The kind does not tell: where the hub may not write one, it books an adjustment of the same amount.
    """

    card: CardId
    amount_minor: int
    at_ms: int
    context: Context

    @classmethod
    def of(cls, delta: Delta) -> Content:
        """A fact's."""
        return cls(delta.card, delta.amount_minor, delta.at_ms, delta.context)

    @property
    def back(self) -> Content:
        """What takes it back."""
        return self._replace(amount_minor=-self.amount_minor)
