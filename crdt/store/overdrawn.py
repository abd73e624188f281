"""Cards that owe more than the fleet's rules let them: refused everywhere until they are paid.

A merge judges the cards it changes. When the rule itself changes, all cards are judged again in the
background, some at a time, each part a change with a position of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from crdt.errors import MisuseError
from crdt.settlement import OVERDRAWN
from crdt.store import balances
from crdt.store.hub_schema import CARD, HUB
from crdt.store.recording import Change

STEP_CARDS: Final = 2_000  # of one background transaction


@dataclass(frozen=True, slots=True)
class Judged:
    """What a step of judging did."""

    change: Change | None  # None: every card was right
    more: bool


def set_floor(connection: Connection, floor_minor: int) -> bool:
    """From now on a balance below this, at most 0, is overdrawn; False when it was so."""
    if not balances.NO_FLOOR <= floor_minor <= 0:
        raise MisuseError("the lowest balance allowed is zero or less, in minor units")
    if balances.read_standing(connection).floor_minor == floor_minor:
        return False
    connection.execute(HUB.update().values(floor_minor=floor_minor, judge_after=b""))
    return True


def judge_some(connection: Connection) -> Judged:
    """Judge the next STEP_CARDS cards that are to be judged again."""
    floor_minor, after = connection.execute(select(HUB.c.floor_minor, HUB.c.judge_after)).one()
    if after is None:
        return Judged(None, more=False)
    columns = (CARD.c.card, CARD.c.sum_minor, CARD.c.opening_minor, CARD.c.flags, CARD.c.number)
    query = select(*columns).where(CARD.c.card > after).order_by(CARD.c.card).limit(STEP_CARDS)
    rows = connection.execute(query).all()
    wrong = []
    for row in rows:
        flags = balances.judged(row.flags, row.sum_minor + row.opening_minor, floor_minor)
        if flags != row.flags:
            wrong.append((row.card, row.sum_minor, row.opening_minor, flags, row.number))
    change = None
    if wrong:
        position = balances.next_position(connection)
        balances.put_cards(connection, [(*row[:4], position, row[4]) for row in wrong])
        change = Change(position, [row[0] for row in wrong])
    more = len(rows) == STEP_CARDS
    connection.execute(HUB.update().values(judge_after=rows[-1].card if more else None))
    return Judged(change, more)


def count(connection: Connection) -> int:
    """How many cards are overdrawn now."""
    query = select(func.count()).select_from(CARD).where(CARD.c.flags.bitwise_and(OVERDRAWN) != 0)
    return int(connection.execute(query).scalar_one())
