"""Which facts are in the ledger again under another identity, found by their content in the history.

Of a terminal, which writes again what it lost; or of the hub, which has adopted them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, case, func, select

from crdt.certificate import AuthorCertificate
from crdt.errors import RefusalCode
from crdt.facts import Delta, Kind, ReplicaId
from crdt.revocations import Revocations
from crdt.store import copies, projection, quarantine
from crdt.store.admission import Suspicion
from crdt.store.blocks import authors_of
from crdt.store.content import Content
from crdt.store.hub_schema import HISTORY
from crdt.store.kin import Kin, place, places
from crdt.store.moments import Moment
from crdt.store.projection import CONTENT
from crdt.store.quarantine import Quarantined
from crdt.store.reckoning import Held
from crdt.store.resolutions import OPEN, SAID
from crdt.store.said_again import OF_RIDES

_RIDES: Final = (int(Kind.FARE), int(Kind.REVERSAL))
_COPIED: Final = (
    "Its ride {seq} is in the chain of {name} ({other}) too: storage was copied, a key stolen, or the hub has"
    " lost a list that ended one of the two. Each such ride counts once."
)


class Copied(NamedTuple):
    """A ride that the hub has copied, or taken back."""

    ride: Delta
    counts: Held  # how often who has written it, all terminals together
    most: int  # how often the identity of the hub that copied it most often, less what others took back


class Repeated(NamedTuple):
    """A ride that several authors say and that counts more than once by now, or too few times."""

    ride: Content
    due: int  # how many are to be taken back; below zero, how many to be reinstated
    said: Mapping[ReplicaId, int]  # by which terminals' authors, and the first number under which

    def suspicions(self, kin: Kin) -> Iterator[Suspicion]:
        """What the operator should know of who says it, where one is taken back; each hears of another."""
        by = sorted(self.said) if self.due > 0 and len(self.said) > 1 else []
        for author, other in zip(by, [*by[1:], *by[:1]], strict=True):
            name, seq = kin.authors[other].name, self.said[author]
            sentence = _COPIED.format(seq=seq, name=name, other=other.hex()[:8])
            yield Suspicion(author, RefusalCode.RESTORED, seq, sentence)


class _Times(NamedTuple):
    """How often an author has written the same."""

    author: ReplicaId
    content: Content
    times: int
    first: int  # the first of their numbers


def held(connection: Connection, kin: Kin, facts: Collection[Delta]) -> Held:
    """How often the ledger has what these facts of a block say. The history has to have caught up.

    By terminals and by identities of the hub. And how often it has what takes one of them back.
    """
    found = Held()
    said = {Content.of(fact) for fact in facts}
    said |= {content.back for content in said if content.may_be_taken_back}
    for author, content, times, _ in _times_of(connection, said):
        count = found.hubs if author in kin.hubs else found.theirs
        count[content] += times
    return found


def copied_rides(connection: Connection, kin: Kin, moments: Collection[Moment]) -> Iterator[Copied]:
    """The rides of these moments that the hub has copied or taken back. The history has to have caught up."""
    counts, rides, by = Held(), dict[Content, Delta](), Counter[tuple[ReplicaId, Content]]()
    of_hubs = HISTORY.c.kind.in_(_RIDES) & HISTORY.c.replica.in_(sorted(kin.hubs))
    for those in projection.about(moments):
        for hub, content, times, _ in _times(connection, those & of_hubs):
            counts.hubs[content] += times
            by[hub, content] += times
            copied = content._replace(kind=Kind.FARE, amount_minor=-abs(content.amount_minor))
            rides.setdefault(copied, copied.by(hub))
    for author, content, times, _ in _times_of(connection, rides):
        if author not in kin.hubs:
            counts.theirs[content] += times
    for content, ride in rides.items():
        # An identity that knew only of what others had taken back has written so many more to make up for it.
        backs = counts.hubs[content.back]
        yield Copied(ride, counts, max(by[hub, content] + by[hub, content.back] - backs for hub in kin.hubs))


def repeated_rides(
    connection: Connection, kin: Kin, moments: Collection[Moment], most: int
) -> list[Repeated]:
    """At most so many of these rides of some moments. The history has to have caught up.

    The database counts, and gives no others: of a moment there may be any number.
    """
    due: dict[Content, int] = {}
    for those in projection.about(moments):
        query = _unbalanced(those, kin.hubs).limit(most - len(due))
        for *row, number in connection.execute(query):
            card, at_ms, amount_minor, *place = row
            due[Content.of_row((card, Kind.FARE, -amount_minor, at_ms, *place))] = int(number)
    said: defaultdict[Content, dict[ReplicaId, int]] = defaultdict(dict)
    for author, content, _, first in _times_of(connection, due):
        if author not in kin.hubs:
            said[content][author] = first
    return [Repeated(content, number, said[content]) for content, number in due.items()]


def is_awaited(
    connection: Connection,
    authors: Mapping[ReplicaId, AuthorCertificate],
    writers: Collection[ReplicaId],
) -> bool:
    """Whether one of these terminals, of whom facts came, may have written again what lies in quarantine.

    What is noted as adopted from it, or from one with a copy of its storage, or as said to come. `authors`:
    all that are known here, with those of `writers`.
    """
    awaited = quarantine.awaited(connection)
    if not awaited:
        return False
    unknown = [replica for replica in awaited if replica not in authors]  # another process enrolled them
    known = [authors[replica] for replica in awaited if replica in authors]
    theirs = places((*known, *authors_of(connection, unknown).values()), copies.pairs(connection))
    return any(place(authors[replica]) in theirs for replica in writers)


def coming_again(entries: Iterable[Quarantined], revocations: Revocations) -> list[Quarantined]:
    """Entries for the quarantine; those of identities whose terminal writes them again by itself say so."""
    rewritten = revocations.written_again
    return [replace(one, resolution=SAID) if one.replica in rewritten else one for one in entries]


def note_coming_again(connection: Connection, revocations: Revocations) -> list[ReplicaId]:
    """The same of what is in quarantine already; of whom something was noted."""
    open_ = quarantine.authors_with(connection, OPEN)
    authors = [replica for replica in open_ if replica in revocations.written_again]
    for replica in authors:
        hashes = [entry.hash for entry in quarantine.entries(connection, replica, OPEN)]
        quarantine.resolve(connection, hashes, SAID)
    return authors


def _times_of(connection: Connection, contents: Collection[Content]) -> Iterator[_Times]:
    """How often each author has written each of these."""
    for those in projection.saying(contents):
        yield from _times(connection, those)


def _unbalanced(those: ColumnElement[bool], hubs: AbstractSet[ReplicaId]) -> Select[Any]:
    """Of rows of the history: rides, by card, time, fare and place, and how many are to be taken back.

    An author's word counts once, for a reader takes no two: what a thief says any number of times makes the
    hub write no more than one for each of his identities.
    """
    table = HISTORY.c
    place = (column for column in CONTENT if column.name not in ("card", "at_ms", "kind", "amount_minor"))
    fare = func.abs(table.amount_minor).label("fare")
    ride = (table.card, table.at_ms, fare, *place)
    is_hubs = table.replica.in_(sorted(hubs))
    is_said = ~is_hubs & (table.kind == int(Kind.FARE))
    taken = case(
        (is_hubs & (table.kind == int(Kind.DUPLICATE)), 1),
        (is_hubs & (table.kind == int(Kind.REINSTATED)), -1),
        else_=0,
    )
    by_author = (
        select(*ride, func.max(case((is_said, 1), else_=0)).label("said"), func.sum(taken).label("taken"))
        .where(those, table.kind.in_(OF_RIDES))
        .group_by(table.replica, *ride)
        .subquery()
    ).c
    of_ride = [by_author[column.name] for column in ride]
    due = func.sum(by_author.said) - func.max(by_author.said) - func.sum(by_author.taken)
    return select(*of_ride, due).group_by(*of_ride).having(due != 0)


def _times(connection: Connection, those: ColumnElement[bool]) -> Iterator[_Times]:
    """How often each author has written what these rows of the history say.

    The database counts: a terminal may have written any number of facts of one card and moment.
    """
    query = (
        select(HISTORY.c.replica, func.count(), func.min(HISTORY.c.seq), *CONTENT)
        .where(those)
        .group_by(HISTORY.c.replica, *CONTENT)
    )
    for author, times, first, *row in connection.execute(query):
        yield _Times(ReplicaId(author), Content.of_row(row), times, first)
