"""A new list of revoked authors: what they wrote beyond their cut-offs leaves the balances, or comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Connection

from crdt.block import Block
from crdt.errors import RefusalCode
from crdt.facts import MAX_SEQ
from crdt.revocations import Revocations
from crdt.store import balances, blocks, claims, projection, quarantine
from crdt.store.admission import Admitted, Candidate, Prepared, admit
from crdt.store.authors import Authors
from crdt.store.kin import hubs_among
from crdt.store.quarantine import Quarantined
from crdt.store.recording import Change, record
from crdt.store.rewriting import is_awaited, note_coming_again


class Applied(NamedTuple):
    """What a new list changed."""

    changes: Sequence[Change]
    removed: Sequence[Block]  # they left the record
    returned: Sequence[Block]  # they are in it again


def apply_revocations(
    connection: Connection, authors: Authors, revocations: Revocations, at_ms: int
) -> Applied:
    """Make the record what it would be if this list had always held. `at_ms`: the hub's clock."""
    changes: list[Change] = []
    claims.drop_of_revoked(connection, authors.every(connection), revocations)
    removed = _beyond(connection, revocations)
    if removed:
        changes.append(_remove(connection, revocations, at_ms))
    admitted = _readmit(connection, authors, revocations, at_ms)
    if admitted.blocks:
        hubs = hubs_among(admitted.moved, authors.seen)
        change = record(connection, admitted.blocks, admitted.facts, admitted.moved, hubs)
        again = bool(hubs) or is_awaited(connection, authors.seen, admitted.moved)
        changes.append(replace(change, again=again))
    coming = note_coming_again(connection, revocations)
    if coming:
        changes.append(Change(0, (), suspects=coming, again=True))
    return Applied(changes, removed, admitted.blocks)


def _beyond(connection: Connection, revocations: Revocations) -> list[Block]:
    heads = blocks.heads_of(connection, list(revocations.cut_offs))
    return [
        block
        for replica, head in sorted(heads.items())
        if head.seq > revocations.cut_offs[replica]
        for block in blocks.stored_blocks(connection, replica, revocations.cut_offs[replica])
    ]


def _remove(connection: Connection, revocations: Revocations, at_ms: int) -> Change:
    """Take what lies beyond the cut-offs out of record, history and balances, into quarantine."""
    projection.catch_up(connection, at_ms)  # the history then says what of a card is left
    position = balances.next_position(connection)
    removed: list[Block] = []
    for replica, seq in sorted(revocations.cut_offs.items()):
        removed += blocks.cut_off(connection, replica, seq, position)
    loss = balances.Gain()
    for block in removed:
        loss.add(blocks.facts_of(block))
    projection.forget(connection, removed, at_ms)
    balances.take_back(connection, loss, position)
    evidence = [Quarantined.of(block, RefusalCode.REVOKED) for block in removed]
    quarantine.put(connection, evidence, at_ms, bounded=False)
    replicas = {block.header.replica for block in removed}
    return Change(position, loss.sums.keys(), replicas, suspects=replicas, gone=True)


def _readmit(connection: Connection, authors: Authors, revocations: Revocations, at_ms: int) -> Admitted:
    """Judge anew what is in quarantine only for a revocation that does not hold any more.

    But for what its terminal has still to write again. Of the rest the list decides, whatever was noted.
    """
    entries = [
        entry
        for resolution in (quarantine.OPEN, quarantine.REISSUED, *quarantine.COPIED)
        for replica in quarantine.authors_with(connection, resolution)
        for entry in quarantine.entries(
            connection,
            replica,
            resolution,
            reason=RefusalCode.REVOKED,
            until=revocations.cut_offs.get(replica, MAX_SEQ),
        )
    ]
    authors.learn(connection, [entry.replica for entry in entries])
    candidates = []
    for entry in entries:
        block = entry.block  # verified when it was put there
        candidates.append(Candidate(block, blocks.facts_of(block), authors.seen.get(entry.replica)))
    admitted = admit(connection, authors, Prepared(candidates, [], [], []), revocations=revocations)
    judged = {block.hash for block in admitted.blocks} | {entry.hash for entry in admitted.evidence}
    quarantine.take_out(connection, judged)
    quarantine.put(connection, admitted.evidence, at_ms, bounded=False)  # all of it was there before
    return admitted
