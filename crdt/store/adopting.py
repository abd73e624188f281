"""Facts of a branch that does not count, written again by the hub: for a terminal that will not do it itself.

An operator decides so when a terminal is dead; and of a branch of the hub's own, which nobody else writes
again. If the terminal comes back all the same and writes them again under its new identity, the hub takes its
own back: nobody's money is counted twice. So it does with what it had adopted before it was put back, once
that comes. Whether a fact is written again is told by its content: one reader takes no two facts of one card
in the same millisecond. What a terminal says of itself, or that it was replaced, only tells where to look: it
may lose what it has not brought yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, insert, select

from crdt.block import contents, parse, seal
from crdt.certificate import AuthorCertificate
from crdt.errors import MisuseError, NotPermitted, RefusalCode
from crdt.facts import NO_CONTEXT, Delta, Kind, ReplicaId
from crdt.forks import unheld
from crdt.frontier import Head
from crdt.signing import SigningKey
from crdt.store import blocks, papers, quarantine, rewriting
from crdt.store.blocks import Chain
from crdt.store.hub_schema import REQUEST
from crdt.store.kin import Kin
from crdt.store.quarantine import Quarantined
from crdt.store.recording import Change, record
from crdt.store.rewriting import Content
from crdt.store.rounds import Rounds, Search

CHECKED_AT_ONCE: Final = 8  # entries in one background transaction


@dataclass(frozen=True, slots=True)
class Adoption:
    """What adopting, or undoing it, did."""

    facts: int  # booked by the hub now
    head: Head | None  # of the hub's own chain after it; None: nothing was booked
    changes: Sequence[Change]
    left: Sequence[Search] = ()  # what `undo` has still to look through

    @property
    def more(self) -> bool:
        """Whether `undo` has to go on."""
        return bool(self.left)


class Adopter:
    """Writes as the hub."""

    def __init__(
        self,
        key: SigningKey,
        certificate: AuthorCertificate,
        authors: Callable[[Connection], Mapping[ReplicaId, AuthorCertificate]],
    ) -> None:
        """`authors`: within a write, everybody who is enrolled; cheap where nothing has changed."""
        self._key = key
        self._certificate = certificate
        self._authors = authors
        self._known = Kin({})
        self._rounds = Rounds()

    def adopt(self, connection: Connection, hashes: Collection[bytes]) -> Adoption:
        """Book what these blocks in quarantine say and the ledger does not, each fact once, as it was.

        What is resolved already is left alone. Raises MisuseError for a block of a revoked author, and
        NotPermitted where the hub's certificate does not allow a fact. The history has to have caught up.
        """
        replaced = papers.revocations(connection).replaced
        found = quarantine.find(connection, hashes)
        entries = [entry for entry in found if entry.resolution in quarantine.UNRESOLVED]
        if any(
            entry.reason is not RefusalCode.FORK_DETECTED and entry.replica not in replaced
            for entry in entries
        ):
            raise MisuseError("what a revoked author wrote comes back when its cut-off is moved")
        kin = self._kin(connection)
        done: list[tuple[int, Head, Change]] = []
        for entry in entries:
            facts = _lost(connection, kin, entry)
            if facts:
                done.append(self._book(connection, self._as_permitted(facts), entry.hash.hex()))
            how = quarantine.ADOPTED if facts else quarantine.REISSUED
            quarantine.resolve(connection, [entry.hash], how)
        changes = [change for _, _, change in done]
        if entries:
            changes.append(Change(0, (), suspects={entry.replica for entry in entries}))
        return Adoption(sum(count for count, _, _ in done), done[-1][1] if done else None, changes)

    def undo(self, connection: Connection, at_ms: int) -> Adoption:
        """Take back some of what was adopted and is in the ledger otherwise now. `at_ms`: now.

        And note of some of what a terminal says it has written again that it has. Looks only where `look`
        said. The history has to have caught up. Call `settle` once it is durable.
        """
        kin = self._kin(connection)
        found, left = self._rounds.part(connection, kin, CHECKED_AT_ONCE)
        done: list[tuple[int, Head, Change]] = []
        for entry in found:
            if entry.resolution == quarantine.ADOPTED:
                done += self._undo(connection, kin, entry, at_ms)
            elif _is_here(connection, kin, entry):
                quarantine.resolve(connection, [entry.hash], quarantine.REISSUED)
        changes = [change for _, _, change in done]
        return Adoption(sum(count for count, _, _ in done), done[-1][1] if done else None, changes, left)

    def look(self, came: Iterable[ReplicaId]) -> None:
        """What these authors write again may be here now: `undo` has to look at their terminals' once more.

        For one of the hub's it looks at everybody's.
        """
        self._rounds.look(came)

    def settle(self, undone: Adoption) -> None:
        """What `undo` did is durable."""
        self._rounds.settle(undone.left)

    def _kin(self, connection: Connection) -> Kin:
        authors = self._authors(connection)
        if self._known.authors is not authors:
            self._known = Kin(authors)
        return self._known

    def _undo(
        self, connection: Connection, kin: Kin, entry: Quarantined, at_ms: int
    ) -> list[tuple[int, Head, Change]]:
        """Take back what was adopted of one block, as far as it is here otherwise."""
        booked = _booked(connection, entry)
        written = rewriting.written(connection, kin, entry.replica, booked, apart_from=booked)
        doubled = [delta for delta in booked if Content.of(delta) in written]
        if booked and len(doubled) == len(booked):
            quarantine.resolve(connection, [entry.hash], quarantine.UNDONE)
        return [self._take_back(connection, doubled, at_ms)] if doubled else []

    def _take_back(
        self, connection: Connection, booked: Sequence[Delta], at_ms: int
    ) -> tuple[int, Head, Change]:
        facts = [
            replace(
                delta,
                kind=Kind.ADJUSTMENT,
                amount_minor=-delta.amount_minor,
                at_ms=at_ms,
                context=NO_CONTEXT,
            )
            for delta in booked
        ]
        count, head, change = self._book(connection, facts, "")
        own, last_seq = self._key.replica, head.seq
        rows = [{"id": _undoing(delta), "replica": own, "seq": last_seq} for delta in booked]
        connection.execute(insert(REQUEST), rows)
        return count, head, replace(change, again=False)  # what takes back is nobody's fact written again

    def _as_permitted(self, facts: Sequence[Delta]) -> list[Delta]:
        """The facts as they were, or what the hub may write that moves the same money."""
        found = []
        for delta in facts:
            if self._certificate.permits(delta.kind, delta.amount_minor):
                found.append(delta)
            elif delta.kind is Kind.OPENING:
                raise NotPermitted("the hub may not write an opening balance, so it cannot adopt one")
            elif delta.amount_minor:
                found.append(replace(delta, kind=Kind.ADJUSTMENT))
        return found

    def _book(self, connection: Connection, facts: Sequence[Delta], request: str) -> tuple[int, Head, Change]:
        """Write the facts as a block of the hub's own; how many, and the head and the change it makes."""
        own = self._key.replica
        head, credit_minor = blocks.chains_of(connection, [own]).get(own, blocks.NO_CHAIN)
        deltas = [replace(delta, replica=own, seq=seq) for seq, delta in enumerate(facts, head.seq + 1)]
        for delta in deltas:
            if not self._certificate.permits(delta.kind, delta.amount_minor):
                raise NotPermitted(f"the hub may not write a {delta.kind.name} of {delta.amount_minor}")
        block = seal(self._key, self._certificate.fleet, deltas, head.hash)
        columns = contents(block)
        credit_minor += columns.credit_minor()
        self._certificate.check_allowance(credit_minor)
        change = record(connection, [block], [columns], {own: Chain(block.head, credit_minor)})
        if request:
            connection.execute(insert(REQUEST).values(id=request, replica=own, seq=block.last_seq))
        return len(deltas), block.head, change


