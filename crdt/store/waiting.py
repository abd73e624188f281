"""What is waited for: facts of an author that exist somewhere and are not here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from crdt.facts import MAX_SEQ, ReplicaId
from crdt.revocations import Revocations
from crdt.store import claims, expectations, quarantine
from crdt.store.blocks import NO_HEAD, heads_of
from crdt.store.expectations import Expected
from crdt.store.hub_schema import EXPECTED
from crdt.store.schema import HEAD
from crdt.store.statement import Statement

_BEYOND: Final = Statement(  # of a large fleet, a few
    select(EXPECTED.c.replica)
    .join_from(EXPECTED, HEAD, HEAD.c.replica == EXPECTED.c.replica, isouter=True)
    .where(EXPECTED.c.seq > func.coalesce(HEAD.c.seq, 0))
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Facts of an author that exist somewhere and are not here."""

    replica: ReplicaId
    held_seq: int
    expected_seq: int
    since_ms: int
    source: str
    proven: bool = True  # by the author's terminal, a signed block or the marks; else a terminal's mere word
    claimed_seq: int = 0  # how far it goes beyond `expected_seq` by such a word; 0 where none goes further


def waiting(connection: Connection, revocations: Revocations) -> list[Waiting]:
    """What is expected and not held, by replica, with what is only claimed beside it or in its place.

    What a revoked author wrote after its cut-off is not. Of a replaced one nobody decided that, and what is
    in quarantine is here.
    """
    claimed = claims.furthest(connection)
    replicas = sorted(claimed.keys() | {ReplicaId(replica) for (replica,) in _BEYOND.rows(connection)})
    heads, known = heads_of(connection, replicas), expectations.read(connection, replicas)
    found = []
    for replica in replicas:
        held_seq, until = heads.get(replica, NO_HEAD).seq, revocations.cut_offs.get(replica, MAX_SEQ)
        if replica in revocations.replaced:
            held_seq, until = quarantine.examined(connection, replica, held_seq), MAX_SEQ
        named = (one for one in (known.get(replica), claimed.get(replica)) if one is not None)
        beyond = [(min(one.seq, until), one) for one in named if min(one.seq, until) > held_seq]
        if beyond:
            (seq, one), claimed_seq = beyond[0], beyond[-1][0]
            further = claimed_seq if claimed_seq > seq else 0
            proven = isinstance(one, Expected)
            found.append(Waiting(replica, held_seq, seq, one.at_ms, one.source, proven, further))
    return found
