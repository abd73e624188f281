"""The exposure that the hub shows, against what a simulated fleet really loses when it is away."""

from contextlib import closing

from crdt.fleet import FleetSettings
from tests.simulation.authors import FARES
from tests.simulation.bus_actions import ride_out
from tests.simulation.healing import heal
from tests.simulation.network import NO_FAULTS
from tests.simulation.owing import bound, owed
from tests.simulation.signatures import simulated_signatures
from tests.simulation.world import World


def test_the_worst_that_can_happen_is_what_was_told() -> None:
    """ "Tested in the simulator against what actually happened": the bound is reached, to the unit."""
    with simulated_signatures(), closing(World(0)) as world:
        world.network.faults = world.faults = NO_FAULTS
        world.trace.append(("a card is ridden on every bus, and none of them hears of another",))
        ride_out(world)
        heal(world)
        fares: FleetSettings = FARES[0]
        lost = owed(world, world.cards[0])
        assert lost == bound(world, world.cards[0]) - _unused(world, fares)
        assert lost > fares.flat_fare_minor, "more than one bus alone would lend"


def _unused(world: World, fares: FleetSettings) -> int:
    """What fares that are no divisor of the balance leave of each bus's last ride."""
    whole = -(-fares.opening_balance_minor // fares.flat_fare_minor) * fares.flat_fare_minor
    return len(world.buses) * (fares.opening_balance_minor + fares.flat_fare_minor - whole)
