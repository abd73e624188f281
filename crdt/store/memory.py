"""What a terminal keeps in memory of its database, so that a tap reads one row and writes one.

It changes only after a commit. A tap, a seal and a merge change it by what they wrote, and a new identity
succeeds the one before. Everything else makes it again from the database, in the transaction that changed
that; but not the open segment, and what is held only where it changed: of a month a tap would feel that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from sqlalchemy import Connection, func, select

from crdt.block import Block
from crdt.columns import Columns
from crdt.facts import CardId, CardView, Kind, ReplicaId
from crdt.frontier import Frontier, Head
from crdt.settlement import OVERDRAWN, REFUSED, UNMET
from crdt.store import papers, segment
from crdt.store.authorship import FOREIGN, OWN
from crdt.store.blocks import NO_CHAIN, NO_HEAD, Chain, SegmentRow, chains_of
from crdt.store.content import Content
from crdt.store.fares import Fare, nearest, recent_facts
from crdt.store.held import FARE, Held, RecentFares, held_beyond
from crdt.store.identities import is_suspended, replaced_here
from crdt.store.other_lives import Repeated, repeated
from crdt.store.peers_open import PeersOpen
from crdt.store.schema import BLOCK, QUARANTINE
from crdt.store.settled import SettledRow, Standing, read_standing, settled_heads
from crdt.store.statement import Statement

_UNSETTLED: Final[SettledRow] = (0, 0, UNMET)

_FOREIGN: Final = Statement(select(func.count()).select_from(BLOCK).where(FOREIGN.fit))
_QUARANTINED: Final = Statement(select(func.count()).select_from(QUARANTINE))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What memory keeps, as one transaction sees it; without the open segment, which may be a month long."""

    chain: Chain  # this replica's, sealed
    suspended: bool
    revoked: bool
    was_replaced: bool
    standing: Standing
    settled: Frontier
    held: Held | None  # of what is sealed; None: what memory holds is right
    foreign_blocks: int
    quarantined: int


