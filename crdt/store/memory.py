"""What a terminal keeps in memory of its database, so that a tap reads one row and writes one.

It changes only after a commit. A tap, a seal and a merge change it by what they wrote; everything else makes
it again from the database, in the transaction that changed that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from crdt.columns import Columns
from crdt.facts import CardId, CardView, Delta, Kind, ReplicaId
from crdt.frontier import Frontier, Head
from crdt.settlement import OVERDRAWN, REFUSED, UNMET
from crdt.store import papers
from crdt.store.authorship import FOREIGN, OWN
from crdt.store.blocks import NO_CHAIN, Chain, SegmentRow, chains_of, facts_of, newest_first
from crdt.store.held import FARE, RECENT_FARES, Held, RecentFares, held_beyond
from crdt.store.peers_open import PeersOpen
from crdt.store.schema import BLOCK, QUARANTINE
from crdt.store.settled import SettledRow, Standing, read_standing, settled_heads
from crdt.store.statement import Statement
from crdt.store.terminal_schema import IDENTITY, OPEN_DELTA, TERMINAL

Fare = tuple[CardId, int]  # a card, and when it paid, in ms

_UNSETTLED: Final[SettledRow] = (0, 0, UNMET)

_SUSPENDED: Final = Statement(select(TERMINAL.c.suspended))
_FOREIGN: Final = Statement(select(func.count()).select_from(BLOCK).where(FOREIGN.fit))
_QUARANTINED: Final = Statement(select(func.count()).select_from(QUARANTINE))
_IDENTITIES: Final = Statement(select(IDENTITY.c.replica))
_SEGMENT: Final = Statement(select(OPEN_DELTA).order_by(OPEN_DELTA.c.seq))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What memory keeps, as one transaction sees it."""

    chain: Chain  # this replica's, sealed
    segment: list[SegmentRow]
    suspended: bool
    revoked: bool
    standing: Standing
    settled: Frontier
    held: Held
    foreign_blocks: int
    quarantined: int


class Memory:
    """The state of one terminal. Writers hold the database's gate; `mutex` lets others look in between."""

    head: Head  # of the sealed chain
    segment: list[SegmentRow]  # what is not sealed yet
    last_seq: int  # the number of the last delta written here
    suspended: bool
    revoked: bool  # whether an operator has ended this replica, as far as it has heard
    standing: Standing
    held: Held
    foreign_blocks: int
    quarantined: int
    credit_minor: int  # all credits written by this replica

    def __init__(self, snapshot: Snapshot, own: Iterable[Delta], foreign: Iterable[Delta]) -> None:
        """`own`, `foreign`: the last sealed facts of this terminal, and of all others; oldest first."""
        self.mutex = threading.Lock()
        self.believed = PeersOpen()
        self.fares = RecentFares()  # taken here, by whichever identity
        self.heard = RecentFares()  # taken by others, in blocks held
        self.last_at_ms: int | None = None  # the time of the last delta written here, by whichever identity
        self._take(snapshot)
        for delta in own:
            self._met(delta.card, delta.kind, delta.at_ms)
        self._hear((delta.card, delta.at_ms) for delta in foreign if delta.kind is Kind.FARE)
        for _seq, card, kind, _amount, at_ms, *_ in snapshot.segment:
            self._met(CardId(card), kind, at_ms)

    @classmethod
    def load(cls, connection: Connection, replica: ReplicaId) -> Memory:
        """The state that is on disk."""
        snapshot = read_snapshot(connection, replica)
        return cls(snapshot, _recent(connection, OWN.newest), _recent(connection, FOREIGN.newest))

    @property
    def noted_ms(self) -> int:
        """When something was noted, for people: a ledger has no clock, so it is the last tap's time."""
        return self.last_at_ms or 0

    def view(self, card: CardId, settled: SettledRow | None, at_ms: int | None) -> CardView:
        """What is believed of a card. `settled`: its row of the settlement that stands, None: it has none.

        `at_ms`: the time of the tap, for which the fare that counts is the nearest; None: the latest does.
        """
        sum_minor, opening_minor, flags = settled or _UNSETTLED
        known = not flags & UNMET
        for held in (self.held, self.believed.held):
            if card in held.sums:
                known = True
                sum_minor += held.sums[card]
                opening_minor = max(opening_minor, held.openings.get(card, 0))
        paid_ms = self.fares.at_ms.get(card)
        if card in self.heard.at_ms or card in self.believed.fares:
            heard_ms, open_ms = self.heard.at_ms.get(card), self.believed.fares.get(card)
            paid_ms = _nearest((paid_ms, heard_ms, open_ms), at_ms)
        refused = flags & REFUSED
        return CardView(card, known, sum_minor + opening_minor, refused != 0, paid_ms, refused == OVERDRAWN)

    def wrote(self, card: CardId, rows: Sequence[SegmentRow]) -> None:
        """These were committed to the open segment, all of one card."""
        with self.mutex:
            for row in rows:
                self.segment.append(row)
                kind, amount_minor = row[2], row[3]
                self.held.add(card, kind, amount_minor)
                if kind == FARE:
                    self.fares.add(card, row[4])
                elif amount_minor > 0:
                    self.credit_minor += amount_minor
            self.last_seq, self.last_at_ms = row[0], row[4]

    def sealed(self, head: Head) -> None:
        """The open segment up to this head was committed as a block."""
        with self.mutex:
            del self.segment[: head.seq - self.head.seq]
            self.head = head

    def merged(
        self, facts: Iterable[Columns], fares: Iterable[Fare], heads: Frontier, foreign: int, quarantined: int
    ) -> None:
        """These blocks of others were committed, up to these heads. None of it was settled."""
        with self.mutex:
            for columns in facts:
                self.held.add_columns(columns)
            self._hear(fares)
            self.believed.sealed(heads)
            self.foreign_blocks += foreign
            self.quarantined = quarantined

    def stands(self, standing: Standing) -> None:
        """Staging moved on, or housekeeping did."""
        with self.mutex:
            self.standing = standing

    def replaced(
        self, snapshot: Snapshot, fares: Iterable[Fare] = (), forget: Iterable[ReplicaId] = ()
    ) -> None:
        """A settlement, a concession or a revocation was committed. With fares heard of, peers to forget."""
        with self.mutex:
            self._take(snapshot)
            self.believed.forget(forget)
            self.believed.sealed(snapshot.settled)
            self._hear(fares)

    def pruned(self, foreign_blocks: int) -> None:
        """So many blocks of others were deleted."""
        with self.mutex:
            self.foreign_blocks -= foreign_blocks

    def suspend(self) -> None:
        """Nothing may be sealed any more."""
        with self.mutex:
            self.suspended = True

    def _met(self, card: CardId, kind: int, at_ms: int) -> None:
        self.last_at_ms = at_ms
        if kind == FARE:
            self.fares.add(card, at_ms)

    def _hear(self, fares: Iterable[Fare]) -> None:
        for card, at_ms in fares:
            known = self.heard.at_ms.get(card)
            if known is None or at_ms > known:
                self.heard.add(card, at_ms)

    def _take(self, snapshot: Snapshot) -> None:
        self.head = snapshot.chain.head
        self.segment = snapshot.segment
        self.last_seq = self.head.seq + len(self.segment)
        self.suspended = snapshot.suspended
        self.revoked = snapshot.revoked
        self.standing = snapshot.standing
        self.held = snapshot.held
        self.foreign_blocks = snapshot.foreign_blocks
        self.quarantined = snapshot.quarantined
        self.credit_minor = snapshot.chain.credit_minor
        self.credit_minor += sum(max(0, row[3]) for row in snapshot.segment)


