"""Every planted bug: what the simulation has to find, each within a stated number of seeds."""

from typing import Final

from tests.simulation.mutations import days, exposure, identity, ledger, money, revocation, settlement

MUTATIONS: Final = (
    *ledger.MUTATIONS,
    *money.MUTATIONS,
    *settlement.MUTATIONS,
    *identity.MUTATIONS,
    *revocation.MUTATIONS,
    *days.MUTATIONS,
    *exposure.MUTATIONS,
)
