"""Exposure: the most that cards can come to owe because terminals judge without hearing of each other.

A **group** is a terminal, or several that hear each other, and it judges a card by what it believes of it and
by the rules that it has. What it believes is the settled balance it has, less its own taps. Where its rules
lend one ride, it lets a card in for as long as it believes the balance is not below zero, otherwise while it
pays the fare. With F the dearest fare, b the card's balance now and v what the group at most believes (b if
it hears of everything; an earlier, higher balance; or the opening balance, in a group that has not heard of
the card yet), group g lets the card ride for at most

    spend(g) = min( max(v, 0) + F if one ride is lent, else max(v, 0);  0 where v < 0;
                    F × (time offline // passback window + 1) )

since within the passback window it takes no second ride. The time limits nothing where nobody knows when the
group will hear of the others. When all come together, the card owes at most

    loss(card) = max(0, spend(1) + … + spend(G) − max(b, 0))

more than it does now. So with no time to speak of it is G × F less the balance, and in the long run (G − 1)
× b + G × F. The fleet's is the sum over its cards. A card that nobody has met gets the opening balance from
each group, and keeps one (invariant 11): its loss is the same with b = v = the opening balance, in groups
whose opening balance pays a fare.

Money only: nobody's clock is asked but how long a group was away, by its own. What a clock that jumps adds
is one ride for each window that it jumps over.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Self

from crdt.fleet import REGISTER, FleetSettings

NOTHING_GIVEN = -1
"""In place of an opening balance: none that lets a card ride."""


class Rules(NamedTuple):
    """What of the fleet's settings decides how much a card is let ride for. Minor units."""

    fare_minor: int  # the dearest
    lends: bool  # one ride into the negative
    opening_minor: int  # what a card gets that is new to a terminal; NOTHING_GIVEN: nothing to ride on
    window_ms: int  # the passback window

    @classmethod
    def of(cls, settings: FleetSettings) -> Self:
        """Those of these settings."""
        fares = (settings.flat_fare_minor, *settings.route_fares.values())
        taken_on = settings.unknown_card == REGISTER and settings.opening_balance_minor >= min(fares)
        opening_minor = settings.opening_balance_minor if taken_on else NOTHING_GIVEN
        window_ms = settings.passback_window_s * 1000
        return cls(max(fares), settings.negative_ride, opening_minor, window_ms)

    def joined(self, other: Self) -> Self:
        """Of each the more generous: whoever judges by either lets no card ride for more."""
        return type(self)(
            max(self.fare_minor, other.fare_minor),
            self.lends or other.lends,
            max(self.opening_minor, other.opening_minor),
            min(self.window_ms, other.window_ms),
        )


class Group(NamedTuple):
    """Terminals that hear each other."""

    rules: Rules
    offline_ms: int | None = None  # how long they judge without hearing of the others; None: nobody knows
    in_touch: bool = False  # whether they hear of everything that the hub holds, and believe that


class Standing(NamedTuple):
    """Cards that stand alike."""

    balance_minor: int  # now, of everything that the hub holds
    believed_minor: int  # the most that a group which is not in touch may believe, before it lets them ride
    cards: int = 1


@dataclass(frozen=True, slots=True)
class Exposure:
    """What cards can come to owe at most, beyond what they owe now. Minor units."""

    groups: int
    per_card_minor: int  # of the cards given, the one with the most
    per_new_card_minor: int  # of a card that nobody has met; 0 where the rules refuse those
    fleet_minor: int  # of all cards given together; cards that nobody has met come on top


def exposure(groups: Iterable[Group], cards: Iterable[Standing]) -> Exposure:
    """The bound for these groups and cards, see above."""
    every = list(groups)
    kinds = _kinds(every)
    most = total = 0
    for card in cards:
        spent_minor = sum(kind.spend(kind.believed(card)) for kind in kinds)
        loss_minor = max(0, spent_minor - max(card.balance_minor, 0))
        total += loss_minor * card.cards
        most = max(most, loss_minor)
    return Exposure(len(every), most, _new_card(kinds), total)


class _Kind:
    """Groups that let a card ride for as much, but for the time they have."""

    def __init__(self, rules: Rules, in_touch: bool, offline_ms: Sequence[int | None]) -> None:
        self.opening_minor = rules.opening_minor
        self._in_touch = in_touch
        self._lent_minor = rules.fare_minor if rules.lends else 0
        self._groups = len(offline_ms)
        # The groups whose time is the limit, by what they have time for: min(x, cap) summed over all caps is
        # the caps below x, and x for each of the others.
        times = [ms for ms in offline_ms if ms is not None and rules.window_ms]
        self._caps = sorted(rules.fare_minor * (max(0, ms) // rules.window_ms + 1) for ms in times)
        self._sums = [0, *accumulate(self._caps)]

    def believed(self, card: Standing) -> int:
        """The most that one of them believes of a card; below zero: it lets it ride for nothing."""
        return card.balance_minor if self._in_touch else max(card.believed_minor, self.opening_minor)

    def spend(self, believed_minor: int) -> int:
        """What all of them together let a card ride for of which they believe this."""
        if believed_minor < 0:
            return 0
        each_minor = believed_minor + self._lent_minor
        below = bisect_right(self._caps, each_minor)
        return self._sums[below] + each_minor * (self._groups - below)


def _kinds(groups: Iterable[Group]) -> list[_Kind]:
    alike: dict[tuple[Rules, bool], list[int | None]] = {}
    for group in groups:
        alike.setdefault((group.rules, group.in_touch), []).append(group.offline_ms)
    return [_Kind(rules, in_touch, times) for (rules, in_touch), times in alike.items()]


def _new_card(kinds: Sequence[_Kind]) -> int:
    """What a card that nobody has met can owe: each gives it an opening, and the largest of them stays."""
    giving = [kind for kind in kinds if kind.opening_minor != NOTHING_GIVEN]
    spent_minor = sum(kind.spend(kind.opening_minor) for kind in giving)
    return max(0, spent_minor - min((kind.opening_minor for kind in giving), default=0))