def read_snapshot(connection: Connection, replica: ReplicaId) -> Snapshot:
    """The state on disk, for the replica that writes here."""
    standing = read_standing(connection)
    settled = settled_heads(connection, standing)
    segment = open_segment(connection)
    return Snapshot(
        chain=chains_of(connection, [replica]).get(replica, NO_CHAIN),
        segment=segment,
        suspended=bool(_SUSPENDED.value(connection)),
        revoked=replica in papers.revocations(connection).revoked,
        standing=standing,
        settled=settled,
        held=held_beyond(connection, settled, segment),
        foreign_blocks=_FOREIGN.value(connection),
        quarantined=count_quarantined(connection),
    )


def count_quarantined(connection: Connection) -> int:
    """How many blocks are in quarantine."""
    return int(_QUARANTINED.value(connection))


def own_replicas(connection: Connection) -> set[ReplicaId]:
    """The identities that ever wrote to this ledger."""
    return {ReplicaId(replica) for (replica,) in _IDENTITIES.rows(connection)}


def open_segment(connection: Connection) -> list[SegmentRow]:
    """The deltas that are not sealed yet, in order."""
    rows: list[SegmentRow] = [*_SEGMENT.rows(connection)]
    return rows


def held_in(connection: Connection, standing: Standing) -> Held:
    """What this snapshot holds beyond its settlement."""
    return held_beyond(connection, settled_heads(connection, standing), open_segment(connection))


def fares_of(columns: Columns) -> list[Fare]:
    """The fares of a block: cards and times."""
    paid = [kind is Kind.FARE for kind, _ in columns.money]
    if not any(paid):
        return []
    rows = zip(columns.cards.values(), columns.times.values(), columns.index, strict=True)
    return [(card, at_ms) for card, at_ms, entry in rows if paid[entry]]


def _nearest(times_ms: Iterable[int | None], at_ms: int | None) -> int:
    """Of the times when a card paid, by several clocks, the one nearest to `at_ms`; None: the latest.

    The nearest, because each is by the clock of whoever took the fare: one that is far ahead must not hide a
    fare that was taken here a moment ago. Doors of a bus whose clocks differ by more than the passback window
    do not see each other's taps as too soon.
    """
    known = [time for time in times_ms if time is not None]
    return max(known) if at_ms is None else min(known, key=lambda time: abs(at_ms - time))


def _recent(connection: Connection, whose: Statement) -> list[Delta]:
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
