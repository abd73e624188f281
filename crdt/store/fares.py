"""Fares, for the passback rule: who paid when, in blocks and at the end of the record."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from sqlalchemy import Connection

from crdt.columns import Columns
from crdt.facts import CardId, Delta, Kind
from crdt.store.blocks import facts_of, newest_first
from crdt.store.held import RECENT_FARES
from crdt.store.statement import Statement

Fare = tuple[CardId, int]  # a card, and when it paid, in ms


def fares_of(columns: Columns) -> list[Fare]:
    """The fares of a block: cards and times."""
    paid = [kind is Kind.FARE for kind, _ in columns.money]
    if not any(paid):
        return []
    rows = zip(columns.cards.values(), columns.times.values(), columns.index, strict=True)
    return [(card, at_ms) for card, at_ms, entry in rows if paid[entry]]


def nearest(times_ms: Iterable[int | None], at_ms: int | None) -> int:
    """Of the times when a card paid, by several clocks, the one nearest to `at_ms`; None: the latest.

    The nearest, because each is by the clock of whoever took the fare: one that is far ahead must not hide a
    fare that was taken here a moment ago. Doors of a bus whose clocks differ by more than the passback window
    do not see each other's taps as too soon.
    """
    known = [time for time in times_ms if time is not None]
    return max(known) if at_ms is None else min(known, key=lambda time: abs(at_ms - time))


def recent_facts(connection: Connection, whose: Statement) -> list[Delta]:
    """The last sealed deltas of some authors, oldest first, with RECENT_FARES fares if there are as many."""
    found: list[Delta] = []
    fares = 0
    with closing(newest_first(connection, whose)) as blocks:
        for block in blocks:
            deltas = facts_of(block).deltas(block.header.replica, block.header.first_seq)
            found += reversed(deltas)
            fares += sum(delta.kind is Kind.FARE for delta in deltas)
            if fares >= RECENT_FARES:
                break
    return found[::-1]
