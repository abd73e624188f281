"""What cards owe in the end, against the bound of `crdt.exposure` for a world's policy and terminals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from crdt.exposure import Group, Standing, exposure
from crdt.facts import CardId, Kind
from crdt.fleet import FleetSettings
from tests.simulation.authors import FARES
from tests.simulation.oracle import expect

if TYPE_CHECKING:
    from tests.simulation.world import World

FOR_EVER_MS: Final = 10**12


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
    believed_minor = policy(world).opening_balance_minor + paid_in
    groups = [Group(FOR_EVER_MS)] * (len(world.buses) + len(world.restored))
    standing = Standing(_given(world, card), believed_minor)
    return exposure(policy(world), groups, [standing]).per_card_minor


def policy(world: World) -> FleetSettings:
    """The most generous of all settings there were; passback limits nothing, for clocks jump."""
    used = [FARES[(version - 1) % len(FARES)] for version in range(1, world.hub.published + 1)] or [FARES[0]]
    return replace(
        FARES[0],
        flat_fare_minor=max(FARES[0].flat_fare_minor, *(one.flat_fare_minor for one in used)),
        opening_balance_minor=max(
            FARES[0].opening_balance_minor, *(one.opening_balance_minor for one in used)
        ),
        passback_window_s=0,
    )


def _given(world: World, card: CardId) -> int:
    """What the card has been given, by what the hub has in the end: one opening, and all payments."""
    reach = world.oracle.hub.reach
    facts = [
        fact
        for replica, last_seq in reach.items()
        for fact in world.oracle.facts[replica][:last_seq]
        if fact.card == card and fact.amount_minor > 0
    ]
    opening = max((fact.amount_minor for fact in facts if fact.kind is Kind.OPENING), default=0)
    return opening + sum(fact.amount_minor for fact in facts if fact.kind is not Kind.OPENING)
