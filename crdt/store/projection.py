"""The history of cards as rows, for people: made from the record after the merge, each block once.

How far it has come is written with the rows, so that whoever goes on makes none twice. A row's id stands for
the moment at which the hub learnt of it, so rows are never made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select, tuple_

from crdt.block import Block, parse
from crdt.facts import CardId, Delta
from crdt.store import days, said_again
from crdt.store.blocks import Removed, delta_of, fact_row, facts_of
from crdt.store.chore import Chore
from crdt.store.content import Content
from crdt.store.hub_schema import CARD, HISTORY, HUB, IS_OPENING
from crdt.store.schema import BLOCK
from crdt.store.sql import Bulk
from crdt.store.statement import Statement
from crdt.store.store import Store

_CHUNK: Final = 250
STEP_BLOCKS: Final = 4  # blocks of one background transaction, about 1,000 rows
CATCH_UP_STEPS: Final = 4  # in one transaction that also does something else
_COLUMNS: Final = tuple(column.name for column in HISTORY.columns if column.name != "id")
_INSERT: Final = Bulk(HISTORY, _COLUMNS)
CONTENT: Final = tuple(column for column in HISTORY.columns if column.name not in ("id", "replica", "seq"))
_STANDS: Final = Statement(select(HUB.c.projected))
_STAND: Final = Statement(HUB.update().values(projected=bindparam("last")))
_NEXT: Final = Statement(
    select(BLOCK.c.ordinal, BLOCK.c.raw)
    .where(BLOCK.c.ordinal > bindparam("after"))
    .order_by(BLOCK.c.ordinal)
    .limit(STEP_BLOCKS)
)
_ROW_ID: Final = Statement(
    select(HISTORY.c.id)
    .where(
        HISTORY.c.card == bindparam("card"),
        HISTORY.c.at_ms == bindparam("at_ms"),
        HISTORY.c.replica == bindparam("replica"),
        HISTORY.c.seq == bindparam("seq"),
    )
    .order_by(HISTORY.c.id.desc())  # what leaves came last, so it is found at once
    .limit(1)
)
_LAST_ROW: Final = Statement(select(func.coalesce(func.max(HISTORY.c.id), 0)))
_FORGET: Final = Statement(
    HISTORY.delete().where(
        HISTORY.c.id.between(bindparam("first"), bindparam("last")),
        HISTORY.c.replica == bindparam("replica"),
    )
)
_LAST: Final = select(func.coalesce(func.max(BLOCK.c.ordinal), 0)).scalar_subquery()
_HAS_ALL: Final = Statement(select(HUB.c.projected >= _LAST))
_END_HERE: Final = Statement(HUB.update().values(projected=_LAST))  # ordinals come again


class Step(NamedTuple):
    """What a step of the projection did."""

    cards: frozenset[CardId]  # whose history grew
    more: bool  # whether there may be more to do
    repeats: bool = False  # whether rides may be there more than once, and nobody has looked yet


class Projection:
    """Follows the record, in the background, a few blocks at a time."""

    def __init__(
        self,
        database: Store,
        projected: Callable[[frozenset[CardId]], None],
        repeated: Callable[[], None],
        now_ms: Callable[[], int],
    ) -> None:
        """`projected` hears, on the writer's thread, whose history grew. `now_ms`: the hub's clock.

        `repeated`: likewise, that rides may be there more than once, and nobody has looked.
        """
        self._database = database
        self._repeated = repeated
        self._projected = projected
        self._chore = Chore(
            database,
            lambda connection: project_some(connection, now_ms()),
            self._after,
            "The history of cards stopped growing; balances are right, and the next merge tries again.",
        )
        self.follow()

    def follow(self) -> None:
        """Catch up with the record, in the background."""
        self._chore.begin()

    def resume(self, *, wanted: bool) -> None:
        """See `Chore.resume`."""
        self._chore.resume(wanted=wanted)

    def end(self) -> None:
        """See `Chore.end`."""
        self._chore.end()

    def _after(self, step: Step) -> None:
        if step.cards:
            self._projected(step.cards)
        if step.repeats:
            self._repeated()


def project_some(connection: Connection, at_ms: int) -> Step:
    """Project the next STEP_BLOCKS blocks. `at_ms`: when what is learnt of closed days is learnt."""
    found = _NEXT.rows(connection, after=_STANDS.value(connection))
    if not found:
        return Step(frozenset(), more=False, repeats=said_again.are_noted(connection))
    last = last_row(connection)
    deltas = [delta for _, raw in found for delta in _deltas(parse(raw))]
    days.add(connection, deltas)
    days.adjust(connection, deltas, at_ms)
    rows = [(delta.replica, delta.seq, *fact_row(delta)) for delta in deltas]
    _INSERT.run(connection, rows)
    said_again.note_came(connection, last)
    _STAND.run(connection, last=found[-1][0])
    more = len(found) == STEP_BLOCKS
    repeats = not more and said_again.are_noted(connection)
    return Step(frozenset(delta.card for delta in deltas), more, repeats)


def catch_up(connection: Connection, at_ms: int) -> None:
    """Project everything that is not yet, in this transaction."""
    while project_some(connection, at_ms).more:
        pass


def catch_up_some(connection: Connection, at_ms: int) -> bool:
    """Project so much that nobody waits long; whether the history may still be behind after that.

    It is far behind when a month of taps came at once.
    """
    return all(project_some(connection, at_ms).more for _ in range(CATCH_UP_STEPS))


def about(moments: Iterable[tuple[CardId, int]]) -> Iterator[ColumnElement[bool]]:
    """Conditions for rows of the history: that they are of one of these cards and times.

    Each finds its rows by the index, however much else there is about a card.
    """
    each = sorted(set(moments))
    for at in range(0, len(each), _CHUNK):
        yield tuple_(HISTORY.c.card, HISTORY.c.at_ms).in_(each[at : at + _CHUNK])


def saying(contents: Collection[Content]) -> Iterator[ColumnElement[bool]]:
    """Conditions for rows of the history: that they say one of these, whoever wrote them.

    Their moments are asked for too: an index finds those.
    """
    each = sorted(contents, key=lambda content: (content.card, content.at_ms))
    for at in range(0, len(each), _CHUNK):
        some = each[at : at + _CHUNK]
        for moments in about((content.card, content.at_ms) for content in some):
            yield moments & tuple_(*CONTENT).in_([content.row for content in some])


def forget(connection: Connection, removed: Sequence[Removed], at_ms: int) -> None:
    """Take the facts of blocks that left the record out of the history, which has caught up.

    Those of a block came into it together, so all between its first and its last row are of it.
    """
    facts = [one.deltas() for one in removed]
    days.take_back(connection, [delta for deltas in facts for delta in deltas], at_ms)
    for deltas in facts:
        first, last = (_row_id(connection, delta) for delta in (deltas[0], deltas[-1]))
        said_again.note_leaving(connection, deltas[0].replica, first, last)
        _FORGET.run(connection, replica=deltas[0].replica, first=first, last=last)
    _END_HERE.run(connection)


def remaining_openings(connection: Connection, cards: Collection[CardId]) -> dict[CardId, int]:
    """The largest opening of each of these cards that has any, by the history."""
    found: dict[CardId, int] = {}
    here = select(HISTORY.c.amount_minor).where(HISTORY.c.card == CARD.c.card, IS_OPENING)
    largest = here.order_by(HISTORY.c.amount_minor.desc()).limit(1).scalar_subquery()
    for part in _parts(cards):
        query = select(CARD.c.card, largest).where(CARD.c.card.in_(part))
        found |= {CardId(card): minor for card, minor in connection.execute(query) if minor is not None}
    return found


def still_mentioned(connection: Connection, cards: Collection[CardId]) -> set[CardId]:
    """Those of these cards that the history has any fact of."""
    found: set[CardId] = set()
    # One is enough, and there may be many: no database reads more for this.
    any_fact = select(HISTORY.c.id).where(HISTORY.c.card == CARD.c.card).limit(1).scalar_subquery()
    for part in _parts(cards):
        query = select(CARD.c.card, any_fact).where(CARD.c.card.in_(part))
        found |= {CardId(card) for card, fact in connection.execute(query) if fact is not None}
    return found


def last_row(connection: Connection) -> int:
    """The id of the history's last row; 0: it has none."""
    return int(_LAST_ROW.value(connection))


