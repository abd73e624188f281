"""What a terminal writes again: facts of a chain that gave way, and what a suspended identity left unsealed.

They go into the open segment, with their own times, and are sealed by the identity that writes then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate
from crdt.errors import NotPermitted, RefusalCode
from crdt.facts import MAX_SEQ, CardId, Delta, ReplicaId
from crdt.store import papers, quarantine, segment
from crdt.store.blocks import NO_HEAD, facts_of, stored_blocks
from crdt.store.canonical import Canonical
from crdt.store.content import Content
from crdt.store.evidence import DELIVERED, TOLD
from crdt.store.quarantine import Quarantined
from crdt.store.resolutions import OPEN, REISSUED

_WRITTEN: Final = {OPEN: REISSUED, DELIVERED: TOLD}


class Again(NamedTuple):
    """What becomes of the open segment."""

    gone: Sequence[int]  # the places of rows that the hub has sealed, which ascend
    lost: Sequence[Delta]  # facts that are added, whatever number they had


NOTHING_AGAIN: Final = Again([], [])


def check_permitted(connection: Connection, certificate: AuthorCertificate) -> None:
    """Raise NotPermitted when who takes over may not write a fact of the open segment."""
    for kind, amount_minor in segment.money(connection):
        if not certificate.permits(kind, amount_minor):
            raise NotPermitted(
                f"the new certificate does not allow a {kind.name} of {amount_minor}, of before;"
                " issue one that does"
            )


def cards_at_stake(connection: Connection, replica: ReplicaId, after_seq: int) -> set[CardId]:
    """The cards of all facts that may have to be written again once a chain is conceded from there on."""
    entries = quarantine.entries(connection, replica, reason=RefusalCode.REVOKED)
    blocks = [*stored_blocks(connection, replica, after_seq), *(entry.block for entry in entries)]
    cards = {card for block in blocks for card in facts_of(block).cards.ids}
    return cards | {CardId(row[1]) for row in segment.read(connection)}


def said_here(connection: Connection, hub: Canonical, lives: Iterable[ReplicaId]) -> set[Content]:
    """What these say of those cards in blocks that are held here, count by the newest list, and continue what
    the hub has of them: it may lack those so far. A branch beside that counts nowhere."""
    cut_offs = papers.revocations(connection, hub.listed).cut_offs
    cards: set[CardId] | None = None
    found: set[Content] = set()
    for life in lives:
        cards = cards_at_stake(connection, hub.replica, hub.after_seq) if cards is None else cards
        end = hub.shown.get(life, NO_HEAD)
        for block in stored_blocks(connection, life, end.seq):
            begins = block.header.first_seq, block.header.previous
            follows = end == NO_HEAD or begins == (end.seq + 1, end.hash)
            if not follows or block.last_seq > cut_offs.get(life, MAX_SEQ):
                break
            deltas = facts_of(block).deltas(life, block.header.first_seq)
            found.update(Content.of(delta) for delta in deltas if delta.card in cards)
            end = block.head
    return found


def set_aside(connection: Connection, replica: ReplicaId) -> list[Quarantined]:
    """What a list of revocations took out of the record of a replaced identity: it is written again now."""
    found = [
        entry
        for resolution in _WRITTEN
        for entry in quarantine.entries(connection, replica, resolution, reason=RefusalCode.REVOKED)
    ]
    return sorted(found, key=lambda entry: entry.first_seq)


def resolve(connection: Connection, aside: Iterable[Quarantined]) -> None:
    """Note of these that they are written again."""
    for before, after in _WRITTEN.items():
        quarantine.resolve(connection, [entry.hash for entry in aside if entry.resolution == before], after)