def _facts(entry: Quarantined) -> list[Delta]:
    block = entry.block
    return list(blocks.facts_of(block).deltas(entry.replica, entry.first_seq))


def _lost(connection: Connection, kin: Kin, entry: Quarantined) -> list[Delta]:
    """The facts of a block in quarantine that the ledger has from nobody."""
    written = rewriting.written(connection, kin, entry.replica, _facts(entry))
    written |= _adopted_elsewhere(connection, kin, entry.replica)
    lost = unheld(_facts(entry), _counted(connection, entry))
    return [delta for delta in lost if Content.of(delta) not in written]


def _is_here(connection: Connection, kin: Kin, entry: Quarantined) -> bool:
    """Whether the ledger has all that a block in quarantine says. One fact tells that most are not."""
    if entry.reason is RefusalCode.REVOKED:
        last = _facts(entry)[-1:]
        if Content.of(last[0]) not in rewriting.written(connection, kin, entry.replica, last):
            return False
    return not _lost(connection, kin, entry)


def _counted(connection: Connection, entry: Quarantined) -> list[Delta]:
    """The facts with these numbers that are in the ledger: in the chain that counts, or adopted."""
    found: list[Delta] = []
    for block in blocks.stored_blocks(connection, entry.replica, entry.first_seq - 1):
        if block.header.first_seq > entry.last_seq:
            break
        found += blocks.facts_of(block).deltas(entry.replica, block.header.first_seq)
    for other in quarantine.entries(connection, entry.replica, quarantine.ADOPTED):
        if other.first_seq <= entry.last_seq and entry.first_seq <= other.last_seq:
            found += _facts(other)
    return found


def _adopted_elsewhere(connection: Connection, kin: Kin, replica: ReplicaId) -> set[Content]:
    """The contents of what was adopted of other identities of this author's terminal."""
    return {
        Content.of(fact)
        for other in kin.identities(replica) - {replica}
        for entry in quarantine.entries(connection, other, quarantine.ADOPTED)
        for fact in _facts(entry)
    }


def _undoing(delta: Delta) -> str:
    """The name of the request that takes back this fact of the hub's own: it does so once."""
    return f"undo-{delta.replica.hex()}-{delta.seq}"


def _is_undone(connection: Connection, delta: Delta) -> bool:
    query = select(REQUEST.c.id).where(REQUEST.c.id == _undoing(delta))
    return connection.execute(query).first() is not None


def _booked(connection: Connection, entry: Quarantined) -> list[Delta]:
    """What the hub has booked for this block and not taken back, as far as it would have to be.

    An opening needs no undoing: of a card's openings, which both of them are then, one counts.
    """
    query = select(REQUEST.c.replica, REQUEST.c.seq).where(REQUEST.c.id == entry.hash.hex())
    row = connection.execute(query).one_or_none()
    if row is None:
        return []
    replica = ReplicaId(row.replica)
    block = parse(blocks.blocks_after(connection, replica, row.seq - 1, 0)[0])
    return [
        delta
        for delta in blocks.facts_of(block).deltas(replica, block.header.first_seq)
        if delta.kind is not Kind.OPENING and delta.amount_minor and not _is_undone(connection, delta)
    ]
