"""What of a terminal's quarantine the hub has: it goes up once, and again to a hub that was put back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from sqlalchemy import Connection

from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from crdt.store import quarantine
from crdt.store.quarantine import Quarantined
from crdt.store.resolutions import OPEN, REISSUED
from crdt.store.schema import QUARANTINE

DELIVERED: Final = "delivered"  # of a block in quarantine: the hub has it too
TOLD: Final = "told"  # the same, of one whose facts were written again
_MARKS: Final = ((OPEN, DELIVERED), (REISSUED, TOLD))


def undelivered(connection: Connection, limit: int, but: Collection[ReplicaId]) -> list[Quarantined]:
    """Blocks in quarantine that the hub was not sent yet, of others than these."""
    found: list[Quarantined] = []
    for resolution, _ in _MARKS:
        if not but:
            found += quarantine.entries(connection, resolution=resolution, limit=limit - len(found))
            continue
        for author in sorted(set(quarantine.authors_with(connection, resolution)) - set(but)):
            found += quarantine.entries(connection, author, resolution, limit - len(found))
    return found


def delivered(connection: Connection, hashes: Collection[bytes]) -> None:
    """The hub has these blocks in quarantine now."""
    found = quarantine.find(connection, hashes)
    for before, after in _MARKS:
        quarantine.resolve(connection, [entry.hash for entry in found if entry.resolution == before], after)


def reissued(connection: Connection, own: Iterable[ReplicaId]) -> list[bytes]:
    """Hashes of the blocks of these replicas that a concession took out of the record.

    Not of those that somebody brought later, of a branch that this storage never had: they are in quarantine
    as well, and nobody has written them again.
    """
    return [
        entry.hash
        for replica in sorted(own)
        for entry in quarantine.entries(connection, replica, reason=RefusalCode.FORK_DETECTED)
        if entry.resolution in (REISSUED, TOLD)
    ]


def forgotten(connection: Connection) -> None:
    """The hub was put back from a backup: whatever it had may be missing there now."""
    for before, after in _MARKS:
        here = QUARANTINE.c.resolution == after
        connection.execute(QUARANTINE.update().where(here).values(resolution=before))
