"""The exposure of the fleet as it stands: `crdt.exposure` with what the hub knows of its terminals and cards.

Each terminal that is not online is a group of its own, since it settled last; those online hear of each other
through the hub and are one group. What an offline terminal may believe of a card is the balance now, and what
was taken from it since that terminal settled.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, select

from crdt.exposure import Exposure, Group, Standing, exposure
from crdt.fleet import FleetSettings
from crdt.store.schema import CARD, HISTORY
from crdt.store.store import Store
from hub.registry import Registry, Terminal

LONG_MS = 10 * 365 * 86_400_000  # of those online: what they let cards ride for until the others come back
REST = 20  # how much longer than it took the figure is left alone: it reads every card


@dataclass(frozen=True, slots=True)
class ExposureView:
    """What cards can come to owe at most, beyond what they owe now, until all are back. Minor units."""

    offline: int  # terminals that are away
    longest_ms: int  # the longest time one of them has been away; 0 when none is
    per_card_minor: int
    per_new_card_minor: int  # of a card that nobody has met
    fleet_minor: int  # of all cards that are known
    in_touch_minor: int  # of it what is left when every terminal is online: rides that the policy lends
    unlent_minor: int  # of it what is left when the policy lends no ride

    @property
    def offline_minor(self) -> int:
        """What of it is there only because terminals are away."""
        return self.fleet_minor - self.in_touch_minor


class Exposures:
    """Computes the exposure, at most in a small part of the time."""

    def __init__(
        self,
        database: Store,
        registry: Registry,
        policy: Callable[[], Awaitable[FleetSettings]],
        online_s: int,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._database = database
        self._registry = registry
        self._policy = policy
        self._online_ms = online_s * 1000
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._known: ExposureView | None = None
        self._not_before_s = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def get(self) -> ExposureView:
        """The exposure now, or a moment ago."""
        async with self._one_at_a_time:
            began_s = self._monotonic()
            if self._known is None or began_s >= self._not_before_s:
                self._known = await self._compute()
                self._not_before_s = self._monotonic() + REST * (self._monotonic() - began_s)
            return self._known

    async def _compute(self) -> ExposureView:
        now_ms, policy = self._now_ms(), await self._policy()
        terminals = [row for row in await self._registry.terminals() if row.revoked_ms is None]
        away = [row for row in terminals if now_ms - (row.seen_ms or 0) > self._online_ms]
        since = min((row.settled_fact for row in away), default=None)
        cards = await asyncio.wrap_future(self._database.read(lambda sql: standings(sql, since)))
        return await asyncio.to_thread(judge, policy, terminals, away, cards, now_ms)


def judge(
    policy: FleetSettings,
    terminals: Sequence[Terminal],
    away: Sequence[Terminal],
    cards: Sequence[Standing],
    now_ms: int,
) -> ExposureView:
    """The figures, from terminals that are not revoked and those of them that are away. Pure."""
    together = [Group(LONG_MS)] if len(terminals) > len(away) else []
    times = [max(0, now_ms - (row.settled_ms or row.paired_ms)) for row in away]
    groups = [*together, *map(Group, times)]
    opening_minor = policy.opening_balance_minor
    # A terminal that settled before a card was met gives it its opening balance once more.
    believed = [one._replace(believed_minor=max(one.believed_minor, opening_minor)) for one in cards]
    known = believed if away else list(cards)
    worst = exposure(policy, groups, known)
    in_touch: Exposure = exposure(policy, [Group(LONG_MS)] if terminals else [], cards)
    unlent = exposure(replace(policy, negative_ride=False), groups, known)
    return ExposureView(
        offline=len(away),
        longest_ms=max(times, default=0),
        per_card_minor=worst.per_card_minor,
        per_new_card_minor=worst.per_new_card_minor,
        fleet_minor=worst.fleet_minor,
        in_touch_minor=min(in_touch.fleet_minor, worst.fleet_minor),
        unlent_minor=unlent.fleet_minor,
    )


def standings(connection: Connection, since: int | None) -> list[Standing]:
    """How the cards stand. `since`: the last fact of the history that all terminals know; None: all."""
    balance = CARD.c.sum_minor + CARD.c.opening_minor
    rows = connection.execute(select(balance, func.count()).group_by(balance))
    counts = {int(balance_minor): int(count) for balance_minor, count in rows}
    spent: list[Standing] = []
    if since is not None:
        taken = -func.sum(HISTORY.c.amount_minor)
        query = select(balance, taken).join_from(HISTORY, CARD, HISTORY.c.card == CARD.c.card)
        query = query.where(HISTORY.c.id > since, HISTORY.c.amount_minor < 0)
        columns = (HISTORY.c.card, CARD.c.sum_minor, CARD.c.opening_minor)
        for balance_minor, taken_minor in connection.execute(query.group_by(*columns)):
            counts[int(balance_minor)] -= 1
            spent.append(Standing(int(balance_minor), int(balance_minor) + int(taken_minor)))
    return [*(Standing(minor, minor, count) for minor, count in counts.items() if count), *spent]
