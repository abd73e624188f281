"""Where the hub's word changes what a terminal's ledger counts: a chain that contradicts it, a revocation."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

from sqlalchemy import Connection

from crdt.block import Block, parse, verify
from crdt.certificate import AuthorCertificate
from crdt.columns import Columns
from crdt.documents import SignedDocument
from crdt.errors import MisuseError, Overloaded, UnknownAuthor
from crdt.facts import ReplicaId
from crdt.ledger import RefusedInput
from crdt.revocations import NONE_REVOKED, Revocations
from crdt.store import concession, papers, reissue, segment
from crdt.store import concession_plan as plans
from crdt.store.authors import Authors
from crdt.store.blocks import NO_HEAD, SegmentRow
from crdt.store.canonical import Canonical, check_chain
from crdt.store.concession_plan import Plan
from crdt.store.content import Content
from crdt.store.fares import fares_of
from crdt.store.identities import own_replicas, replaced_here
from crdt.store.memory import Memory, Snapshot, read_snapshot
from crdt.store.other_lives import lives_of_replaced
from crdt.store.owned import Owned

MAX_PLANS: Final = 8
"""How often a concession is planned: anew where a full segment of taps was sealed meanwhile, or the like."""

Chain = tuple[ReplicaId, Sequence[bytes], Iterable[AuthorCertificate]]  # whose, blocks, who may have signed


class Conceded(NamedTuple):
    """What a concession did."""

    reissued: int  # facts written again
    quarantined: tuple[bytes, ...]  # hashes of the blocks that left the record


class _Done(NamedTuple):
    """What carrying a concession out comes to."""

    added: Sequence[SegmentRow]
    snapshot: Snapshot
    gained: Collection[Content]
    stored: Sequence[AuthorCertificate]


class Conceding:
    """Does what the hub says to the ledger of the replica that writes here, all of it or nothing."""

    def __init__(self, store: Owned, memory: Memory, authors: Authors, replica: ReplicaId) -> None:
        self._store = store
        self._memory = memory
        self._authors = authors
        self._replica = replica
        self._one_at_a_time = threading.Lock()

    def concede(
        self,
        replica: ReplicaId,
        canonical: Sequence[bytes],
        certificates: Iterable[AuthorCertificate],
        after_seq: int,
        *,
        ended: bool,
        kin: Collection[Chain],
        listed: SignedDocument | None,
    ) -> Conceded:
        """See TerminalLedger.concede."""
        if kin and replica != self._replica and not self._memory.suspended:
            # A block of the writer's may be drafted with what would go.
            raise MisuseError("only what nobody seals is compared with others")
        ends = NONE_REVOKED if listed is None else Revocations.decode(listed.body)
        given = list(map(parse, canonical))
        facts = list(self._verified(replica, given, certificates))
        check_chain(given, replica)
        elsewhere = self._elsewhere(replica, kin, after_seq)
        shown = {other: parse(raws[-1]).head if raws else NO_HEAD for other, raws, _ in kin}
        hub = Canonical(replica, given, facts, after_seq, ended, elsewhere, listed, shown)
        with self._one_at_a_time:
            for _ in range(MAX_PLANS):
                done = self._conceded(hub, {replica, *ends.cut_offs})
                if done is not None:
                    return done
        raise Overloaded("This ledger changed each time it was compared with the hub's; it is tried again.")

    def revoke(self, document: SignedDocument) -> bool:
        """Keep the list of revoked replicas and count by it at once; see TerminalLedger.put_document."""
        revoked = Revocations.decode(document.body)

        def work(connection: Connection) -> tuple[Snapshot, Collection[ReplicaId]] | None:
            if not papers.put_document(connection, document):
                return None
            less = self._cut_off(connection, revoked)
            anew = less or self._memory.held.left_out or lives_of_replaced(connection)
            snapshot = read_snapshot(connection, self._replica, count=bool(anew))
            return snapshot, replaced_here(connection).keys()

        def after(done: tuple[Snapshot, Collection[ReplicaId]] | None) -> None:
            if done is not None:
                snapshot, replaced = done
                forget = {*revoked.cut_offs, *self._other_lives_believed(*replaced)}
                self._memory.replaced(snapshot, forget)

        return self._store.write(work, after) is not None

    def _conceded(self, hub: Canonical, forget: Collection[ReplicaId]) -> Conceded | None:
        """Plan beside the taps, put what is written again where it does not show yet, and then do the rest
        at once, with peers to forget. None, and no change, where the plan was out of date by then."""
        head, rows = self._memory.open()
        basis, local, said = self._store.read(
            lambda connection: (
                basis := plans.look(connection, hub, self._replica, self._of_terminal(hub.replica)),
                plans.held(connection, hub),
                reissue.said_here(connection, hub, basis.lives),
            )
        )
        if basis.writer != head:
            return None
        plan = plans.planned(replace(hub, elsewhere=hub.elsewhere | said), self._replica, basis, local, rows)
        hidden = self._hidden(plan)

        def work(connection: Connection) -> _Done | None:
            if plans.look(connection, hub, self._replica, self._of_terminal(hub.replica)) != basis:
                return None
            refused: list[RefusedInput] = []
            stored, _ = self._authors.store(connection, [self._authors.seen[hub.replica]], refused)
            added = plans.carry_out(connection, hub.replica, plan, hidden, self._memory.noted_ms)
            less = self._kept(connection, hub.listed)
            gained = None if less or self._memory.held.left_out else plan.gained
            snapshot = read_snapshot(connection, self._replica, count=gained is None)
            return _Done(added, snapshot, gained or (), stored)

        def after(done: _Done | None) -> None:
            if done is not None:
                self._authors.remember(done.stored)
                gone = {*plan.again.gone}
                forgotten = {*forget, *self._other_lives_believed(hub.replica)}
                self._memory.conceded(done.snapshot, forgotten, fares, done.gained, gone, done.added)

        fares = [fare for columns in hub.facts for fare in fares_of(columns)]
        if self._store.write(work, after) is None:
            return None
        return Conceded(len(plan.again.lost), tuple(block.hash for block in plan.leave))

    def _kept(self, connection: Connection, listed: SignedDocument | None) -> bool:
        """Keep the list that came with a chain which has given way to it; whether less of others counts."""
        if listed is None or not papers.put_document(connection, listed):
            return False
        return self._cut_off(connection, Revocations.decode(listed.body))

    def _cut_off(self, connection: Connection, revoked: Revocations) -> bool:
        own = own_replicas(connection)
        return concession.revoke(connection, revoked, self._replica, own, self._memory.noted_ms)

    def _other_lives_believed(self, *replaced: ReplicaId) -> list[ReplicaId]:
        """Of whose open taps some may be of both lives: they are heard again at once."""
        return sorted(self._of_terminal(*replaced) & {*self._memory.believed.replicas})

    def _of_terminal(self, *replaced: ReplicaId) -> set[ReplicaId]:
        """All identities met of the terminal that this is, and of those that these are of, which wrote here
        when it had another name; from memory, for there are many others."""
        seen = dict(self._authors.seen)
        terminals = {seen[one].terminal for one in (self._replica, *replaced) if one in seen}
        return {one for one, author in seen.items() if author.terminal in terminals}

    def _hidden(self, plan: Plan) -> list[SegmentRow]:
        """What is written again, where it is much: put into the open segment a part at a time."""
        if len(plan.again.lost) < segment.PART_ROWS:
            return []
        rows = segment.placed(plan.again.lost, self._store.write(segment.hide))
        for at in range(0, len(rows), segment.PART_ROWS):
            self._store.write(partial(segment.put, rows=rows[at : at + segment.PART_ROWS]))
        return rows

    def _elsewhere(self, replica: ReplicaId, kin: Collection[Chain], after_seq: int) -> set[Content]:
        """What chains of other identities, which may have been copies of this storage, say of the cards of
        which facts may have to be written again.

        They may be years long, so one block at a time is unpacked.
        """
        if not kin:
            return set()
        cards = self._store.read(lambda connection: reissue.cards_at_stake(connection, replica, after_seq))
        found: set[Content] = set()
        for other, raws, certificates in kin:
            if not raws:
                continue
            blocks = list(map(parse, raws))
            for block, columns in zip(blocks, self._verified(other, blocks, certificates), strict=True):
                deltas = columns.deltas(other, block.header.first_seq)
                found.update(Content.of(delta) for delta in deltas if delta.card in cards)
            check_chain(blocks, other)
        return found

    def _verified(
        self, replica: ReplicaId, given: Sequence[Block], certificates: Iterable[AuthorCertificate]
    ) -> Iterator[Columns]:
        for certificate in certificates:
            self._authors.check(certificate)
        author = self._authors.seen.get(replica)
        if author is None:
            raise UnknownAuthor("there is no certificate for the author of the hub's blocks")
        return (verify(block, author) for block in given)
