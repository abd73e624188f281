"""What facts add up to, and what cards may owe."""

from typing import Final

from crdt.store import adopting, balances, coincidences, held, memory, overdrawn, recording, rewriting
from edge import decide
from tests.simulation.actions import HUB, OWING
from tests.simulation.mutations.planting import mutation
from tests.simulation.mutations.second_guards import NOTED_MOMENTS

MUTATIONS: Final = (
    mutation(
        "the hub adds openings up",
        30,
        balances.add_gain,
        "opening_minor = max(",
        "opening_minor = (lambda *both: sum(both))(",
    ),
    mutation(
        "a terminal adds openings up",
        60,
        memory.Memory.view,
        "opening_minor = max(opening_minor, held.openings.get(card, 0))",
        "opening_minor += held.openings.get(card, 0)",
        first=4,
    ),
    mutation(
        "a terminal forgets what it holds beyond a settlement",
        60,
        held.held_beyond,
        "if included < head.seq:",
        "if not included:",
        first=12,
    ),
    mutation(
        "a terminal counts what is settled again",
        10,
        held.held_beyond,
        "included = settled.get(replica, NO_HEAD).seq",
        "included = 0",
    ),
    mutation(
        "one block of a merge counts twice",
        60,
        recording.record,
        "for columns in facts:",
        "for columns in (*facts, *facts[1:2]):",
    ),
    mutation(
        "a ride counts as its terminal's and as a lost hub's too, where no evidence says so",
        30,
        adopting.Adopter._compare_copied,
        "for fact in reckon_ride(*one)",
        "for fact in ()",
        theme=HUB,
        first=18,
    ),
    mutation(
        "what a hub wrote to make up for what others had taken back counts on when their copies come back",
        30,
        rewriting.copied_rides,
        " + by[hub, content.back] - backs",
        "",
        theme=HUB,
        first=40000788,
    ),
    mutation(
        "what comes before the copies of a lost hub is not held against them",
        30,
        coincidences.Coincidences.part,
        "return Part([Moment(*one) for one in met], Seen(end, None))",
        "return Part([], Seen(end, None))",
        NOTED_MOMENTS,
        theme=HUB,
        first=84,
    ),
    mutation(
        "a repeated request books again",
        60,
        recording.book,
        "if before is None:",
        "if before is None or True:",
        first=6,
    ),
    mutation(
        "no card is overdrawn",
        30,
        balances.judged,
        "if balance_minor < floor_minor",
        "if False",
        theme=OWING,
    ),
    mutation(
        "a milder rule releases nobody",
        60,
        overdrawn.judge_some,
        "if flags != row.flags:",
        "if flags > row.flags:",
        theme=OWING,
        first=48,
    ),
    mutation(
        "a terminal lends rides without end",
        30,
        decide._lent,
        "and balance_minor >= 0",
        "",
        theme=OWING,
    ),
)
