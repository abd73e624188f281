"""The exposure of the fleet as it stands: `crdt.exposure` with what the hub knows of its terminals and cards.

A terminal is away while it is not online, or is and has not installed what it was given: to call alone tells
it nothing of what others took. Each that is away is a group of its own, since it settled last, and judges by
the most generous rules that were published since those it has. Nobody knows when it will be back, so its time
limits only what cards can owe by now. The others hear of each other through the hub and are one group. What a
terminal away may believe of a card is the balance now, and what was taken from it since that settled.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from sqlalchemy import Connection, func, select

from crdt.exposure import Group, Rules, Standing, exposure
from crdt.store.editions import MAX_AGE_S
from crdt.store.hub_schema import CARD, HISTORY
from crdt.store.store import Store
from hub.published import Published, published, version_in
from hub.registry import Registry, Terminal

SETTLED_LATE_MS = int(2 * MAX_AGE_S * 1000)  # that what two calls were answered may have been old
REST = 20  # how much longer than it took the figure is left alone: it reads every card


@dataclass(frozen=True, slots=True)
class ExposureView:
    """What known cards can come to owe at most, beyond what they owe by what the hub holds. Minor units."""

    offline: int  # terminals that are away
    longest_ms: int  # the longest time one of them has been away; 0 when none is
    lends: bool  # whether a terminal in touch lets a card ride once into the negative
    fleet_minor: int  # of all cards, however long those terminals stay away
    by_now_minor: int  # of it what they may have let cards ride for already
    in_touch_minor: int  # of it what is left when every terminal is online
    unlent_minor: int  # of it what is left when terminals online lend no ride
    per_card_minor: int  # of one card, however long
    per_new_card_minor: int  # of a card that nobody has met, however long
    loading: int = 0  # of the terminals away those that call, and load their first settlement
    behind: int = 0  # of them those that call, and do not install what they are given

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
        online_s: int,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._database = database
        self._registry = registry
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
        now_ms = self._now_ms()
        terminals = [row for row in await self._registry.terminals() if row.revoked_ms is None]
        away = [row for row in terminals if not is_in_touch(row, now_ms, self._online_ms)]
        since = min((row.settled_fact for row in away), default=None)

        def work(connection: Connection) -> tuple[Published, list[Standing]]:
            return published(connection), standings(connection, since)

        rules, cards = await asyncio.wrap_future(self._database.read(work))
        view = await asyncio.to_thread(judge, rules, terminals, away, cards, now_ms)
        calling = [row for row in away if _is_online(row, now_ms, self._online_ms)]
        loading = sum(row.settled_ms is None for row in calling)
        return replace(view, loading=loading, behind=len(calling) - loading)


def is_in_touch(row: Terminal, now_ms: int, online_ms: int) -> bool:
    """Whether a terminal calls, and has what it was given. It says so with the next call: that is as old as
    two of them are apart."""
    if not _is_online(row, now_ms, online_ms) or row.settled_ms is None:
        return False
    return now_ms - row.settled_ms <= 2 * online_ms + SETTLED_LATE_MS


def _is_online(row: Terminal, now_ms: int, online_ms: int) -> bool:
    return now_ms - (row.seen_ms or 0) <= online_ms


def judge(
    rules: Published,
    terminals: Sequence[Terminal],
    away: Sequence[Terminal],
    cards: Sequence[Standing],
    now_ms: int,
) -> ExposureView:
    """The figures, from terminals that are not revoked and those of them that are away. Pure."""
    gone = {row.terminal for row in away}
    present = [row for row in terminals if row.terminal not in gone]
    here = reduce(Rules.joined, (_rules(rules, row) for row in present), rules.newest)
    together = [Group(here, in_touch=True)] if present else []
    strict = [Group(here._replace(lends=False), in_touch=True)] if present else []
    times = [max(0, now_ms - (row.settled_ms or row.paired_ms)) for row in away]
    apart = [Group(_rules(rules, row)) for row in away]
    worst = exposure([*together, *apart], cards)
    timed = [group._replace(offline_ms=ms) for group, ms in zip(apart, times, strict=True)]
    return ExposureView(
        offline=len(away),
        longest_ms=max(times, default=0),
        lends=here.lends,
        fleet_minor=worst.fleet_minor,
        by_now_minor=exposure(timed, cards).fleet_minor,
        in_touch_minor=exposure([Group(here, in_touch=True)] if terminals else [], cards).fleet_minor,
        unlent_minor=exposure([*strict, *apart], cards).fleet_minor,
        per_card_minor=worst.per_card_minor,
        per_new_card_minor=worst.per_new_card_minor,
    )


def _rules(rules: Published, terminal: Terminal) -> Rules:
    """By which it may judge. One that never came has none yet, and is given the newest when it does."""
    return rules.newest if terminal.seen_ms is None else rules.since(version_in(terminal.status))


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
