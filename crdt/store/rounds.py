"""Which blocks in quarantine are still to be compared with the history, because facts came of their terminal.

In parts: a terminal that was replaced may have left many, and none of them may ever be written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection

from crdt.facts import ReplicaId
from crdt.store import quarantine
from crdt.store.kin import Kin
from crdt.store.quarantine import Quarantined

_LOOKED_FOR: Final = (quarantine.ADOPTED, quarantine.SAID)


class Search(NamedTuple):
    """Through the blocks of one author of which the same became, by hash."""

    replica: ReplicaId
    resolution: str
    after: bytes = b""  # the last one that was looked at


class Rounds:
    """Through the blocks of those of whom something came, once each time. For the writer's thread.

    A step that does not become durable has looked at nothing: only `settle` moves on.
    """

    def __init__(self) -> None:
        self._came: set[ReplicaId] = set()  # since the last step
        self._taken: set[ReplicaId] = set()  # before it, and no step that knew of them is durable yet
        self._left: Sequence[Search] = ()

    def look(self, came: Iterable[ReplicaId]) -> None:
        """Facts, or blocks in quarantine, of these authors may be here now."""
        self._came.update(came)

    def part(
        self, connection: Connection, kin: Kin, limit: int
    ) -> tuple[Sequence[Quarantined], Sequence[Search]]:
        """The next entries to look at, and what is left to `settle` with once that is durable."""
        self._taken |= self._came
        self._came = set()
        left = [*self._left, *self._new(connection, kin)]
        found: list[Quarantined] = []
        while left and len(found) < limit:
            room = limit - len(found)
            some = quarantine.part(connection, *left[0], room)
            found += some
            left[:1] = [left[0]._replace(after=some[-1].hash)] if len(some) == room else []
        return found, left

    def settle(self, left: Sequence[Search]) -> None:
        """A step is durable."""
        self._left = left
        self._taken = set()

    def _new(self, connection: Connection, kin: Kin) -> list[Search]:
        """Those that have to begin: one under way has seen some of it too early, one that waits has not."""
        concerned = kin.concerned(self._taken)
        if not concerned:
            return []
        searches = [
            Search(replica, resolution)
            for resolution in _LOOKED_FOR
            for replica in quarantine.authors_with(connection, resolution)
            if replica in concerned
        ]
        waiting = set(self._left)
        return [search for search in searches if search not in waiting]