def lag(connection: Connection) -> int:
    """How many blocks of the record are not in the history yet."""
    projected = select(HUB.c.projected).scalar_subquery()
    return int(connection.execute(select(func.count()).where(BLOCK.c.ordinal > projected)).scalar_one())


def has_all(connection: Connection) -> bool:
    """Whether every block of the record is in the history."""
    return bool(_HAS_ALL.value(connection))


def latest_facts(connection: Connection, limit: int) -> list[Delta]:
    """The facts of all cards in the order the hub learnt them, newest first."""
    return _facts(connection, _query().order_by(HISTORY.c.id.desc()).limit(limit))


def facts_about(connection: Connection, card: CardId, limit: int) -> list[Delta]:
    """A card's facts in the order the hub learnt them, newest first."""
    newest = select(HISTORY.c.id).where(HISTORY.c.card == card).order_by(HISTORY.c.id.desc())
    found = newest.limit(limit).subquery()  # by the index alone: only these rows are read
    return _facts(connection, _query().join(found, found.c.id == HISTORY.c.id).order_by(HISTORY.c.id.desc()))


def _row_id(connection: Connection, fact: Delta) -> Any:
    return _ROW_ID.value(connection, card=fact.card, at_ms=fact.at_ms, replica=fact.replica, seq=fact.seq)


def _deltas(block: Block) -> Sequence[Delta]:
    return facts_of(block).deltas(block.header.replica, block.header.first_seq)


def _parts(cards: Collection[CardId]) -> Iterator[list[CardId]]:
    """Few enough at a time for one statement."""
    every = sorted(cards)
    return (every[at : at + _CHUNK] for at in range(0, len(every), _CHUNK))


def _query() -> Select[Any]:
    return select(*(HISTORY.c[name] for name in _COLUMNS))


def _facts(connection: Connection, query: Select[Any]) -> list[Delta]:
    return [delta_of(row[0], row[1], tuple(row[2:])) for row in connection.execute(query)]