class Memory:
    """The state of one terminal. Writers hold the database's gate; `mutex` lets others look in between."""

    head: Head  # of the sealed chain
    segment: list[SegmentRow]  # what is not sealed yet
    last_place: int  # after which the next row of it stands
    suspended: bool
    revoked: bool  # whether an operator has ended this replica, as far as it has heard
    was_replaced: bool  # whether it, or one before it, has ended as storage was put back, and the terminal
    # has to go on as another, which writes again what that wrote here
    standing: Standing
    held: Held
    foreign_blocks: int
    quarantined: int
    credit_minor: int  # all credits written by this replica

    def __init__(self, snapshot: Snapshot, rows: list[SegmentRow]) -> None:
        """`rows`: the open segment. It knows of no fares yet; see `load`."""
        self.mutex = threading.Lock()
        self.believed = PeersOpen()
        self.fares = RecentFares()  # taken here, by whichever identity
        self.heard = RecentFares()  # taken by others, in blocks held
        self.last_at_ms: int | None = None  # the time of the last delta written here, by whichever identity
        self.segment = rows
        self.held = Held()
        self.revision = 0  # how often the chains written here may have become others, ended or been settled
        self._take(snapshot)

    @classmethod
    def load(cls, connection: Connection, replica: ReplicaId) -> Memory:
        """The state that is on disk."""
        memory = cls(read_snapshot(connection, replica), segment.read(connection))
        memory._remember(connection)
        return memory

    @classmethod
    def begin_succession(cls, connection: Connection, replica: ReplicaId) -> Memory:
        """The same without what another identity has in memory, for `succeed` after the commit."""
        return cls(read_snapshot(connection, replica, count=False), [])

    def succeed(self, former: Memory) -> None:
        """Go on with what the other identity left open, what it held and who it saw pay: it is the same."""
        with self.mutex, former.mutex:
            self.segment, self.held = former.segment, former.held
            self.fares, self.heard, self.last_at_ms = former.fares, former.heard, former.last_at_ms
            self._count_open()

    @property
    def last_seq(self) -> int:
        """The number of the last delta written here."""
        return self.head.seq + len(self.segment)

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
            paid_ms = nearest((paid_ms, heard_ms, open_ms), at_ms)
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
            self.last_place, self.last_at_ms = row[0], row[4]

    def open(self) -> tuple[Head, list[SegmentRow]]:
        """The sealed head, and what is open after it."""
        with self.mutex:
            return self.head, [*self.segment]

    def sealed(self, head: Head) -> None:
        """The open segment up to this head was committed as a block."""
        with self.mutex:
            del self.segment[: head.seq - self.head.seq]
            self.head = head
            if not self.segment:
                self.last_place = head.seq

    def merged(
        self,
        given: Iterable[tuple[Block, Columns]],
        repeated: Repeated,
        fares: Iterable[Fare],
        heads: Frontier,
        foreign: int,
        quarantined: int,
    ) -> None:
        """These blocks of others were committed, up to these heads. None of it was settled."""
        with self.mutex:
            for block, columns in given:
                self.held.add_block(block, columns, NO_HEAD.seq, repeated)
            self._hear(fares)
            self.believed.sealed(heads)
            self.foreign_blocks += foreign
            self.quarantined = quarantined

    def stands(self, standing: Standing) -> None:
        """Staging moved on, or housekeeping did."""
        with self.mutex:
            self.standing = standing

    def replaced(self, snapshot: Snapshot, forget: Iterable[ReplicaId] = ()) -> None:
        """A settlement or a revocation was committed. With peers to forget."""
        with self.mutex:
            self._replaced(snapshot, forget)

    def conceded(
        self,
        snapshot: Snapshot,
        forget: Iterable[ReplicaId],
        fares: Iterable[Fare],
        gained: Iterable[Content],
        gone: AbstractSet[int],
        added: Sequence[SegmentRow],
    ) -> None:
        """The hub's chain of a replica was taken. With peers to forget, the chain's fares, what is held more
        where that is known, and what changed in the open segment: places that are gone, and rows added."""
        with self.mutex:
            if gone:
                self.segment = [row for row in self.segment if row[0] not in gone]
            self.segment += added
            self._replaced(snapshot, forget)
            for fact in gained:
                self.held.add(fact.card, fact.kind, fact.amount_minor)
            self._hear(fares)

    def pruned(self, foreign_blocks: int) -> None:
        """So many blocks of others were deleted."""
        with self.mutex:
            self.foreign_blocks -= foreign_blocks

    def suspend(self) -> None:
        """Nothing may be sealed any more."""
        with self.mutex:
            self.suspended = True

    def _remember(self, connection: Connection) -> None:
        """Who paid when, and when a delta was written last.

        Deltas stand in the order in which they were written, or written again. When that was first the clock
        tells: its time goes forward within an epoch, and its epochs do.
        """
        own = recent_facts(connection, OWN.newest)
        written = [(delta.context.clock_epoch, delta.at_ms, delta.card, int(delta.kind)) for delta in own]
        written += [
            (epoch, at_ms, CardId(card), kind)
            for _place, card, kind, _amount, at_ms, _route, _trip, _stop, epoch, _error in self.segment
        ]
        for _epoch, at_ms, card, kind in sorted(written, key=itemgetter(0, 1)):
            self.last_at_ms = at_ms
            if kind == FARE:
                self.fares.add(card, at_ms)
        foreign = recent_facts(connection, FOREIGN.newest)
        self._hear((delta.card, delta.at_ms) for delta in foreign if delta.kind is Kind.FARE)

    def _hear(self, fares: Iterable[Fare]) -> None:
        for card, at_ms in fares:
            known = self.heard.at_ms.get(card)
            if known is None or at_ms > known:
                self.heard.add(card, at_ms)

    def _replaced(self, snapshot: Snapshot, forget: Iterable[ReplicaId]) -> None:
        self._take(snapshot)
        self.believed.forget(forget)
        self.believed.sealed(snapshot.settled)

    def _take(self, snapshot: Snapshot) -> None:
        self.revision += 1
        self.head = snapshot.chain.head
        self.suspended = snapshot.suspended
        self.revoked = snapshot.revoked
        self.was_replaced = snapshot.was_replaced
        self.standing = snapshot.standing
        self.foreign_blocks = snapshot.foreign_blocks
        self.quarantined = snapshot.quarantined
        self.credit_minor = snapshot.chain.credit_minor
        if snapshot.held is not None:
            self.held = snapshot.held
            for _place, card, kind, amount_minor, *_ in self.segment:
                self.held.add(CardId(card), kind, amount_minor)
        self._count_open()

    def _count_open(self) -> None:
        self.credit_minor += sum(max(0, row[3]) for row in self.segment)
        self.last_place = self.segment[-1][0] if self.segment else self.head.seq


def read_snapshot(connection: Connection, replica: ReplicaId, *, count: bool = True) -> Snapshot:
    """The state on disk, for the replica that writes here. `count`: what is held, too."""
    standing, revocations = read_standing(connection), papers.revocations(connection)
    settled = settled_heads(connection, standing)
    return Snapshot(
        chain=chains_of(connection, [replica]).get(replica, NO_CHAIN),
        suspended=is_suspended(connection),
        revoked=replica in revocations.revoked,
        was_replaced=bool(replaced_here(connection)),
        standing=standing,
        settled=settled,
        held=held_beyond(connection, settled, (), repeated(connection, settled)) if count else None,
        foreign_blocks=_FOREIGN.value(connection),
        quarantined=count_quarantined(connection),
    )


def count_quarantined(connection: Connection) -> int:
    """How many blocks are in quarantine."""
    return int(_QUARANTINED.value(connection))


def held_in(connection: Connection, standing: Standing) -> Held:
    """What this snapshot holds beyond its settlement."""
    settled = settled_heads(connection, standing)
    return held_beyond(connection, settled, segment.read(connection), repeated(connection, settled))
