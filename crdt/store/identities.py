"""Who writes on this storage, and who did before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, select

from crdt.facts import MAX_SEQ, ReplicaId
from crdt.revocations import Revocations
from crdt.store import papers
from crdt.store.blocks import overlapping
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


def replaced_here(connection: Connection) -> Mapping[ReplicaId, int]:
    """Of whom a list of revocations says that its terminal goes on as another identity, since its storage was
    put back, and that has not written again what it wrote here; each with its cut-off.

    That is who writes here, or an identity of before, which ended when the terminal was paired anew already.
    """
    if not is_suspended(connection):
        return {}
    listed, writer = papers.revocations(connection), ReplicaId(_WRITER.value(connection))
    found = kept_of_former(connection, listed, writer) | ({writer} & listed.replaced)
    return {replica: listed.cut_offs[replica] for replica in sorted(found)}


def kept_of_former(connection: Connection, listed: Revocations, writer: ReplicaId) -> set[ReplicaId]:
    """The identities before the writer of which blocks are here that this list cuts off, though they have to
    be written again: they were not sent when the next one took over."""
    former = (own_replicas(connection) & listed.written_again) - {writer}
    return {one for one in former if overlapping(connection, one, listed.cut_offs[one] + 1, MAX_SEQ)}
