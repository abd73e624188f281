"""What lists show of the quarantine, read without the blocks themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, select

from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from crdt.store.resolutions import UNRESOLVED
from crdt.store.schema import QUARANTINE

_LISTED: Final = select(
    *(QUARANTINE.c[name] for name in ("hash", "replica", "first_seq", "last_seq", "reason", "resolution")),
    QUARANTINE.c.noted_ms,
    QUARANTINE.c.amount_minor,
    func.length(QUARANTINE.c.counted),  # SQLite reads all of the block to say whether it is NULL
)
_UNRESOLVED: Final = QUARANTINE.c.resolution.in_(sorted(UNRESOLVED))


@dataclass(frozen=True, slots=True)
class Listed:
    """What a list shows of a block in quarantine, read without the block."""

    hash: bytes
    replica: ReplicaId
    first_seq: int
    last_seq: int
    reason: RefusalCode
    resolution: str
    noted_ms: int
    amount_minor: int  # of all its facts
    proven: bool  # the block that it contradicts is kept beside it


def listed(connection: Connection, limit: int, offset: int = 0) -> list[Listed]:
    """Some for a list: unresolved ones before the others, each by replica and number."""
    query = _LISTED.order_by(~_UNRESOLVED, QUARANTINE.c.replica, QUARANTINE.c.first_seq, QUARANTINE.c.hash)
    return [_listed(row) for row in connection.execute(query.limit(limit).offset(offset))]


def listed_one(connection: Connection, hash_: bytes) -> Listed | None:
    """What a list shows of this block; None when it is not in quarantine."""
    row = connection.execute(_LISTED.where(QUARANTINE.c.hash == hash_)).one_or_none()
    return None if row is None else _listed(row)


def undecided(connection: Connection, replica: ReplicaId) -> list[Listed]:
    """A replica's blocks whose facts the ledger lacks, as far as is known, by number."""
    query = _LISTED.where(QUARANTINE.c.replica == replica, _UNRESOLVED)
    return [_listed(row) for row in connection.execute(query.order_by(QUARANTINE.c.first_seq))]


def count(connection: Connection) -> int:
    """How many blocks there are."""
    return int(connection.execute(select(func.count()).select_from(QUARANTINE)).scalar_one())


def count_unresolved(connection: Connection) -> int:
    """How many blocks there are whose facts the ledger lacks, as far as is known."""
    query = select(func.count()).select_from(QUARANTINE).where(_UNRESOLVED)
    return int(connection.execute(query).scalar_one())


def _listed(row: Sequence[Any]) -> Listed:
    hash_, replica, first, last, reason, resolution, noted_ms, amount_minor, counted_bytes = row
    return Listed(
        hash_,
        ReplicaId(replica),
        first,
        last,
        RefusalCode(reason),
        resolution,
        noted_ms,
        amount_minor,
        bool(counted_bytes),
    )
