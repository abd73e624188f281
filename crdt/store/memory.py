"""What a terminal keeps in memory of its database, so that a tap reads one row and writes one.

It changes only after a commit, and is made again from the database when that is opened.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing

from sqlalchemy import Connection, select

from crdt.facts import CardId, Delta, Kind, ReplicaId
from crdt.frontier import Head
from crdt.store.blocks import NO_HEAD, SegmentRow, facts_of, heads_of, newest_first
from crdt.store.held import RECENT_FARES, Held, RecentFares, held_beyond
from crdt.store.schema import OPEN_DELTA
from crdt.store.settled import Standing, read_standing, settled_heads


class Memory:
    """The state of one terminal. Writers hold the database's gate; `mutex` lets others look in between."""

    def __init__(
        self,
        head: Head,
        segment: Sequence[SegmentRow],
        standing: Standing,
        held: Held,
        recent: Sequence[Delta],
    ) -> None:
        self.mutex = threading.Lock()
        self.head = head  # of the sealed chain
        self.segment = list(segment)  # what is not sealed yet
        self.standing = standing
        self.held = held
        self.fares = RecentFares()
        self.last_at_ms: int | None = None  # the time of the last delta written here, by whichever identity
        for delta in recent:
            self._met(delta.card, delta.kind, delta.at_ms)
        for _seq, card, kind, _amount, at_ms, *_ in segment:
            self._met(CardId(card), kind, at_ms)

    @classmethod
    def load(cls, connection: Connection, replica: ReplicaId) -> Memory:
        """The state that is on disk."""
        standing = read_standing(connection)
        segment = open_segment(connection)
        return cls(
            head=heads_of(connection, [replica]).get(replica, NO_HEAD),
            segment=segment,
            standing=standing,
            held=held_beyond(connection, settled_heads(connection, standing), segment),
            recent=_recent(connection),
        )

    @property
    def last_seq(self) -> int:
        """The number of the last delta written here."""
        return self.head.seq + len(self.segment)

    def wrote(self, card: CardId, rows: Sequence[SegmentRow]) -> None:
        """These were committed to the open segment, all of one card."""
        with self.mutex:
            self.segment += rows
            for _seq, _card, kind, amount_minor, at_ms, *_ in rows:
                self.held.add(card, kind, amount_minor)
                self._met(card, kind, at_ms)

    def _met(self, card: CardId, kind: int, at_ms: int) -> None:
        self.last_at_ms = at_ms
        if kind == Kind.FARE:
            self.fares.add(card, at_ms)

    def sealed(self, head: Head) -> None:
        """The open segment up to this head was committed as a block."""
        with self.mutex:
            del self.segment[: head.seq - self.head.seq]
            self.head = head

    def stands(self, standing: Standing) -> None:
        """Staging moved on, or housekeeping did."""
        with self.mutex:
            self.standing = standing

    def settled(self, standing: Standing, held: Held) -> None:
        """A settlement was installed."""
        with self.mutex:
            self.standing = standing
            self.held = held


def open_segment(connection: Connection) -> list[SegmentRow]:
    """The deltas that are not sealed yet, in order."""
    return [tuple(row) for row in connection.execute(select(OPEN_DELTA).order_by(OPEN_DELTA.c.seq))]


def held_in(connection: Connection, standing: Standing) -> Held:
    """What this snapshot holds beyond its settlement."""
    return held_beyond(connection, settled_heads(connection, standing), open_segment(connection))


def _recent(connection: Connection) -> list[Delta]:
    """The last sealed deltas, oldest first, with RECENT_FARES fares if there are as many.

    Whichever identity of this terminal wrote them: a new pairing forgives no passback, turns no clock back.
    """
    found: list[Delta] = []
    fares = 0
    with closing(newest_first(connection)) as blocks:
        for block in blocks:
            deltas = facts_of(block).deltas(block.header.replica, block.header.first_seq)
            found += reversed(deltas)
            fares += sum(delta.kind is Kind.FARE for delta in deltas)
            if fares >= RECENT_FARES:
                break
    return found[::-1]
