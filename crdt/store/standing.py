"""What a hub thinks of an author that comes: whether its storage is older than what it sealed before."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from crdt.facts import ReplicaId
from crdt.frontier import Frontier, Head
from crdt.store.blocks import NO_HEAD, heads_of
from crdt.store.quarantine import is_forked


@dataclass(frozen=True, slots=True)
class HubStanding:
    """An author's chain by the hub's own knowledge."""

    restored: bool  # the author is behind or beside it: it needs a new identity
    ours: Head  # as far as the hub has it, or had it before it was restored itself; seq 0: not at all


def arrival(
    connection: Connection, replica: ReplicaId, frontier: Frontier, mark: Head
) -> tuple[HubStanding, Frontier]:
    """What a hub thinks of an author that names these heads, and its own heads of all of them."""
    heads = heads_of(connection, sorted({replica, *frontier}))
    held = heads.get(replica, NO_HEAD)
    return _judge(connection, held, frontier.get(replica), mark), heads


def _judge(connection: Connection, held: Head, head: Head | None, mark: Head) -> HubStanding:
    """Compare the head that an author names of itself (None: it has none) with the one held and the mark.

    An author that is ahead is fine, unless its head is known to be on a branch that does not count.
    """
    ours = max(held, mark, key=lambda one: one.seq)
    theirs = NO_HEAD if head is None else head
    if theirs.seq > ours.seq:
        return HubStanding(is_forked(connection, theirs.hash), ours)
    return HubStanding(theirs != ours, ours)
