"""Which blocks in quarantine are still to be compared with the history, because something came.

Those of a terminal of which facts came, and of those with copies of its storage; everybody's where they are a
hub's; and those that are new. In parts: a terminal that was replaced may have left many, and none of them may
ever be written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from sqlalchemy import Connection

from crdt.facts import ReplicaId
from crdt.store import quarantine
from crdt.store.kin import Kin
from crdt.store.quarantine import Quarantined
from crdt.store.resolutions import AWAITED, OPEN, REISSUED, UNDONE

BLOCKS_AT_ONCE: Final = 8  # that a step looks at
FACTS_AT_ONCE: Final = 1_000  # of these together, but for one block alone

_ALL: Final = (*AWAITED, OPEN, REISSUED, UNDONE)


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


def some_of(connection: Connection, blocks: Sequence[bytes]) -> tuple[list[Quarantined], Sequence[bytes]]:
    """The entries of the first of these blocks, so many as a step looks at, and the blocks that are left."""
    found = quarantine.find(connection, blocks[:BLOCKS_AT_ONCE])
    taken = _few(found)
    later = {entry.hash for entry in found[len(taken) :]}
    left = [hash_ for hash_ in blocks[:BLOCKS_AT_ONCE] if hash_ in later]
    return taken, [*left, *blocks[BLOCKS_AT_ONCE:]]


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

    def part(self, connection: Connection, kin: Kin) -> tuple[Sequence[Quarantined], Left]:
        """The next entries to look at, and what is left to `settle` with once that is durable."""
        self._taken |= self._came
        self._new_taken |= self._new
        self._came, self._new = set(), set()
        found, blocks = some_of(connection, [*self._left.blocks, *sorted(self._new_taken)])
        searches = [*self._left.searches, *self._beginning(connection, kin)]
        while searches and len(found) < BLOCKS_AT_ONCE:
            room = BLOCKS_AT_ONCE - len(found)
            some = quarantine.part(connection, *searches[0], room)
            taken = _few([*found, *some])[len(found) :]
            found += taken
            if taken:
                searches[0] = searches[0]._replace(after=taken[-1].hash)
            if len(taken) < len(some):
                break
            if len(some) < room:
                del searches[0]
        return found, Left(searches, blocks)

    def settle(self, left: Left) -> None:
        """A step is durable."""
        self._left = left
        self._taken, self._new_taken = set(), set()

    def _beginning(self, connection: Connection, kin: Kin) -> list[Search]:
        """Those that have to begin: one under way has seen some of it too early, one that waits has not.

        What came of the hub may be of blocks of which nobody has noted that it has copied them.
        """
        concerned = kin.concerned(self._taken)
        if not concerned:
            return []
        everything = bool(kin.hubs & self._taken)
        searches = [
            Search(replica, resolution)
            for resolution in (_ALL if everything else AWAITED)
            for replica in quarantine.authors_with(connection, resolution)
            if replica in concerned
        ]
        waiting = set(self._left.searches)
        return [search for search in searches if search not in waiting]


def _few(entries: Sequence[Quarantined]) -> list[Quarantined]:
    """Their beginning, as far as a step goes by their facts; the first one in any case."""
    sums = accumulate(entry.last_seq - entry.first_seq + 1 for entry in entries)
    return [
        entry
        for at, (entry, facts) in enumerate(zip(entries, sums, strict=True))
        if facts <= FACTS_AT_ONCE or not at
    ]
