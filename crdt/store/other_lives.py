"""Other lives of a terminal: identities of it that this storage does not know, for it was copied or put back.

What an identity wrote that was replaced counts here until its terminal writes again what the hub lacks. Only
then it is compared with what those have written (concession_plan.py); until then a fact that one of them says
as well counts once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate
from crdt.facts import Delta, ReplicaId
from crdt.frontier import Frontier
from crdt.store import segment
from crdt.store.blocks import NO_HEAD, authors_of, facts_of, heads_of, stored_blocks
from crdt.store.content import Content
from crdt.store.identities import own_replicas, writer_replaced


class Repeated(NamedTuple):
    """What does not count of chains that are held."""

    lives: AbstractSet[ReplicaId] = frozenset()  # whose
    facts: AbstractSet[Content] = frozenset()  # if they say it

    def left_of(self, facts: Iterable[Delta]) -> list[Delta]:
        """The others of these facts of one of the lives."""
        return [fact for fact in facts if Content.of(fact) not in self.facts]


NOTHING_REPEATED: Final = Repeated()


def other_lives(
    connection: Connection, writer: ReplicaId, among: Iterable[AuthorCertificate] | None = None
) -> set[ReplicaId]:
    """Those of whom something is held, or of these authors, that are other lives of who writes here."""
    authors = authors_of(connection, list(heads_of(connection))).values() if among is None else among
    terminal = authors_of(connection, [writer])[writer].terminal
    return {one.replica for one in authors if one.terminal == terminal} - own_replicas(connection)


def is_repeated(connection: Connection, by: Collection[AuthorCertificate] | None = None) -> bool:
    """Whether another life, of all held or of these authors, may repeat what is written here."""
    writer = None if by is not None and not by else writer_replaced(connection)
    return writer is not None and bool(other_lives(connection, writer, by))


def repeated(
    connection: Connection, settled: Frontier, by: Iterable[AuthorCertificate] | None = None
) -> Repeated:
    """What other lives, of all held or of these authors, may repeat of what is beyond these settled heads."""
    writer = writer_replaced(connection)
    lives = set() if writer is None else other_lives(connection, writer, by)
    if writer is None or not lives:
        return NOTHING_REPEATED
    sealed = (
        delta
        for block in stored_blocks(connection, writer, settled.get(writer, NO_HEAD).seq)
        for delta in facts_of(block).deltas(writer, block.header.first_seq)
    )
    unsealed = (Content.of_row(row[1:]) for row in segment.read(connection))
    return Repeated(lives, frozenset([*map(Content.of, sealed), *unsealed]))
