"""What can happen in a world, how likely, and what happens in some seeds for certain."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Final

from tests.simulation import bus_actions, hub_actions

if TYPE_CHECKING:
    from tests.simulation.world import World

    Action = Callable[[World], None]

THEMES: Final = 6  # of seeds: a stranger is hotlisted for a while; storage is put back; a hub is put back;
STRANGER, STORAGE, HUB, REVOKED, OWING, DAYS = range(THEMES)  # authors are revoked; debts; days are closed

SCRIPTS: Final[tuple[tuple[Action, ...], ...]] = (  # by theme: what happens for certain, in this order
    (
        hub_actions.list_stranger,
        hub_actions.book,
        hub_actions.book,
        bus_actions.keep_in_touch,
        bus_actions.power_cycle,
        hub_actions.backup,
        hub_actions.intrude,
        bus_actions.sync,
        bus_actions.prune,
        hub_actions.list_stranger,
        bus_actions.sync,
        bus_actions.sync,
    ),
    (
        bus_actions.copy_unsent,
        bus_actions.sync_copied,
        bus_actions.seal_copied,
        bus_actions.restore_storage,
        bus_actions.go_apart,
        bus_actions.carry_apart,
        hub_actions.adopt,
        bus_actions.copy_promised,
        hub_actions.night,
        bus_actions.pair_suspended,
        bus_actions.go_on_promised,
        bus_actions.restore_storage,
        bus_actions.sync,
        hub_actions.close_days,
        hub_actions.find_lost,
        hub_actions.adopt,
    ),
    (
        hub_actions.rogue_sells,
        hub_actions.forget_branch,
        hub_actions.backup,
        hub_actions.book,
        hub_actions.revoke_rogue,
        hub_actions.block,
        bus_actions.sync,
        hub_actions.restore_hub,
        hub_actions.book,
        bus_actions.sync,
    ),
    (
        hub_actions.rogue_sells,
        bus_actions.share,
        hub_actions.revoke,
        hub_actions.revoke_rogue,
        hub_actions.intrude,
        bus_actions.sync,
        hub_actions.revoke_rogue,
        hub_actions.intrude,
    ),
    (
        hub_actions.publish,
        hub_actions.publish,
        bus_actions.ride_out,
        bus_actions.sync,
        bus_actions.ride_out,
        hub_actions.publish,
        hub_actions.chores,
        hub_actions.publish,
    ),
    (
        bus_actions.keep_in_touch,
        hub_actions.night,
        bus_actions.sync,
        hub_actions.close_days,
        bus_actions.sync,
        hub_actions.chores,
        hub_actions.night,
        hub_actions.close_days,
        hub_actions.chores,
    ),
)
_ACTIONS: Final[tuple[tuple[float, Action], ...]] = (
    (30, bus_actions.tap),
    (16, bus_actions.sync),
    (6, hub_actions.book),
    (4, hub_actions.intrude),
    (3, bus_actions.seal),
    (3, bus_actions.tidy),
    (4, hub_actions.block),
    (3, hub_actions.late),
    (3, bus_actions.clock),
    (2, bus_actions.power_cycle),
    (2, hub_actions.backup),
    (2, bus_actions.partition),
    (2, hub_actions.restore_hub),
    (1, hub_actions.chores),
    (1, hub_actions.hub_power_cycle),
    (1, bus_actions.pair_anew),
    (1, bus_actions.pair_suspended),
    (1, hub_actions.publish),
    (1, hub_actions.adopt),
    (0.5, hub_actions.night),
    (0.7, hub_actions.close_days),
    (0.5, hub_actions.find_lost),
    (4, bus_actions.meeting),
    (1.5, bus_actions.fill_stick),
    (1.5, hub_actions.import_stick),
    (1.5, bus_actions.prune),
    (2, bus_actions.copy_storage),
    (2, bus_actions.restore_storage),
    (0.5, hub_actions.revoke),
    (0.7, hub_actions.revoke_rogue),
)
_LUCK: Final = tuple(accumulate(weight for weight, _ in _ACTIONS))


def draw(random: Random) -> Action:
    """Any of them, the likely ones more often."""
    return _ACTIONS[bisect(_LUCK, random.random() * _LUCK[-1], hi=len(_LUCK) - 1)][1]
