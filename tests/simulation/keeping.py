"""What terminals keep for the hub has to be in its ledger again when all is well."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from crdt.facts import ReplicaId
from tests.simulation.adoptions import facts_in
from tests.simulation.oracle import Fact, expect

if TYPE_CHECKING:
    from tests.simulation.buses import Bus
    from tests.simulation.world import World


def keeps_more(world: World, bus: Bus) -> bool:
    """Whether a terminal keeps bookings for a hub that was put back, and that has not got them so far."""
    if not world.hub.put_back:
        return False
    kept = {hash_ for (hash_,) in bus.disk.rows("SELECT hash FROM keepsake")}
    return not kept <= world.hub.evidence.hashes()


def knows_more(world: World, bus: Bus) -> bool:
    """Whether a terminal knows of somebody's end that the hub has lost, and had no time for."""
    return not bus.ledger.revocations().cut_offs.keys() <= world.hub.cut_offs.keys()


def keepsakes(world: World) -> set[Fact]:
    """All that terminals keep for a hub that was put back."""
    if not world.hub.put_back:
        return set()
    blocks = {raw for bus in world.present() for (raw,) in bus.disk.rows("SELECT raw FROM keepsake")}
    return {fact for raw in blocks for fact in facts_in(raw)}


def check_keepsakes(world: World, kept: AbstractSet[Fact]) -> None:
    """What a hub had booked, and terminals kept, counts: as it was booked, or adopted from another branch."""
    oracle = world.oracle
    here = {
        fact for replica, last_seq in oracle.hub.reach.items() for fact in oracle.facts[replica][:last_seq]
    }
    expect(kept <= here, f"the hub lacks what terminals had kept for it: {kept - here}")


def known_to_have_ended(world: World) -> set[ReplicaId]:
    """Whom the lists name that terminals have of a hub, which may have been put back since."""
    return {replica for bus in world.present() for replica in bus.ledger.revocations().cut_offs}


def check_remembered(bus: Bus, ended: AbstractSet[ReplicaId]) -> None:
    """A hub takes nobody off its list; one that was put back does not because it has forgotten him."""
    known = bus.ledger.revocations().cut_offs.keys()
    expect(ended <= known, f"{bus.name} has forgotten who had ended, and no hub had heard it")


def check_ended(world: World, ended: AbstractSet[ReplicaId]) -> None:
    """A hub that was put back knows them again."""
    expect(ended <= world.hub.cut_offs.keys(), "the hub has lost who had ended, and terminals knew")
