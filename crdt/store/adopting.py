"""Facts of a branch that does not count, written again by the hub: for a terminal that will not do it itself.

An operator decides so when a terminal is dead; and of a branch of the hub's own, which nobody else writes
again. If the terminal comes back all the same and writes them again under its new identity, the hub takes its
own back: nobody's money is counted twice. Whether a fact is written again is told by its content: one reader
takes no two facts of one card in the same millisecond. What a terminal says of itself, or that it was
replaced, only tells where to look: it may lose what it has not brought yet.

Nothing but the facts themselves says what the hub has adopted and taken back, so that a hub that was put back
knows it again as soon as they come, and nobody's money depends on what came first: see `reckoning`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, NamedTuple

from sqlalchemy import Connection

from crdt.block import NOMINAL_BLOCK_DELTAS, contents, seal
from crdt.certificate import AuthorCertificate
from crdt.errors import MisuseError, NotPermitted, RefusalCode
from crdt.facts import Delta, ReplicaId
from crdt.frontier import Head
from crdt.signing import SigningKey
from crdt.store import blocks, copies, flags, papers, projection, quarantine, said_again
from crdt.store.blocks import Chain
from crdt.store.coincidences import Coincidences, Part
from crdt.store.comparing import asking
from crdt.store.content import Content
from crdt.store.kin import Kin
from crdt.store.moments import Moment
from crdt.store.quarantine import Quarantined
from crdt.store.reckoning import reckon, reckon_repeats, reckon_ride
from crdt.store.recording import Change, record
from crdt.store.resolutions import OPEN, SAID, UNRESOLVED
from crdt.store.rewriting import copied_rides, held, repeated_rides
from crdt.store.rounds import FACTS_AT_ONCE, Left, Rounds, some_of

_log = logging.getLogger(__name__)

_MOST_REPEATS: Final = 4 * FACTS_AT_ONCE  # and nobody waits long for the writer

_WITHHELD: Final = (
    "The hub's certificate does not let it write %d of the facts that are due for what it has adopted, or for"
    " rides that are there twice: those count twice, or not at all, until it has a certificate that does."
)


@dataclass(frozen=True, slots=True)
class Adoption:
    """What adopting, or comparing what was adopted, did."""

    facts: int = 0  # booked by the hub now
    head: Head | None = None  # of the hub's own chain after it; None: nothing was booked
    changes: Sequence[Change] = ()
    left: Left = Left()  # what is still to be looked at
    behind: bool = False  # the history is: it has come nearer, and nothing was looked at
    rides: Part | None = None  # at which of them it has looked; None: at none in this step
    repeats: bool = False  # whether more of them are noted
    repeats_next: int = FACTS_AT_ONCE  # for how many of them the next step writes

    @property
    def more(self) -> bool:
        """Whether it has to go on."""
        rides = self.rides is not None and self.rides.more
        return self.behind or bool(self.left) or rides or self.repeats


class _Written(NamedTuple):
    """What the hub has written for one block."""

    facts: int
    head: Head
    change: Change


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
        self._coincidences = Coincidences()
        # Whoever has keys may have written any number in one moment, and each step has to count all of them.
        self._repeats_at_once = FACTS_AT_ONCE

    def adopt(self, connection: Connection, hashes: Collection[bytes], at_ms: int) -> Adoption:
        """Book what these blocks in quarantine say and the ledger does not, each fact once, as it was.

        As many of them as make a short transaction; `Adoption.left` has the others. What is resolved already
        is left alone. `at_ms`: now. Raises MisuseError for a block of a revoked author, and NotPermitted
        where the hub's certificate does not allow a fact.
        """
        replaced = papers.revocations(connection).replaced
        found, left = some_of(connection, list(hashes))
        entries = [entry for entry in found if entry.resolution in UNRESOLVED]
        if any(
            entry.reason is not RefusalCode.FORK_DETECTED and entry.replica not in replaced
            for entry in entries
        ):
            raise MisuseError("what a revoked author wrote comes back when its cut-off is moved")
        if entries and projection.catch_up_some(connection, at_ms):
            return Adoption(left=Left(blocks=list(hashes)), behind=True)
        return replace(self._go_through(connection, entries, at_ms, adopting=True), left=Left(blocks=left))

    def compare(self, connection: Connection, at_ms: int) -> Adoption:
        """Bring what the hub has adopted in line with what others have written of it, and note what became.

        It takes back what is in the ledger otherwise now, and writes again what was taken back too often.
        What the hub's certificate does not allow is left out, and what became of its block stays as noted.
        Looks at some of what `look` said, where the hub was ever put back at some of what came since, and at
        some of the rides that may be there more than once. `at_ms`: now. Call `settle` once it is durable.
        """
        kin = self._kin(connection)
        found, left = self._rounds.part(connection, kin)
        rides = not left and len(kin.hubs) > 1
        repeats = not left and said_again.are_noted(connection)
        if (found or rides or repeats) and projection.catch_up_some(connection, at_ms):
            return Adoption(behind=True)
        done = replace(self._go_through(connection, found, at_ms), left=left)
        if rides:
            done = self._compare_rides(connection, kin, done, at_ms)
        return self._compare_repeats(connection, kin, done, at_ms) if repeats else done

    def look(self, came: Iterable[ReplicaId], new: Iterable[bytes] = ()) -> None:
        """What these authors wrote may be in quarantine too: `compare` has to look at what is there of their
        terminals, and of those with copies of their storage.

        For one of the hub's it looks at everybody's. `new`: hashes of blocks to look at whoever came.
        """
        self._rounds.look(came, new)

    def look_anew(self) -> None:
        """`compare` has to look at everything: nobody knows what changed, or facts left the record."""
        self.look([self._key.replica])
        self._coincidences.begin_again()

    def settle(self, compared: Adoption) -> None:
        """What `compare` did is durable."""
        if not compared.behind:
            self._rounds.settle(compared.left)
            self._repeats_at_once = compared.repeats_next
        if compared.rides is not None:
            self._coincidences.settle(compared.rides)

    def _kin(self, connection: Connection) -> Kin:
        authors, noted = self._authors(connection), copies.pairs(connection)
        if self._known.authors is not authors or self._known.copies != noted:
            self._known = Kin(authors, noted)
        return self._known

    def _go_through(
        self, connection: Connection, entries: Sequence[Quarantined], at_ms: int, *, adopting: bool = False
    ) -> Adoption:
        if not entries:
            return Adoption()
        kin = self._kin(connection)
        written: list[_Written] = []
        resolved: set[ReplicaId] = set()
        for entry in entries:
            projection.catch_up(connection, at_ms)  # with what was written for the entry before
            how, done = self._reckon(connection, kin, entry, adopting=adopting)
            written += done
            if how != entry.resolution:
                quarantine.resolve(connection, [entry.hash], how)
                resolved.add(entry.replica)
        changes = [one.change for one in written]
        if resolved:  # a lost block of the hub's own may have been a copy, or have taken one back
            again = adopting and bool(resolved & kin.hubs)
            changes.append(asking(connection, Change(0, (), suspects=resolved, again=again)))
        head = written[-1].head if written else None
        return Adoption(sum(one.facts for one in written), head, changes)

    def _reckon(
        self, connection: Connection, kin: Kin, entry: Quarantined, *, adopting: bool
    ) -> tuple[str, Sequence[_Written]]:
        """What has become of an entry, and what the hub has written for it now."""
        facts = _facts(entry)
        if not adopting and _is_absent(connection, kin, entry, facts):
            return entry.resolution, ()
        found = reckon(facts, held(connection, kin, facts), own=entry.replica in kin.hubs)
        if adopting:
            found = found.adopted()
        due = found.due if adopting else self._permitted(connection, found.due)
        whole = len(due) == len(found.due)
        size = max(1, len(facts))  # as many fit into a block
        how = found.resolution(entry.resolution) if whole else entry.resolution
        return how, self._book_all(connection, due, size)

    def _compare_rides(self, connection: Connection, kin: Kin, done: Adoption, at_ms: int) -> Adoption:
        """What a step has done, and what is due of rides whatever is in quarantine.

        What became of that may be otherwise then.
        """
        projection.catch_up(connection, at_ms)  # with what the step has written
        part = self._coincidences.part(connection, self._key.replica)
        return replace(self._compare_copied(connection, kin, part.moments, done), rides=part)

    def _compare_copied(
        self, connection: Connection, kin: Kin, moments: Collection[Moment], done: Adoption
    ) -> Adoption:
        """What a step has done, and what is due of the rides of these moments that the hub has copied."""
        due = [fact for one in copied_rides(connection, kin, moments) for fact in reckon_ride(*one)]
        written = self._book_all(connection, self._permitted(connection, due), NOMINAL_BLOCK_DELTAS)
        again = [asking(connection, replace(one.change, again=True)) for one in written]
        return replace(
            done,
            facts=done.facts + sum(one.facts for one in written),
            head=written[-1].head if written else done.head,
            changes=[*done.changes, *again],
        )

    def _compare_repeats(self, connection: Connection, kin: Kin, done: Adoption, at_ms: int) -> Adoption:
        """What a step has done, and what is due of rides that several terminals say, or one and a hub.

        Their authors are flagged: somebody has copied their storage.
        """
        projection.catch_up(connection, at_ms)  # with what the step has written
        moments = said_again.some(connection)
        done = self._compare_copied(connection, kin, moments, done)
        rides = repeated_rides(connection, kin, moments, self._repeats_at_once)
        own = self._key.replica
        every = (fact for one in rides for fact in reckon_repeats(one.ride.by(own), one.due))
        due = list(islice(every, self._repeats_at_once))
        permitted = self._permitted(connection, due)
        written = self._book_all(connection, permitted, NOMINAL_BLOCK_DELTAS)
        more = len(due) == self._repeats_at_once
        if not more:
            withheld = {Moment(fact.card, fact.at_ms) for fact in due} if len(permitted) < len(due) else set()
            said_again.done(connection, [one for one in moments if one not in withheld])
        flagged = flags.put(connection, (one for ride in rides for one in ride.suspicions(kin)), at_ms)
        changes = [*done.changes, *(one.change for one in written)]
        if flagged:
            changes.append(Change(0, (), suspects={author for author, _ in flagged}, flags=flagged))
        return replace(
            done,
            facts=done.facts + sum(one.facts for one in written),
            head=written[-1].head if written else done.head,
            changes=changes,
            repeats=bool(permitted or not due) and (more or len(moments) == said_again.AT_ONCE),
            repeats_next=min(2 * self._repeats_at_once, _MOST_REPEATS) if more else FACTS_AT_ONCE,
        )

    def _permitted(self, connection: Connection, due: Sequence[Delta]) -> Sequence[Delta]:
        """Those of these that the hub may write; the log tells of the others, and nothing waits for them.

        An earlier identity may have had a certificate that let it write more.
        """
        limits = self._certificate.limits
        left_minor = limits.allowance_minor - self._chain(connection).credit_minor if due else 0
        permitted = []
        for fact in due:
            credit_minor = max(0, fact.amount_minor)
            if self._certificate.permits(fact.kind, fact.amount_minor) and credit_minor <= left_minor:
                left_minor -= credit_minor
                permitted.append(fact)
        if len(permitted) < len(due):
            _log.error(_WITHHELD, len(due) - len(permitted))
        return permitted

    def _chain(self, connection: Connection) -> Chain:
        """The hub's own, as it is now."""
        own = self._key.replica
        return blocks.chains_of(connection, [own]).get(own, blocks.NO_CHAIN)

    def _book_all(self, connection: Connection, facts: Sequence[Delta], size: int) -> Sequence[_Written]:
        """Write facts as blocks of this size."""
        return [self._book(connection, facts[at : at + size]) for at in range(0, len(facts), size)]

    def _book(self, connection: Connection, facts: Sequence[Delta]) -> _Written:
        """Write the facts as a block of the hub's own."""
        own = self._key.replica
        head, credit_minor = self._chain(connection)
        deltas = [replace(delta, replica=own, seq=seq) for seq, delta in enumerate(facts, head.seq + 1)]
        for delta in deltas:
            if not self._certificate.permits(delta.kind, delta.amount_minor):
                raise NotPermitted(f"the hub may not write a {delta.kind.name} of {delta.amount_minor}")
        block = seal(self._key, self._certificate.fleet, deltas, head.hash)
        columns = contents(block)
        credit_minor += columns.credit_minor()
        self._certificate.check_allowance(credit_minor)
        change = record(connection, [block], [columns], {own: Chain(block.head, credit_minor)}, [own])
        return _Written(len(deltas), block.head, change)


def _facts(entry: Quarantined) -> Sequence[Delta]:
    return blocks.facts_of(entry.block).deltas(entry.replica, entry.first_seq)


def _is_absent(connection: Connection, kin: Kin, entry: Quarantined, facts: Sequence[Delta]) -> bool:
    """Whether the ledger has nothing of a block that came too late.

    One fact tells of most, and quickly. Not where the hub was ever put back, or has part of the block: what
    an earlier identity copied of it may be the others.
    """
    if entry.reason is not RefusalCode.REVOKED or entry.resolution not in (OPEN, SAID):
        return False
    some = facts[-1:] if len(kin.hubs) == 1 else facts
    found = held(connection, kin, some)
    return not any(found.knows(Content.of(fact)) for fact in some)
