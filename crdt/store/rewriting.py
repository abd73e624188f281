"""Which facts are in the ledger again under another identity, found by their content in the history.

Of their terminal, which writes again what it lost; or of the hub, which has adopted them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, select

from crdt.certificate import AuthorCertificate
from crdt.facts import Delta, Kind, ReplicaId
from crdt.revocations import Revocations
from crdt.store import projection, quarantine
from crdt.store.blocks import authors_of, delta_of
from crdt.store.content import Content
from crdt.store.hub_schema import HISTORY
from crdt.store.kin import Kin, place
from crdt.store.moments import Moment
from crdt.store.quarantine import OPEN, SAID, Quarantined
from crdt.store.reckoning import Held

_RIDES: Final = (int(Kind.FARE), int(Kind.REVERSAL))
_COLUMNS: Final = tuple(column.name for column in HISTORY.columns if column.name != "id")


class Copied(NamedTuple):
    """A ride that the hub has copied, or taken back."""

    ride: Delta
    counts: Held  # how often who has written it, all terminals together
    most: int  # how often the identity of the hub that copied it most often


def held(connection: Connection, kin: Kin, replica: ReplicaId, facts: Collection[Delta]) -> Held:
    """How often the ledger has what these facts of one author's block say. The history has to have caught up.

    By identities of its terminal, of others and of the hub; for a block of the hub's own, by all and the hub.
    """
    found = Held()
    own, identities = replica in kin.hubs, kin.identities(replica)
    for those in projection.about((fact.card, fact.at_ms) for fact in facts):
        for fact in _history(connection, those):
            theirs = found.theirs if own or fact.replica in identities else found.others
            count = found.hubs if fact.replica in kin.hubs else theirs
            count[Content.of(fact)] += 1
    return found


def copied_rides(connection: Connection, kin: Kin, moments: Collection[Moment]) -> Iterator[Copied]:
    """The rides of these moments that the hub has copied or taken back. The history has to have caught up."""
    counts, rides, by = Held(), dict[Content, Delta](), Counter[tuple[ReplicaId, Content]]()
    for those in projection.about(moments):
        for fact in _history(connection, those & HISTORY.c.kind.in_(_RIDES)):
            if fact.replica not in kin.hubs:
                counts.theirs[Content.of(fact)] += 1
                continue
            counts.hubs[Content.of(fact)] += 1
            by[fact.replica, Content.of(fact)] += 1
            ride = replace(fact, kind=Kind.FARE, amount_minor=-abs(fact.amount_minor))
            rides.setdefault(Content.of(ride), ride)
    for content, ride in rides.items():
        yield Copied(ride, counts, max(by[hub, content] for hub in kin.hubs))


def is_awaited(
    connection: Connection,
    authors: Mapping[ReplicaId, AuthorCertificate],
    writers: Collection[ReplicaId],
) -> bool:
    """Whether one of these terminals, of whom facts came, may have written again what lies in quarantine.

    What is noted as adopted from it, or as said to come. `authors`: all that are known here, with those of
    `writers`.
    """
    awaited = quarantine.awaited(connection)
    unknown = [replica for replica in awaited if replica not in authors]  # another process enrolled them
    known = [authors[replica] for replica in awaited if replica in authors]
    places = {place(author) for author in (*known, *authors_of(connection, unknown).values())}
    return any(place(authors[replica]) in places for replica in writers)


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


def _history(connection: Connection, those: ColumnElement[bool]) -> Iterator[Delta]:
    query = select(*(HISTORY.c[name] for name in _COLUMNS)).where(those)
    for writer, seq, *fact in connection.execute(query):
        yield delta_of(writer, seq, tuple(fact))
