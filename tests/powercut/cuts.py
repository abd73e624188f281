"""Which crash images one moment has: what of the doubtful reaches the disk, systematically and by chance."""

from collections.abc import Iterator
from random import Random
from typing import Final

from tests.powercut.disk import Change, Disk, Doubt, Entries, Kept, touched

_PROBABILITIES: Final = (0.1, 0.5, 0.9)  # that a piece reaches the disk


def cuts(disk: Disk, chance: Random, most: int) -> Iterator[Kept]:
    """At most `most` selections of what reached the disk; one where nothing is in doubt.

    First those that every ordering of writes allows: all, none, each prefix (the longest first), the last
    write torn. Then by chance: any subset, and any subset of sectors, which covers every reordering.
    """
    doubts = disk.doubts
    if not doubts:
        yield {}
        return
    made = 0
    for kept in _systematic(doubts):
        if made >= (most + 1) // 2:
            break
        made += 1
        yield kept
    while made < most:
        made += 1
        yield _by_chance(doubts, chance)


def _systematic(doubts: list[Doubt]) -> Iterator[Kept]:
    yield dict.fromkeys(doubts)
    yield {}
    last = doubts[-1]
    if isinstance(last, Change) and last.sectors > 1:
        for kept in (range(last.sectors // 2), range(last.sectors // 2, last.sectors)):
            yield {**dict.fromkeys(doubts[:-1], None), last: frozenset(kept)}
    for end in range(len(doubts) - 1, 0, -1):
        yield dict.fromkeys(doubts[:end])


def _by_chance(doubts: list[Doubt], chance: Random) -> Kept:
    probability = chance.choice(_PROBABILITIES)
    torn = chance.random() < 0.5
    kept: dict[Doubt, frozenset[int] | None] = {}
    stuck: set[str] = set()  # names of which a change is missing: their later ones are too
    for doubt in doubts:
        if isinstance(doubt, Entries):
            if chance.random() < probability and stuck.isdisjoint(touched(doubt)):
                kept[doubt] = None
            else:
                stuck.update(touched(doubt))
        elif torn and doubt.sectors > 1:
            kept[doubt] = frozenset(n for n in range(doubt.sectors) if chance.random() < probability)
        elif chance.random() < probability:
            kept[doubt] = None
    return kept
