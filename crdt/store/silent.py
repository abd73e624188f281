"""Former identities of which nobody can tell what they wrote last: their storage was lost, or is elsewhere.

The hub holds the beginning of their chains. What they wrote since they were last heard is known when it is
brought, or an operator gives it up: see `expectations`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate, Role
from crdt.facts import ReplicaId, TerminalId
from crdt.revocations import Revocations
from crdt.store import expectations, quarantine
from crdt.store.blocks import NO_HEAD, heads_of
from crdt.store.expectations import NOTHING_EXPECTED


@dataclass(frozen=True, slots=True)
class Silent:
    """Where a former identity ends as far as anybody knows."""

    replica: ReplicaId
    held_seq: int  # the number of its last fact that is here; 0: none is
    heard_ms: int  # when it last said all it had; 0: never


def silent(
    connection: Connection, authors: Mapping[ReplicaId, AuthorCertificate], revocations: Revocations
) -> list[Silent]:
    """Those of the whole ledger, by replica."""
    terminals: defaultdict[TerminalId, list[ReplicaId]] = defaultdict(list)
    for replica, author in authors.items():
        if author.role is Role.TERMINAL:
            terminals[author.terminal].append(replica)
    former = [replicas for replicas in terminals.values() if len(replicas) > 1]  # of the others, none is
    known = expectations.read(connection, list(chain.from_iterable(former)))
    found = []
    for replicas in former:
        kin = [known.get(replica, NOTHING_EXPECTED) for replica in replicas]
        found += [replica for replica, one in zip(replicas, kin, strict=True) if one.is_silent(kin)]
    heads = heads_of(connection, found)
    rows = []
    for replica in sorted(found):
        held_seq = heads.get(replica, NO_HEAD).seq
        if replica in revocations.replaced:  # what is in quarantine of it is here, as in `completeness`
            held_seq = quarantine.examined(connection, replica, held_seq)
        rows.append(Silent(replica, held_seq, known.get(replica, NOTHING_EXPECTED).heard_ms))
    return [row for row in rows if not revocations.ends(row.replica, row.held_seq)]
