"""Other lives of a terminal: identities of it that this storage does not know, for it was copied or put back.

What an identity wrote that was replaced counts here until its terminal writes again what the hub lacks. Only
then it is compared with what those have written (concession_plan.py); until then a fact that one of them says
as well counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate
from crdt.columns import Columns
from crdt.facts import CardId, Delta, ReplicaId
from crdt.frontier import Frontier
from crdt.store import segment
from crdt.store.blocks import NO_HEAD, authors_of, facts_of, heads_of, stored_blocks
from crdt.store.content import Content
from crdt.store.identities import own_replicas, replaced_here


class Repeated(NamedTuple):
    """What does not count of chains that are held."""

    lives: AbstractSet[ReplicaId] = frozenset()  # whose
    facts: AbstractSet[Content] = frozenset()  # if they say it

    def left_of(self, facts: Iterable[Delta]) -> list[Delta]:
        """The others of these facts of one of the lives."""
        return [fact for fact in facts if Content.of(fact) not in self.facts]


NOTHING_REPEATED: Final = Repeated()


def lives_of_replaced(
    connection: Connection, among: Iterable[AuthorCertificate] | None = None
) -> set[ReplicaId]:
    """Other lives of who was replaced here: those of whom something is held, or of these authors."""
    replaced = replaced_here(connection)
    return _lives(connection, replaced, among) if replaced else set()


def written(connection: Connection, settled: Frontier) -> AbstractSet[Content]:
    """What who was replaced here has written beyond these settled heads, which they may say again."""
    replaced = replaced_here(connection)
    return _written(connection, replaced, settled, None) if replaced else frozenset()


def repeated(connection: Connection, settled: Frontier) -> Repeated:
    """What those held say again of it."""
    replaced = replaced_here(connection)
    lives = _lives(connection, replaced) if replaced else set()
    if not lives:
        return NOTHING_REPEATED
    said: set[tuple[CardId, int]] = set()
    for life in lives:
        for block in stored_blocks(connection, life, settled.get(life, NO_HEAD).seq):
            said.update(_moments(facts_of(block)))
    return Repeated(lives, _written(connection, replaced, settled, said))


def _lives(
    connection: Connection,
    replaced: Iterable[ReplicaId],
    among: Iterable[AuthorCertificate] | None = None,
) -> set[ReplicaId]:
    """Those of the same terminals: it may have been paired under another name since."""
    authors = authors_of(connection, list(heads_of(connection))).values() if among is None else among
    terminals = {one.terminal for one in authors_of(connection, list(replaced)).values()}
    return {one.replica for one in authors if one.terminal in terminals} - own_replicas(connection)


def _written(
    connection: Connection,
    replaced: Iterable[ReplicaId],
    settled: Frontier,
    moments: AbstractSet[tuple[CardId, int]] | None,
) -> AbstractSet[Content]:
    """`moments`: cards and times; only blocks and open facts with one of them, as there are many others."""
    found: set[Content] = set()
    for one in replaced:
        for block in stored_blocks(connection, one, settled.get(one, NO_HEAD).seq):
            columns = facts_of(block)
            if moments is None or not moments.isdisjoint(_moments(columns)):
                found.update(map(Content.of, columns.deltas(one, block.header.first_seq)))
    for row in segment.read(connection):
        if moments is None or (row[1], row[4]) in moments:
            found.add(Content.of_row(row[1:]))
    return frozenset(found)


def _moments(columns: Columns) -> Iterator[tuple[CardId, int]]:
    return zip(columns.cards.values(), columns.times.values(), strict=True)
