"""What the dashboard shows that cards can come to owe."""

from typing import Final

from hub import exposure
from tests.simulation.mutations.planting import mutation

MUTATIONS: Final = (
    mutation(
        "the dashboard leaves out a terminal that is away",
        20,
        exposure.judge,
        "worst = exposure([*together, *apart], cards)",
        "worst = exposure([*together, *apart[1:]], cards)",
        first=4,
    ),
    mutation(
        "the dashboard leaves out cards that somebody has ridden on",
        60,
        exposure.standings,
        "if count), *spent]",
        "if count)]",
        first=22,
    ),
)
