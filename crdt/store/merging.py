"""A merge in one transaction: what is admitted goes into the record, what is evidence into quarantine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Connection

from crdt.certificate import Role
from crdt.errors import RefusalCode
from crdt.ledger import MergeReport
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.store import expectations, flags, papers, quarantine
from crdt.store.admission import Admitted, Prepared, Suspicion, admit
from crdt.store.authors import Authors
from crdt.store.comparing import asking
from crdt.store.kin import hubs_among
from crdt.store.quarantine import Quarantined
from crdt.store.recording import Change, record
from crdt.store.resolutions import SAID
from crdt.store.rewriting import coming_again, is_awaited


class Merged(NamedTuple):
    """What a merge's transaction did."""

    admitted: Admitted
    change: Change | None  # None: nothing that anybody would see

    @property
    def report(self) -> MergeReport:
        """What to tell who gave the blocks."""
        admitted = self.admitted
        return MergeReport(tuple(admitted.blocks), admitted.known, tuple(admitted.refused), admitted.heads)


def merge_prepared(connection: Connection, authors: Authors, prepared: Prepared, at_ms: int) -> Merged:
    """Admit, record, and keep the evidence. `at_ms`: the hub's clock, for when evidence was noted."""
    document = papers.get_document(connection, REVOKED_DOCUMENT)
    revocations = NONE_REVOKED if document is None else Revocations.decode(document.body)
    admitted = admit(connection, authors, prepared, revocations=revocations)
    change = None
    if admitted.blocks:
        hubs = hubs_among(admitted.moved, authors.seen)
        change = record(connection, admitted.blocks, admitted.facts, admitted.moved, hubs)
        change = replace(change, again=bool(hubs) or is_awaited(connection, authors.seen, admitted.moved))
    if admitted.blocks and document is not None:  # an older list may have kept some of them out
        quarantine.take_out(connection, [block.hash for block in admitted.blocks])
    if admitted.ahead:
        expectations.prove(connection, admitted.ahead, at_ms)
    kept = _keep(connection, authors, revocations, coming_again(admitted.evidence, revocations), at_ms)
    new = flags.put(connection, [*admitted.suspicions, *_too_many(connection, admitted)], at_ms)
    suspects = {replica for replica, _ in new} | {entry.replica for entry in kept}
    if suspects:
        change = Change(0, ()) if change is None else change
        change = change.about(suspects, new)
    if change is not None:
        change = asking(connection, replace(change, evidence=_to_compare(authors, kept)))
    return Merged(admitted, change)


def _keep(
    connection: Connection,
    authors: Authors,
    revocations: Revocations,
    evidence: Iterable[Quarantined],
    at_ms: int,
) -> list[Quarantined]:
    """Put it into quarantine; returns what was kept.

    Other branches of a hub's chain have no share to fill, but for what follows its cut-off. They are what a
    hub that was put back has lost: who kept them for it drops them once they are refused as a fork, and only
    a hub of the fleet can have signed them.
    """
    lost, other = list[Quarantined](), list[Quarantined]()
    for entry in evidence:
        is_hub = authors.seen[entry.replica].role is Role.HUB
        stands = entry.last_seq <= revocations.cut_offs.get(entry.replica, entry.last_seq)
        (lost if is_hub and stands else other).append(entry)
    kept = quarantine.put(connection, lost, at_ms, bounded=False)
    if other:  # for whose shares everybody who is enrolled may have to be read
        kept += quarantine.put(connection, other, at_ms, authors.every(connection))
    return kept


def _to_compare(authors: Authors, kept: Iterable[Quarantined]) -> list[bytes]:
    """Of what was kept, the blocks of which facts may be here.

    Their terminal was replaced, or the hub has had another identity, which may have adopted them.
    """
    put_back = len(authors.hubs) > 1
    return [entry.hash for entry in kept if put_back or entry.resolution == SAID]


def _too_many(connection: Connection, admitted: Admitted) -> list[Suspicion]:
    """Authors of whom evidence was not kept, because their share of the quarantine is full."""
    held = quarantine.hashes_in(connection, [entry.hash for entry in admitted.evidence])
    sentence = (
        "Its blocks that do not count fill its share of the quarantine: no more of its blocks are kept as"
        " evidence, and none of them counts. Look at the terminal."
    )
    return [
        Suspicion(entry.replica, RefusalCode.TOO_LARGE, entry.first_seq, sentence)
        for entry in admitted.evidence
        if entry.hash not in held
    ]
