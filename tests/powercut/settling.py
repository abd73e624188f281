"""What settlement pages add up to: the model of whoever takes them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from crdt.cursor import START, Cursor, beginning
from crdt.digest import state_digest
from crdt.facts import NEW_CARD, CardId, CardState, Kind, ReplicaId
from crdt.frontier import Head
from crdt.settlement import NO_SERIES, CardRow, Page

Fact = tuple[bytes, int, int, int]  # card, kind, minor units, time in ms
Asked = tuple[bytes, int, Cursor]  # series, base, and the cursor after which to go on


@dataclass(frozen=True)
class Settled:
    """A settlement that shows, and how far the next one has come. Starts as that of a new terminal."""

    series: bytes = NO_SERIES
    position: int = 0
    cards: Mapping[CardId, CardRow] = field(default_factory=dict)
    heads: Mapping[ReplicaId, Head] = field(default_factory=dict)
    asks: Asked = (NO_SERIES, 0, START)
    staged: Mapping[CardId, CardRow] = field(default_factory=dict)
    staged_heads: Mapping[ReplicaId, Head] = field(default_factory=dict)

    def taking(self, page: Page) -> "Settled":
        """After this page."""
        staged = {**({} if page.restarts else self.staged), **{row.card: row for row in page.rows}}
        heads = {**({} if page.restarts else self.staged_heads), **page.heads}
        if not page.final:
            asks = page.series, page.base, page.until
            return replace(self, staged=staged, staged_heads=heads, asks=asks)
        asks = page.series, page.position, beginning(page.position)
        before = self if page.base else Settled()
        cards = {**before.cards, **staged}
        return Settled(page.series, page.position, cards, {**before.heads, **heads}, asks)

    def asks_during(self, page: Page) -> set[Asked]:
        """What may be asked for while this page is being taken and does not show yet."""
        cursors = page.after, page.begun, page.until
        return {self.asks, *((page.series, page.base, cursor) for cursor in cursors)}

    def states(self) -> dict[CardId, CardState]:
        """The settled sums."""
        return {card: row.state for card, row in self.cards.items()}


def plus(states: Mapping[CardId, CardState], facts: Iterable[Fact]) -> dict[CardId, CardState]:
    """The cards' sums after these facts."""
    sums = dict(states)
    for card, kind, amount_minor, _at_ms in facts:
        one = CardId(card)
        sums[one] = sums.get(one, NEW_CARD).plus(Kind(kind), amount_minor)
    return sums


def digest(heads: Mapping[ReplicaId, Head], states: Mapping[CardId, CardState]) -> bytes:
    """The state digest."""
    return state_digest(sorted(heads.items()), sorted(states.items()))
