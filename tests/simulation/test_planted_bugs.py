"""The simulation finds the bugs that are planted in the product: what it does not find it does not guard."""

import pytest

from tests.simulation.mutations.every import MUTATIONS
from tests.simulation.mutations.planting import Mutation
from tests.simulation.play import play


@pytest.mark.parametrize("bug", MUTATIONS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_found(bug: Mutation) -> None:
    """ "A set of planted bugs that the simulator must each find within a stated number of seeds"."""
    found = bug.hunt()
    assert found is not None, f"not found in {bug.seeds} seeds: {bug.name}"
    assert play(found.seed).failure == "", "the same seed fails without the bug"
