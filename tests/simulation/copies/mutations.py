"""Bugs that are planted in the product, for the plays of copies to find."""

from typing import Final

from crdt.store import conceding, identities, rewriting, said_again
from hub import enrolling
from tests.simulation.mutations.planting import mutation

MUTATIONS: Final = (
    mutation(
        "a ride that several identities say counts as often",
        60,
        said_again.note_came,
        "_note(connection, _CAME.rows(connection, first=after + 1, last=_LAST))",
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
    mutation(
        "nothing is due of a ride that several identities say",
        60,
        rewriting._unbalanced,
        ".having(due != 0)",
        ".having(due != due)",
        first=16,
    ),
    mutation(
        "what a former identity had not sent is not kept when a list ends it",
        60,
        identities.kept_of_former,
        "if overlapping(connection, one, listed.cut_offs[one] + 1, MAX_SEQ)",
        "if False",
        first=54,
    ),
)
