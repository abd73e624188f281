"""What mends in the end what a bug breaks: the bug is planted without it, so that the plays guard both."""

from typing import Final

from crdt.store.adopting import Adopter
from tests.simulation.mutations.planting import Change

NOTED_MOMENTS: Final = Change(
    Adopter._compare_repeats, "done = self._compare_copied(connection, kin, moments, done)", "pass"
)
"""The hub's copies are held against whoever says a ride, also where nothing else told it to look."""
