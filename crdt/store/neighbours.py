"""What other processes do to a ledger that several hub processes share: read by cursor, told as changes.

A process learns of its own commits as they happen. Of others' it only hears that there may be some, and then
reads what lies beyond the last position it knows: positions, and the numbers of blocks and history rows,
become visible in their order, so nothing is ever skipped, and a lost call only delays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, func, select

from crdt.cursor import Cursor, beginning
from crdt.facts import CardId, ReplicaId
from crdt.store import cutting, flags
from crdt.store.authors import Authors
from crdt.store.balances import read_standing
from crdt.store.flags import FlagKey
from crdt.store.hub_schema import CARD, HISTORY, HUB
from crdt.store.recording import Change
from crdt.store.schema import BLOCK, HEAD
from crdt.store.sql import beyond
from crdt.store.statement import Statement
from crdt.store.store import Shared
from crdt.store.trouble import Trouble

PART_ROWS: Final = 10_000  # cards, or history rows, of one look

_END: Final = Statement(select(func.coalesce(func.max(HISTORY.c.id), 0)))
_PROJECTED: Final = Statement(select(HUB.c.projected))
_MOVED: Final = Statement(select(HEAD.c.replica, HEAD.c.position).where(HEAD.c.position > bindparam("after")))


@dataclass(frozen=True, slots=True)
class Place:
    """How far a process has looked."""

    cards: Cursor
    heads: int  # the position up to which moved heads were seen
    history: int  # the last history row seen
    projected: int  # how far the history had come
    lagging: bool  # whether blocks lay beyond that, or a cut was unfinished
    flags: frozenset[FlagKey]  # those that are on


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found."""

    place: Place
    changes: tuple[Change, ...]
    more: bool  # whether there is more to read at once
    stuck: bool  # whether the history did not change since the last look although there are blocks to do so


@dataclass(frozen=True, slots=True)
class Own:
    """What this process changed and told itself."""

    positions: frozenset[int] = frozenset()
    flags: frozenset[FlagKey] = frozenset()

    def and_also(self, change: Change) -> Own:
        """With this change."""
        positions = {change.position} if change.position else set()
        return Own(self.positions | positions, self.flags.union(change.flags))

    def since(self, position: int) -> Own:
        """Without what lies before a position."""
        return Own(frozenset(own for own in self.positions if own >= position), self.flags)


def place_of(connection: Connection) -> Place:
    """The end of everything: nothing before it is told."""
    position = read_standing(connection).position
    history = int(_END.value(connection))
    projected, on = _projected(connection), flags.keys(connection)
    return Place(beginning(position), position, history, projected, lagging=False, flags=on)


class Neighbours:
    """Tells what other processes changed in the ledger, and keeps this one's memory right."""

    def __init__(
        self,
        store: Shared,
        place: Place,
        authors: Authors,
        tell: Callable[[Change], None],
        follow: Callable[[], None],
    ) -> None:
        """`tell` hears the changes, on a reader's thread; `follow` makes the history catch up, and finishes a
        cut."""
        self._store = store
        self._place = place
        self._authors = authors
        self._tell = tell
        self._follow = follow
        self._mutex = threading.Lock()
        self._own = Own()
        self._looking = False
        self._again = False
        self._trouble = Trouble(
            store,
            "What other processes of the hub change is not shown live; balances are right, and it is tried "
            "again every moment.",
        )

    def own(self, change: Change) -> None:
        """This process made this change, and tells it itself."""
        with self._mutex:
            self._own = self._own.and_also(change)

    def look(self) -> None:
        """Read what is new and tell it; in the background, one look at a time."""
        with self._mutex:
            self._again = self._looking
            if self._looking:
                return
            self._looking = True
        self._store.read(self._read).add_done_callback(self._done)

    def _read(self, connection: Connection) -> Look:
        with self._mutex:
            before = self._own
        self._authors.learn_new(connection)  # the snapshot is of now, or earlier
        self._store.wait_told()
        with self._mutex:
            own = self._own
            self._own = Own(own.positions, own.flags - before.flags)
        return _read_beyond(connection, self._place, own)

    def _done(self, done: Future[Look]) -> None:
        more = False
        if self._trouble.judge(done):
            more = self._found(done.result())
        with self._mutex:
            self._looking = False
            more = (more or self._again) and not self._store.closed
        if more:
            self.look()

    def _found(self, look: Look) -> bool:
        self._place = look.place
        with self._mutex:
            self._own = self._own.since(look.place.cards.position)
        for change in look.changes:
            self._tell(change)
        if look.stuck:
            self._follow()
        return look.more


def _read_beyond(connection: Connection, place: Place, own: Own) -> Look:
    """Everything beyond a place in this snapshot, except the process's `own` changes."""
    position = read_standing(connection).position
    cursor, cards, more_cards = _changed_cards(connection, place.cards, position, own.positions)
    replicas = _moved_heads(connection, place.heads, own.positions)
    last, remembered, more_history = _new_history(connection, place.history)
    projected = _projected(connection)
    on = flags.keys(connection)
    suspects = {replica for replica, _ in (on ^ place.flags) - own.flags}
    last_block = connection.execute(select(func.max(BLOCK.c.ordinal))).scalar_one()
    lagging = last_block not in (None, projected) or cutting.is_unfinished(connection)
    changes = []
    if cards or replicas:
        changes.append(Change(position, cards, replicas))
    if suspects:
        changes.append(Change(0, (), suspects=suspects))
    if remembered:
        changes.append(Change(0, remembered, history=True))
    return Look(
        Place(cursor, position, last, projected, lagging, on),
        tuple(changes),
        more=more_cards or more_history,
        stuck=lagging and place.lagging and projected == place.projected,
    )


def _changed_cards(
    connection: Connection, after: Cursor, position: int, own: frozenset[int]
) -> tuple[Cursor, list[CardId], bool]:
    """How far this look comes, the cards that others changed, and whether there are more."""
    place = (CARD.c.position, CARD.c.card)
    query = (
        select(*place).where(beyond(connection.dialect, place, after[:2])).order_by(*place).limit(PART_ROWS)
    )
    rows = connection.execute(query).all()
    cards = [CardId(card) for at, card in rows if at not in own]
    if len(rows) == PART_ROWS:
        return Cursor(*rows[-1]), cards, True
    return max(after, beginning(position)), cards, False


def _moved_heads(connection: Connection, after: int, own: frozenset[int]) -> list[ReplicaId]:
    moved = _MOVED.rows(connection, after=after)
    return [ReplicaId(replica) for replica, at in moved if at not in own]


def _new_history(connection: Connection, after: int) -> tuple[int, list[CardId], bool]:
    query = select(HISTORY.c.id, HISTORY.c.card).where(HISTORY.c.id > after).order_by(HISTORY.c.id)
    rows = connection.execute(query.limit(PART_ROWS)).all()
    last = rows[-1][0] if rows else after
    return last, list(dict.fromkeys(CardId(card) for _, card in rows)), len(rows) == PART_ROWS


def _projected(connection: Connection) -> int:
    return int(_PROJECTED.value(connection))
