"""Bugs that are planted in the product, for the plays of copies to find."""

from typing import Final

from crdt.store import conceding, said_again
from hub import enrolling
from tests.simulation.mutations.planting import mutation

MUTATIONS: Final = (
    mutation(
        "a ride that several identities say counts as often",
        60,
        said_again.note_came,
        "_note(connection, _CAME.rows(connection, after=after))",
        "pass",
        first=120,
    ),
    mutation(
        "a copy is not compared with who had its storage under another name",
        60,
        enrolling.former,
        "author.terminal in those",
        "author.terminal == terminal",
        first=1,
    ),
    mutation(
        "a copy goes on that has open what another one writes again",
        60,
        enrolling.unsaid,
        "if not (brought or expected.ended):",
        "if not one:",
        first=63,
    ),
    mutation(
        "what the hub has of other copies is written again",
        60,
        conceding.Conceding._elsewhere,
        "if not kin:",
        "if True:",
        first=1,
    ),
)
