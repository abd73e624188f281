"""Which facts are in the ledger again under another identity, found by their content in the history.

Of a terminal, which writes again what it lost; or of the hub, which has adopted them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from crdt.certificate import AuthorCertificate
from crdt.facts import Delta, Kind, ReplicaId
from crdt.revocations import Revocations
from crdt.store import copies, projection, quarantine
from crdt.store.blocks import authors_of
from crdt.store.content import Content
from crdt.store.hub_schema import HISTORY
from crdt.store.kin import Kin, place, places
from crdt.store.moments import Moment
from crdt.store.projection import CONTENT
from crdt.store.quarantine import Quarantined
from crdt.store.reckoning import Held
from crdt.store.resolutions import OPEN, SAID
from crdt.store.said_again import REPEATS

_RIDES: Final = (int(Kind.FARE), int(Kind.REVERSAL))
_SAID_AGAIN: Final = (int(Kind.FARE), *REPEATS)


class Copied(NamedTuple):
    """A ride that the hub has copied, or taken back."""

    ride: Delta
    counts: Held  # how often who has written it, all terminals together
    most: int  # how often the identity of the hub that copied it most often, less what others took back


@dataclass(slots=True)
class Repeated:
    """A ride that terminals have written, or of which the hub has taken one back as written twice."""

    ride: Delta
    said: Counter[ReplicaId] = field(default_factory=Counter)  # how often who has written it, but for the hub
    first: dict[ReplicaId, int] = field(default_factory=dict)  # under which number, or the first of several
    taken: int = 0  # how many are taken back, less those that are reinstated


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


def repeated_rides(connection: Connection, kin: Kin, moments: Collection[Moment]) -> Collection[Repeated]:
    """The rides of these moments, by whoever. The history has to have caught up."""
    found: dict[Content, Repeated] = {}
    for those in projection.about(moments):
        for author, content, times, first in _times(connection, those & HISTORY.c.kind.in_(_SAID_AGAIN)):
            ride = content._replace(kind=Kind.FARE, amount_minor=-abs(content.amount_minor))
            one = found.setdefault(ride, Repeated(ride.by(author)))
            if content.kind is not Kind.FARE:
                one.taken += times if content.kind is Kind.DUPLICATE else -times
            elif author not in kin.hubs:
                one.said[author], one.first[author] = times, first
    return found.values()


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
