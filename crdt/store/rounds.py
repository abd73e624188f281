"""Which blocks in quarantine are still to be compared with the history, because something came.

Those of a terminal of which facts came, everybody's where they are a hub's, and those that are new. In parts:
a terminal that was replaced may have left many, and none of them may ever be written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import Connection

from crdt.facts import ReplicaId
from crdt.store import quarantine
from crdt.store.kin import Kin
from crdt.store.quarantine import Quarantined

_ALL: Final = (*quarantine.AWAITED, quarantine.OPEN, quarantine.REISSUED, quarantine.UNDONE)


class Search(NamedTuple):
    """Through the blocks of one author of which the same became, by hash."""

    replica: ReplicaId
    resolution: str
    after: bytes = b""  # the last one that was looked at


@dataclass(frozen=True, slots=True)
class Left:
    """What is still to be looked at."""

    searches: Sequence[Search] = ()
    blocks: Sequence[bytes] = ()  # by their hashes

    def __bool__(self) -> bool:
        return bool(self.searches or self.blocks)


class Rounds:
    """Through the blocks of those of whom something came, once each time. For the writer's thread.

    A step that does not become durable has looked at nothing: only `settle` moves on.
    """

    def __init__(self) -> None:
        self._came: set[ReplicaId] = set()  # since the last step
        self._taken: set[ReplicaId] = set()  # before it, and no step that knew of them is durable yet
        self._new: set[bytes] = set()  # blocks in quarantine, of which the same is true
        self._new_taken: set[bytes] = set()
        self._left = Left()

    def look(self, came: Iterable[ReplicaId], blocks: Iterable[bytes] = ()) -> None:
        """Facts of these authors may be here now; and these blocks in quarantine were not looked at yet."""
        self._came.update(came)
        self._new.update(blocks)

    def part(self, connection: Connection, kin: Kin, limit: int) -> tuple[Sequence[Quarantined], Left]:
        """The next entries to look at, and what is left to `settle` with once that is durable."""
        self._taken |= self._came
        self._new_taken |= self._new
        self._came, self._new = set(), set()
        blocks = [*self._left.blocks, *sorted(self._new_taken)]
        found = quarantine.find(connection, blocks[:limit])
        searches = [*self._left.searches, *self._beginning(connection, kin)]
        while searches and len(found) < limit:
            room = limit - len(found)
            some = quarantine.part(connection, *searches[0], room)
            found += some
            searches[:1] = [searches[0]._replace(after=some[-1].hash)] if len(some) == room else []
        return found, Left(searches, blocks[limit:])

    def settle(self, left: Left) -> None:
        """A step is durable."""
        self._left = left
        self._taken, self._new_taken = set(), set()

    def _beginning(self, connection: Connection, kin: Kin) -> list[Search]:
        """Those that have to begin: one under way has seen some of it too early, one that waits has not.

        What came of the hub may be of blocks of which nobody knows that it has copied them, unless it has had
        one identity only: then the notes of it are as old as its chain.
        """
        concerned = kin.concerned(self._taken)
        if not concerned:
            return []
        everything = len(kin.hubs) > 1 and bool(kin.hubs & self._taken)
        searches = [
            Search(replica, resolution)
            for resolution in (_ALL if everything else quarantine.AWAITED)
            for replica in quarantine.authors_with(connection, resolution)
            if replica in concerned
        ]
        waiting = set(self._left.searches)
        return [search for search in searches if search not in waiting]
