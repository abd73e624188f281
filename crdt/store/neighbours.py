"""What other processes do to a ledger that several hub processes share: read by cursor, told as changes.

A process learns of its own commits as they happen. Of others' it only hears that there may be some, and then
reads what lies beyond the last position it knows: positions, and the numbers of blocks and history rows,
become visible in their order, so nothing is ever skipped, and a lost call only delays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select

from crdt.cursor import Cursor, beginning
from crdt.facts import CardId, ReplicaId
from crdt.store import flags, projection, unfinished
from crdt.store.authors import Authors
from crdt.store.balances import read_standing
from crdt.store.flags import FlagKey
from crdt.store.hub_schema import CARD, HISTORY
from crdt.store.recording import Change
from crdt.store.schema import HEAD
from crdt.store.sql import beyond
from crdt.store.statement import Statement
from crdt.store.store import Shared
from crdt.store.trouble import Trouble
from crdt.store.unfinished import Stand, Work

PART_ROWS: Final = 10_000  # cards, or history rows, of one look

_MOVED: Final = Statement(select(HEAD.c.replica, HEAD.c.position).where(HEAD.c.position > bindparam("after")))


@dataclass(frozen=True, slots=True)
class Place:
    """How far a process has looked."""

    cards: Cursor
    heads: int  # the position up to which moved heads were seen
    history: int  # the last history row seen
    rides: int  # the last one when rides were compared last because of it
    standing: Mapping[Work, Stand]  # where background work was that was not at its end, and since when
    flags: frozenset[FlagKey]  # those that are on


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found."""

    place: Place
    changes: tuple[Change, ...]
    more: bool  # whether there is more to read at once
    stuck: Collection[Work]  # background work that nobody goes on with


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
    history = projection.last_row(connection)
    return Place(beginning(position), position, history, history, {}, flags.keys(connection))


class Neighbours:
    """Tells what other processes changed in the ledger, and keeps this one's memory right."""

    def __init__(
        self,
        store: Shared,
        place: Place,
        authors: Authors,
        tell: Callable[[Change], None],
        go_on: Callable[[Collection[Work]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tell` hears the changes, on a reader's thread; `go_on` after each look what nobody goes on with.

        `clock`: seconds that only grow.
        """
        self._store = store
        self._place = place
        self._authors = authors
        self._tell = tell
        self._go_on = go_on
        self._clock = clock
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
        put_back = len(self._authors.hubs) > 1
        return _read_beyond(connection, self._place, own, put_back=put_back, now_s=self._clock())

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
        self._go_on(look.stuck)
        return look.more


def _read_beyond(connection: Connection, place: Place, own: Own, *, put_back: bool, now_s: float) -> Look:
    """Everything beyond a place in this snapshot, except the process's `own` changes.

    `put_back`: whether the hub ever was.
    """
    position = read_standing(connection).position
    cursor, cards, more_cards = _changed_cards(connection, place.cards, position, own.positions)
    replicas = _moved_heads(connection, place.heads, own.positions)
    last, remembered, more_history = _new_history(connection, place.history)
    on = flags.keys(connection)
    suspects = {replica for replica, _ in (on ^ place.flags) - own.flags}
    left = unfinished.places(connection)
    if put_back and last != place.rides:
        left[Work.RIDES] = last
    standing = unfinished.stands(place.standing, left, now_s)
    stuck = unfinished.stuck(standing, now_s)
    changes = []
    if cards or replicas:
        changes.append(Change(position, cards, replicas))
    if suspects:
        changes.append(Change(0, (), suspects=suspects))
    if remembered:
        changes.append(Change(0, remembered, history=True))
    rides = last if Work.RIDES in stuck else place.rides
    seen = Place(cursor, position, last, rides, standing, on)
    return Look(seen, tuple(changes), more=more_cards or more_history, stuck=stuck)


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
