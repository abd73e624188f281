"""Days of service: what is said to be complete, and what restates a closed one."""

from typing import Final

from crdt.store import completeness, projection
from tests.simulation.actions import DAYS
from tests.simulation.mutations.planting import mutation

MUTATIONS: Final = (
    mutation(
        "a day is complete before its terminal has said all it has",
        60,
        completeness.Known.has_said_all,
        "day.end_ms <= self.expected.heard_ms <= now_ms",
        "self.expected.heard_ms > 0",
        theme=DAYS,
        first=18,
    ),
    mutation(
        "what comes late does not restate a closed day",
        60,
        projection.project_some,
        "days.adjust(connection, deltas, at_ms)",
        "pass",
        theme=DAYS,
        first=42,
    ),
)
