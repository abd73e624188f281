"""Exposure: the most that cards can come to owe because terminals judge without hearing of each other.

A **group** is a terminal, or several that hear each other, which the hub has not heard of for a while. It
judges a card by what it believes of it: the settled balance it has, less its own taps. Where the policy
lends one ride, it lets a card in for as long as it believes the balance is not below zero, otherwise while
it pays the fare. With F the dearest fare, b the card's balance now and v what groups at most believe (an
earlier, higher balance; or the opening balance, in a group that has not heard of the card yet), group g
lets the card ride for at most

    spend(g) = min( max(v, 0) + F if one ride is lent, else max(v, 0);  0 where v < 0;
                    F × (time offline // passback window + 1) )

since within the passback window it takes no second ride. When all come together, the card owes at most

    loss(card) = max(0, spend(1) + … + spend(G) − max(b, 0))

more than it does now. So with no time to speak of it is G × F less the balance, and in the long run (G − 1)
× b + G × F. The fleet's is the sum over its cards. A card that nobody has met gets the opening balance from
each group, and keeps it once (invariant 11): its loss is the same with b = v = the opening balance, in
groups whose opening balance pays a fare.

Money only: nobody's clock is asked but how long a group was away, by its own. What a clock that jumps adds
is one ride for each window that it jumps over.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from crdt.fleet import REGISTER, FleetSettings


class Group(NamedTuple):
    """Terminals that hear each other and have not been heard of by the hub."""

    offline_ms: int  # how long they have judged, and will, without hearing of the others


class Standing(NamedTuple):
    """Cards that stand alike."""

    balance_minor: int  # now, of everything that the hub holds
    believed_minor: int  # the most that any group may believe before it has let the card ride
    cards: int = 1


@dataclass(frozen=True, slots=True)
class Exposure:
    """What cards can come to owe at most, beyond what they owe now. Minor units."""

    groups: int
    per_card_minor: int  # of the cards given, the one with the most
    per_new_card_minor: int  # of a card that nobody has met; 0 where the policy refuses those
    fleet_minor: int  # of all cards given together; cards that nobody has met come on top


def exposure(policy: FleetSettings, groups: Iterable[Group], cards: Iterable[Standing]) -> Exposure:
    """The bound for these groups and cards, see above."""
    fares = (policy.flat_fare_minor, *policy.route_fares.values())
    spending = _Spending(policy, max(fares), [group.offline_ms for group in groups])
    most = total = 0
    for card in cards:
        loss_minor = spending.loss(card.balance_minor, card.believed_minor)
        total += loss_minor * card.cards
        most = max(most, loss_minor)
    opening_minor = policy.opening_balance_minor
    taken_on = policy.unknown_card == REGISTER and opening_minor >= min(fares)
    new_minor = spending.loss(opening_minor, opening_minor) if taken_on else 0
    return Exposure(spending.groups, most, new_minor, total)


class _Spending:
    """What all groups together let a card ride for, by what they believe of it."""

    def __init__(self, policy: FleetSettings, fare_minor: int, offline_ms: Sequence[int]) -> None:
        self.groups = len(offline_ms)
        self._lent_minor = fare_minor if policy.negative_ride else 0
        window_ms = policy.passback_window_s * 1000
        # The groups whose time is the limit, by what they have time for: min(x, cap) summed over all caps is
        # the caps below x, and x for each of the others.
        self._caps = sorted(fare_minor * (max(0, ms) // window_ms + 1) for ms in offline_ms if window_ms)
        self._sums = [0, *accumulate(self._caps)]

    def loss(self, balance_minor: int, believed_minor: int) -> int:
        """How much more one card can owe."""
        if believed_minor < 0:
            return 0
        each_minor = believed_minor + self._lent_minor
        below = bisect_right(self._caps, each_minor)
        spent_minor = self._sums[below] + each_minor * (self.groups - below)
        return max(0, spent_minor - max(balance_minor, 0))
