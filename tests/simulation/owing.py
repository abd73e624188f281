"""What cards owe in the end, against the bound of `crdt.exposure` for a world's policy and terminals."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from crdt.exposure import Group, Rules, Standing, exposure
from crdt.facts import CardId, Kind
from tests.simulation.authors import FARES
from tests.simulation.oracle import expect

if TYPE_CHECKING:
    from tests.simulation.world import World


def check_exposure(world: World) -> None:
    """No card owes more for rides than the bound, when all have come together."""
    for card in world.cards:
        owed_minor, bound_minor = owed(world, card), bound(world, card)
        expect(owed_minor <= bound_minor, f"{card.hex()} owes {owed_minor}, at most {bound_minor} was told")


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
    """The most that it may come to owe. Each terminal is by itself, and a copy of its storage is one more."""
    ever = [fact for fact in world.oracle.named.values() if fact.card == card]
    paid_in = sum(
        fact.amount_minor for fact in ever if fact.kind is not Kind.OPENING and fact.amount_minor > 0
    )
    most = rules(world)
    groups = [Group(most)] * (len(world.buses) + len(world.restored))
    standing = Standing(_given(world, card), most.opening_minor + paid_in)
    return exposure(groups, [standing]).per_card_minor


def rules(world: World) -> Rules:
    """The most generous of all that there were."""
    used = [FARES[(version - 1) % len(FARES)] for version in range(1, world.hub.published + 1)]
    return reduce(Rules.joined, map(Rules.of, used), Rules.of(FARES[0]))


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
