"""The end of a world: everything works again, and within a few rounds all agree with the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.simulation.adoptions import each_once
from tests.simulation.diary import check_all_complete, check_days
from tests.simulation.hub_actions import night
from tests.simulation.keeping import (
    check_ended,
    check_keepsakes,
    keeps_more,
    keepsakes,
    known_to_have_ended,
    knows_more,
)
from tests.simulation.meetings import bring_lost
from tests.simulation.network import NO_FAULTS
from tests.simulation.oracle import NOTHING, Broken, expect
from tests.simulation.owing import Foretold, check_exposure

if TYPE_CHECKING:
    from tests.simulation.buses import Bus
    from tests.simulation.world import World

MAX_ROUNDS: Final = 4  # of everybody syncing, until all agree


def heal(world: World) -> None:
    """No more faults, and everybody syncs. Raises Broken when they do not come to agree."""
    world.trace.append(("heal",))
    world.network.faults = NO_FAULTS
    world.network.partitioned.clear()
    while world.network.late:
        world.network.deliver_late()
    world.hub.chores()
    for bus in world.buses:
        bus.wall.wall_ms = bus.wall.synchronised_ms = world.now_ms
        if world.faults.stale:  # an old answer may have said what the hub does not take, which puts it off
            bus.delivery.unwanted.clear()
        for stopped in world.buses:
            if stopped.replica in world.network.revoked and stopped is not bus:
                bus.beliefs.forget(stopped.replica)  # it is not answered any more
    kept, foretold, ended = keepsakes(world), Foretold.of(world), known_to_have_ended(world)
    _agree(world)
    for bus in world.buses:
        if bus.storage.lost:
            bring_lost(world.hub, bus)
    if _decide(world):
        _agree(world)
    compare(world)
    each_once(world)
    check_keepsakes(world, kept)
    check_ended(world, ended)
    check_exposure(world)
    foretold.check(world)
    if world.days:
        _end_the_day(world)


def _end_the_day(world: World) -> None:
    night(world)
    for bus in world.present():
        expect(world.sync(bus), f"{bus.name} cannot sync though everything works: {world.trace[-1][-1]}")
    world.hub.chores()
    check_days(world)
    if not world.hub.put_back:
        check_all_complete(world)


def _agree(world: World) -> None:
    for _ in range(MAX_ROUNDS):
        behind = [bus for bus in world.present() if _is_behind(world, bus)]
        if not behind:
            return
        for bus in sorted(behind, key=lambda bus: -bus.ledger.held()[0]):  # who only takes comes last
            expect(world.sync(bus), f"{bus.name} cannot sync though everything works: {world.trace[-1][-1]}")
    raise Broken(f"no agreement after {MAX_ROUNDS} rounds")


def _is_behind(world: World, bus: Bus) -> bool:
    """A hub that does not know that it was put back may have numbered anew what comes to the same sums."""
    anew = world.hub.unaware and bus.ledger.digest() != world.hub.ledger.digest().result()
    return anew or not bus.agrees() or keeps_more(world, bus) or knows_more(world, bus)


def _decide(world: World) -> bool:
    """An operator adopts what nobody has written again; whether the hub has written anything."""
    hub, before = world.hub, world.oracle.hub
    hub.renew_key()  # until it is started again, one that was found put back writes nothing that is due
    hub.chores()  # look for what was written again
    undecided = hub.evidence.undecided(hub.revocations.replaced)
    if undecided:
        hub.adopt(undecided)
        hub.chores()
    return world.oracle.hub != before


def compare(world: World) -> None:
    """Everybody who may speak to the hub has all that was written, and the same of it."""
    oracle = world.oracle
    present = {replica for bus in world.present() for replica in bus.replicas}
    for replica in present:
        count = len(oracle.facts[replica])
        expect(oracle.hub.reach.get(replica, 0) == count, f"the hub lacks facts of {replica.hex()}")
    owing = {card for card, state in oracle.hub.cards.items() if sum(state) < world.hub.floor_minor}
    expect(oracle.hub.overdrawn == owing, f"{oracle.hub.overdrawn} are overdrawn, not {owing}")
    states = oracle.believed(oracle.hub, {})
    for bus in world.present():
        expect(bus.beliefs.installed() == oracle.hub, f"{bus.name} has another settlement")
        expect(bus.ledger.held() == (0, 0), f"{bus.name} still holds something")
        _compare_evidence(world, bus)
        for card in world.cards:
            expect(bus.ledger.view(card).balance_minor == sum(states.get(card, NOTHING)), "balances differ")
    for bus in world.random.sample(world.present(), 1):
        expect(bus.ledger.digest() == world.hub.ledger.digest().result(), f"{bus.name} has another digest")
        expect(bus.ledger.books().balance, f"the books of {bus.name} do not balance")
    expect(world.hub.ledger.books().result().balance, "the hub's books do not balance")


def _compare_evidence(world: World, bus: Bus) -> None:
    """What a terminal took out of its record is at the hub, unless that lost it, or an old answer said so."""
    if not world.hub.put_back and not world.faults.stale:
        evidence = {each for (each,) in bus.disk.rows("SELECT hash FROM quarantine")}
        expect(evidence <= world.hub.evidence.hashes(), f"the hub lacks evidence that {bus.name} has")
