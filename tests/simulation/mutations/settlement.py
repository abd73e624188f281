"""Settlements, and what peers tell each other."""

from typing import Final

from crdt.store import balances, installer, keepsake, memory, paging, pruning, tapping, tidying
from tests.simulation.actions import HUB, STRANGER
from tests.simulation.mutations.planting import mutation

MUTATIONS: Final = (
    mutation(
        "pages are installed out of order",
        60,
        installer.Installer._check,
        "if not page.restarts and not page.continues(",
        "if False and not page.continues(",
        first=15,
    ),
    mutation(
        "the cursor is one card too far",
        60,
        paging.answer_pull,
        "map(_place_of_row, rows[:limit][-1:])",
        "map(_place_of_row, rows[-1:])",
    ),
    mutation(
        "a settlement leaves out the newest heads",
        60,
        paging._moved,
        "until=until",
        "until=until - 1",
    ),
    mutation(
        "what changes during an inventory is left out",
        60,
        paging._inventory,
        "final=ends and standing.position == since",
        "final=ends",
    ),
    mutation(
        "a restored hub goes on from positions it never made",
        60,
        balances.is_made,
        "return position <= ",
        "return True or position <= ",
        theme=HUB,
    ),
    mutation(
        "a restored hub makes positions again",
        60,
        balances.begin_run,
        "last + 1 + distance",
        "last + 1",
        theme=HUB,
    ),
    mutation(
        "heads of an earlier settlement stay",
        60,
        installer._shown,
        "head_generation=generation",
        "head_generation=standing.head_generation",
    ),
    mutation(
        "the overlay does not show",
        60,
        tapping.Tapping.view,
        "if standing.overlay_generation:",
        "if False:",
    ),
    mutation(
        "a hub that was put back is not brought its own bookings",
        60,
        keepsake._lost,
        "head.seq < min(",
        "head.seq > min(",
        theme=HUB,
    ),
    mutation(
        "housekeeping loses a card",
        60,
        tidying._sink_overlay,
        "AND card <= ? ",
        "AND card < ? ",
        first=60,
    ),
    mutation(
        "housekeeping deletes what shows",
        30,
        tidying.tidy,
        "{shown, *made}",
        "made",
    ),
    mutation(
        "a card stays on the hotlist",
        60,
        paging.answer_pull,
        "known=known",
        "known=0",
        theme=STRANGER,
    ),
    mutation(
        "what a peer had not sealed counts on once it is settled",
        60,
        memory.Memory.replaced,
        "self.believed.sealed(snapshot.settled)",
        "pass",
    ),
    mutation(
        "a peer's blocks are held and not counted",
        60,
        memory.Memory.merged,
        "self.held.add_columns(columns)",
        "pass",
    ),
    # ---- What is forgotten ----
    mutation(
        "a terminal forgets what is not settled",
        60,
        pruning._settled,
        "(head.replica == BLOCK.c.replica) & same_end",
        "(head.replica == BLOCK.c.replica)",
        theme=STRANGER,
    ),
    mutation(
        "a terminal forgets before the retention time has passed",
        60,
        pruning.prune,
        "now_ms - retention_ms",
        "now_ms",
        theme=STRANGER,
    ),
)
