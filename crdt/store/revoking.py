"""A new list of revoked authors: what they wrote beyond their cut-offs leaves the balances, or comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate
from crdt.errors import RefusalCode
from crdt.facts import MAX_SEQ, ReplicaId
from crdt.revocations import Revocations
from crdt.store import blocks, claims, cutting, quarantine
from crdt.store.admission import Admitted, Candidate, Prepared, admit
from crdt.store.authors import Authors
from crdt.store.comparing import asking
from crdt.store.kin import hubs_among
from crdt.store.recording import Change, record
from crdt.store.resolutions import COPIED, OPEN, REISSUED
from crdt.store.rewriting import is_awaited, note_coming_again


class Applied(NamedTuple):
    """What a new list changed."""

    changes: Sequence[Change]
    more: bool  # whether there is more to take out of it: see `cutting`


def apply_revocations(
    connection: Connection, authors: Authors, revocations: Revocations, at_ms: int
) -> Applied:
    """Make the record what it would be if this list, which is stored, had always held: some of what lies
    beyond its cut-offs leaves at once, and what an older one had put into quarantine comes back. `at_ms`: the
    hub's clock."""
    enrolled = authors.every(connection)
    claims.drop_of_revoked(connection, enrolled, revocations)
    interrupted = cutting.is_under_way(connection)
    cutting.begin(connection, revocations)
    cut = cutting.cut_some(connection, at_ms)
    changes = [] if cut.change is None else [cut.change]
    if interrupted and not cut.more:  # then no step may be the last one, and say so
        changes.append(asking(connection, Change(0, (), gone=True)))
    admitted = _readmit(connection, authors, enrolled, revocations, at_ms)
    if admitted.blocks:
        hubs = hubs_among(admitted.moved, enrolled)
        change = record(connection, admitted.blocks, admitted.facts, admitted.moved, hubs)
        again = bool(hubs) or is_awaited(connection, enrolled, admitted.moved)
        changes.append(asking(connection, replace(change, again=again)))
    coming = note_coming_again(connection, revocations)
    if coming:
        changes.append(asking(connection, Change(0, (), suspects=coming, again=True)))
    return Applied(changes, cut.more)


def _readmit(
    connection: Connection,
    authors: Authors,
    enrolled: Mapping[ReplicaId, AuthorCertificate],
    revocations: Revocations,
    at_ms: int,
) -> Admitted:
    """Judge anew what is in quarantine only for a revocation that does not hold any more.

    But for what its terminal has still to write again. Of the rest the list decides, whatever was noted.
    """
    entries = [
        entry
        for resolution in (OPEN, REISSUED, *COPIED)
        for replica in quarantine.authors_with(connection, resolution)
        for entry in quarantine.entries(
            connection,
            replica,
            resolution,
            reason=RefusalCode.REVOKED,
            until=revocations.cut_offs.get(replica, MAX_SEQ),
        )
    ]
    candidates = []
    for entry in entries:
        block = entry.block  # verified when it was put there
        candidates.append(Candidate(block, blocks.facts_of(block), enrolled.get(entry.replica)))
    admitted = admit(connection, authors, Prepared(candidates, [], [], []), revocations=revocations)
    judged = {block.hash for block in admitted.blocks} | {entry.hash for entry in admitted.evidence}
    quarantine.take_out(connection, judged)
    quarantine.put(connection, admitted.evidence, at_ms, bounded=False)  # all of it was there before
    return admitted
