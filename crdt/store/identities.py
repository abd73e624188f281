"""Who writes on this storage, and who did before."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from crdt.facts import ReplicaId
from crdt.store import papers
from crdt.store.statement import Statement
from crdt.store.terminal_schema import IDENTITY, TERMINAL

_WRITER: Final = Statement(select(TERMINAL.c.replica))
_SUSPENDED: Final = Statement(select(TERMINAL.c.suspended))
_IDENTITIES: Final = Statement(select(IDENTITY.c.replica))


def own_replicas(connection: Connection) -> set[ReplicaId]:
    """The identities that ever wrote to this ledger."""
    return {ReplicaId(replica) for (replica,) in _IDENTITIES.rows(connection)}


def is_suspended(connection: Connection) -> bool:
    """Whether nothing is sealed until a new identity takes over."""
    return bool(_SUSPENDED.value(connection))


def writer_replaced(connection: Connection) -> ReplicaId | None:
    """Who writes here, where a list of revocations says that its terminal goes on as another identity, since
    its storage was put back; else None."""
    if not is_suspended(connection):
        return None
    writer = ReplicaId(_WRITER.value(connection))
    return writer if writer in papers.revocations(connection).replaced else None
