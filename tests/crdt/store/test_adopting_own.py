"""Invariants 3 and 5: what the hub lost of its own, or had adopted under another identity, counts once."""

import pytest

from crdt.block import Block, parse, seal
from crdt.facts import Delta, Draft, Kind
from crdt.store.adopting import Adopter
from crdt.store.blocks import authors_of
from crdt.store.hub import HubLedger
from crdt.store.resolutions import ADOPTED
from tests.crdt import world
from tests.crdt.store.branches import (
    COMMON,
    MINE,
    ONE,
    THEIRS,
    as_of,
    give,
    renewed,
    resolved,
    settled,
    steps,
)
from tests.crdt.store.fleet import Fleet, card, deltas_of
from tests.crdt.store.quarantined import at_rest

TOPUP = Draft(Kind.TOPUP, 1000)
LATER = renewed(world.Terminal(world.HUB_KEY, world.HUB), b"L")


def sold(hub: HubLedger, number: int) -> Block:
    """A top-up that the hub books; its block."""
    head = hub.append(card(number), [TOPUP], 1_000 + number).result().head
    (raw,) = hub.blocks_after(hub.replica, head.seq - 1, 1 << 20).result()
    return parse(raw)


def fork_of(counted: Block, number: int) -> Block:
    """What else a hub whose whole machine was put back booked under the number of that block."""
    seq = counted.header.first_seq
    other = Delta(world.HUB.replica, seq, card(number), TOPUP.kind, TOPUP.amount_minor, 1_000 + number)
    return seal(world.HUB_KEY, world.FLEET, [other], counted.header.previous)


def succeed(fleet: Fleet) -> None:
    """The hub is started again, under its new identity."""
    fleet.hub.close()
    fleet.hub = HubLedger(
        fleet.hub_database, world.FLEET_KEY.public_key, LATER.key, LATER.certificate, entropy=fleet._entropy
    )


def undone(fleet: Fleet) -> int:
    """How many facts the hub takes back of what it has adopted."""
    adopter = Adopter(LATER.key, LATER.certificate, authors_of)
    adopter.look([LATER.key.replica])
    return sum(step.facts for step in steps(fleet, adopter))


def test_invariant_3_what_is_adopted_of_the_hubs_own_branch_stays(fleet: Fleet) -> None:
    """The adoption is in the history of the hub itself. It is not what tells that it was written again."""
    lost = fork_of(sold(fleet.hub, 1), 2)
    give(fleet.hub, lost)
    succeed(fleet)
    assert fleet.hub.adopt([lost.hash]).result() == 1
    sold(fleet.hub, 3)
    assert undone(fleet) == 0
    succeed(fleet)
    assert undone(fleet) == 0
    assert [fleet.hub.balance(card(number)).result() for number in (1, 2, 3)] == [1000, 1000, 1000]
    resolved(fleet.hub, ADOPTED)
    assert fleet.hub.adopt([lost.hash]).result() == 0
    assert fleet.hub.books().result().balance


def test_what_another_identity_of_the_hub_had_adopted_too_counts_once(fleet: Fleet) -> None:
    """The hub was put back once more, and the operator adopted again before the first adoption came back."""
    other = renewed(world.Terminal(world.HUB_KEY, world.HUB), b"O")
    lost = fork_of(sold(fleet.hub, 1), 2)
    give(fleet.hub, lost)
    succeed(fleet)
    hub = fleet.hub
    assert hub.adopt([lost.hash]).result() == 1
    earlier = other.blocks(as_of([*deltas_of(lost)], other), [])
    hub.merge([block.raw for block in earlier], [other.certificate]).result()
    at_rest(hub)
    assert hub.balance(card(2)).result() == 1000
    resolved(hub, ADOPTED)


@pytest.mark.parametrize("back_first", [True, False])
def test_what_the_hub_had_adopted_before_it_was_put_back_counts_once(fleet: Fleet, back_first: bool) -> None:
    """Invariant 3: the backup knows nothing of it, so the operator adopts again, before it comes or after."""
    hub, earlier = fleet.hub, renewed(world.Terminal(world.HUB_KEY, world.HUB), b"O")
    branch = ONE.blocks(COMMON + THEIRS, [])
    give(hub, *ONE.blocks(COMMON + MINE, []))
    give(hub, *branch)
    adopted = [block.raw for block in earlier.blocks(as_of(THEIRS, earlier), [])]
    if back_first:
        hub.merge(adopted, [earlier.certificate]).result()
        assert hub.adopt([branch[0].hash]).result() == 0
    else:
        assert hub.adopt([branch[0].hash]).result() == 3
        hub.merge(adopted, [earlier.certificate]).result()
        at_rest(hub)
    resolved(hub, ADOPTED)
    settled(hub, 250 - 70)
    settled(hub, -200, on=2)
    assert hub.balance(card(3)).result() == 500
    assert hub.books().result().balance
