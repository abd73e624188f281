"""A merge in one transaction: what is admitted goes into the record, what is evidence into quarantine."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection

from crdt.ledger import MergeReport
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.store import flags, papers, quarantine
from crdt.store.admission import Admitted, Prepared, admit
from crdt.store.authors import Authors
from crdt.store.recording import Change, record


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
        change = record(connection, admitted.blocks, admitted.facts, admitted.moved)
    if admitted.blocks and document is not None:  # an older list may have kept some of them out
        quarantine.take_out(connection, [block.hash for block in admitted.blocks])
    suspects = flags.put(connection, admitted.suspicions, at_ms)
    suspects |= {entry.replica for entry in quarantine.put(connection, admitted.evidence, at_ms)}
    if suspects:
        change = Change(0, ()) if change is None else change
        change = change.about(suspects)
    return Merged(admitted, change)
