"""Which facts are in the ledger again under another identity, found by their content in the history.

Of their terminal, which writes again what it lost; or of the hub, which had adopted them before it was put
back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from sqlalchemy import Connection, select

from crdt.certificate import Role
from crdt.facts import CardId, Context, Delta, ReplicaId
from crdt.revocations import Revocations
from crdt.store import quarantine
from crdt.store.blocks import authors_of, delta_of
from crdt.store.hub_schema import HISTORY
from crdt.store.kin import Kin, place
from crdt.store.quarantine import OPEN, SAID, Quarantined

_CHUNK: Final = 500
_COLUMNS: Final = tuple(column.name for column in HISTORY.columns if column.name != "id")


class Content(NamedTuple):
    """What makes a fact the same under another identity: everything but its author and number.

    The kind does not tell: where the hub may not write one, it books an adjustment of the same amount.
    """

    card: CardId
    amount_minor: int
    at_ms: int
    context: Context

    @classmethod
    def of(cls, delta: Delta) -> Content:
        """A fact's."""
        return cls(delta.card, delta.amount_minor, delta.at_ms, delta.context)


def written(
    connection: Connection,
    kin: Kin,
    replica: ReplicaId,
    facts: Collection[Delta],
    apart_from: Collection[Delta] = (),
) -> set[Content]:
    """The contents of the ledger's facts about the cards of `facts` by this author's terminal or the hub.

    `apart_from`: facts that are not looked at, such as what the hub has adopted itself.
    """
    writers = kin.identities(replica) | kin.hubs
    left_out = {(fact.replica, fact.seq) for fact in apart_from}
    cards = sorted({delta.card for delta in facts})
    found: set[Content] = set()
    for at in range(0, len(cards), _CHUNK):
        query = select(*(HISTORY.c[name] for name in _COLUMNS)).where(
            HISTORY.c.card.in_(cards[at : at + _CHUNK]), HISTORY.c.replica.in_(writers)
        )
        for replica_of, seq, *fact in connection.execute(query):
            if (replica_of, seq) in left_out:
                continue
            found.add(Content.of(delta_of(replica_of, seq, tuple(fact))))
    return found


def is_awaited(connection: Connection, writers: Collection[ReplicaId]) -> bool:
    """Whether one of these may have written again what the hub adopted from its terminal, or was told of; or
    is a hub's identity, which may have adopted it before."""
    awaited = quarantine.awaited(connection)
    if not awaited:
        return False
    authors = authors_of(connection, [*awaited, *writers])
    places = {Role.HUB, *(place(authors[replica]) for replica in awaited)}
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
