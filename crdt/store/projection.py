"""The history of cards as rows, for people: made from the record after the merge, and any time again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Select, func, select

from crdt.block import parse
from crdt.facts import CardId, Delta
from crdt.store.blocks import delta_of, fact_row, facts_of
from crdt.store.chore import Chore
from crdt.store.schema import BLOCK, HISTORY, HUB
from crdt.store.sql import Bulk
from crdt.store.store import Store

STEP_BLOCKS: Final = 4  # blocks of one background transaction, about 1,000 rows
_COLUMNS: Final = tuple(column.name for column in HISTORY.columns if column.name != "id")
_INSERT: Final = Bulk(HISTORY, _COLUMNS)


class Step(NamedTuple):
    """What a step of the projection did."""

    cards: frozenset[CardId]  # whose history grew
    more: bool  # whether there may be more to do


class Projection:
    """Follows the record, in the background, a few blocks at a time."""

    def __init__(self, database: Store, projected: Callable[[frozenset[CardId]], None]) -> None:
        """`projected` hears, on the writer's thread, whose history grew."""
        self._database = database
        self._projected = projected
        self._chore = Chore(
            database,
            project_some,
            self._after,
            "The history of cards stopped growing; balances are right, and the next merge tries again.",
        )
        self.follow()

    def follow(self) -> None:
        """Catch up with the record, in the background."""
        self._chore.begin()

    def rebuild(self) -> Future[None]:
        """Forget all rows and make them again from the record."""
        return self._database.write(_forget, after=lambda _result: self.follow())

    def _after(self, step: Step) -> None:
        if step.cards:
            self._projected(step.cards)


def project_some(connection: Connection) -> Step:
    """Project the next STEP_BLOCKS blocks."""
    after = connection.execute(select(HUB.c.projected)).scalar_one()
    query = select(BLOCK.c.ordinal, BLOCK.c.raw).where(BLOCK.c.ordinal > after).order_by(BLOCK.c.ordinal)
    found = connection.execute(query.limit(STEP_BLOCKS)).all()
    if not found:
        return Step(frozenset(), more=False)
    deltas: list[Delta] = []
    for _, raw in found:
        block = parse(raw)
        deltas += facts_of(block).deltas(block.header.replica, block.header.first_seq)
    rows = [(delta.replica, delta.seq, *fact_row(delta)) for delta in deltas]
    _INSERT.run(connection, rows)
    connection.execute(HUB.update().values(projected=found[-1].ordinal))
    return Step(frozenset(delta.card for delta in deltas), more=len(found) == STEP_BLOCKS)


def lag(connection: Connection) -> int:
    """How many blocks of the record are not in the history yet."""
    projected = select(HUB.c.projected).scalar_subquery()
    return int(connection.execute(select(func.count()).where(BLOCK.c.ordinal > projected)).scalar_one())


def latest_facts(connection: Connection, limit: int) -> list[Delta]:
    """The facts of all cards in the order the hub learnt them, newest first."""
    return _facts(connection, _query().order_by(HISTORY.c.id.desc()).limit(limit))


def facts_about(connection: Connection, card: CardId, limit: int) -> list[Delta]:
    """A card's facts in the order the hub learnt them, newest first."""
    query = _query().where(HISTORY.c.card == card).order_by(HISTORY.c.id.desc())
    return _facts(connection, query.limit(limit))


def _query() -> Select[Any]:
    return select(*(HISTORY.c[name] for name in _COLUMNS))


def _facts(connection: Connection, query: Select[Any]) -> list[Delta]:
    return [delta_of(row[0], row[1], tuple(row[2:])) for row in connection.execute(query)]


def _forget(connection: Connection) -> None:
    connection.execute(HISTORY.delete())
    connection.execute(HUB.update().values(projected=0))
