"""What terminals keep for the hub has to be in its ledger again when all is well."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.buses import Bus
    from tests.simulation.world import World


def keeps_more(world: World, bus: Bus) -> bool:
    """Whether a terminal keeps bookings of the hub that the hub lacks."""
    reach = world.oracle.hub.reach
    return any(head.seq > reach.get(replica, 0) for replica, head in bus.ledger.keepsake.heads().items())
