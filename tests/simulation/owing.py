"""What cards owe in the end, against what the hub's dashboard says that they can come to owe.

The figures are the hub's own (`hub.exposure`), for a fleet of which every terminal is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from crdt.exposure import Rules, Standing
from crdt.facts import CardId, Kind
from hub.exposure import ExposureView, judge, standings
from hub.published import Published
from hub.registry import Terminal
from tests.hub.registered import registered
from tests.simulation.authors import FARES
from tests.simulation.oracle import expect

if TYPE_CHECKING:
    from tests.simulation.world import World


def check_exposure(world: World) -> None:
    """No card owes more for rides than the bound, when all have come together."""
    for card in world.cards:
        owed_minor, bound_minor = owed(world, card), bound(world, card)
        expect(owed_minor <= bound_minor, f"{card.hex()} owes {owed_minor}, at most {bound_minor} was told")


@dataclass(frozen=True)
class Foretold:
    """What the dashboard showed before the terminals came, and what cards owed then."""

    view: ExposureView
    debts: dict[CardId, int]

    @classmethod
    def of(cls, world: World) -> Foretold:
        """As the hub has it now."""
        while world.hub.ledger.lag().result():
            pass
        cards = world.hub.database.read(lambda connection: standings(connection, 0)).result()
        return cls(shown(world, cards), _debts(world))

    def check(self, world: World) -> None:
        """What they brought cost no more than was shown; of a hub that was put back nobody can say so: it
        may have sold what it does not know of."""
        if world.hub.put_back:
            return
        more = {card: debt - self.debts.get(card, 0) for card, debt in _debts(world).items()}
        new = len(more.keys() - self.debts.keys())
        lost_minor = sum(max(0, minor) for minor in more.values())
        most_minor = self.view.fleet_minor + new * self.view.per_new_card_minor
        expect(lost_minor <= most_minor, f"cards owe {lost_minor} more, at most {most_minor} was shown")


def owed(world: World, card: CardId) -> int:
    """What the rides on terminals cost beyond all that was ever given to the card. Minor units."""
    riders = {replica for bus in world.buses for replica in bus.replicas}
    rides = [
        fact.amount_minor
        for replica in riders
        for fact in world.oracle.facts[replica][: world.oracle.hub.reach.get(replica, 0)]
        if fact.card == card and fact.kind is Kind.FARE
    ]
    return max(0, -sum(rides) - _given(world, card))


def bound(world: World, card: CardId) -> int:
    """The most that it may come to owe, had nobody heard of anything since it was given what it has."""
    ever = [fact for fact in world.oracle.named.values() if fact.card == card]
    paid_in = sum(
        fact.amount_minor for fact in ever if fact.kind is not Kind.OPENING and fact.amount_minor > 0
    )
    standing = Standing(_given(world, card), published(world).since(0).opening_minor + paid_in)
    return shown(world, [standing]).per_card_minor


def shown(world: World, cards: Sequence[Standing]) -> ExposureView:
    """What the dashboard shows. Each terminal is by itself, and a copy of its storage is one more."""
    rows = [_row(number) for number in range(len(world.buses) + len(world.restored))]
    return judge(published(world), rows, rows, cards, world.now_ms)


def published(world: World) -> Published:
    """The rules of all versions that there were."""
    return _rules_until(max(1, world.hub.documents.published))


@cache
def _rules_until(version: int) -> Published:
    return Published({each: Rules.of(FARES[(each - 1) % len(FARES)]) for each in range(1, version + 1)})


@cache
def _row(number: int) -> Terminal:
    """A terminal that has come once, and says nothing of the fares it has: it may judge by any."""
    return registered(number, seen_ms=0)


def _debts(world: World) -> dict[CardId, int]:
    """What each card that the hub has met owes."""
    return {card: max(0, -sum(state)) for card, state in world.oracle.hub.cards.items()}


def _given(world: World, card: CardId) -> int:
    """What the card has been given, by what the hub has in the end: one opening, and all payments."""
    reach, taken_back = world.oracle.hub.reach, world.hub.adoptions.taken_back
    facts = [
        fact
        for replica, last_seq in reach.items()
        for seq, fact in enumerate(world.oracle.facts[replica][:last_seq], 1)
        if fact.card == card and fact.amount_minor > 0 and (replica, seq) not in taken_back
    ]
    opening = max((fact.amount_minor for fact in facts if fact.kind is Kind.OPENING), default=0)
    return opening + sum(fact.amount_minor for fact in facts if fact.kind is not Kind.OPENING)
