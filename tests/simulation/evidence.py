"""What a hub keeps beside its ledger: signed blocks that do not count."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from tests.simulation.disks import Disk

_ALL: Final = "SELECT hash, raw, replica, reason, resolution FROM quarantine ORDER BY hash"
_KEPT: Final = """
    SELECT first_seq, last_seq FROM block WHERE replica = ?
    UNION SELECT first_seq, last_seq FROM quarantine WHERE replica = ? AND reason = 9
"""


class Evidence:
    """On one hub's disk. `replaced`: identities that ended because old storage was put back."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def adoptable(self, replaced: AbstractSet[ReplicaId]) -> dict[bytes, bytes]:
        """The blocks, by hash, that an operator may adopt, or might have."""
        fork = RefusalCode.FORK_DETECTED
        rows = self._disk.rows(_ALL)
        return {hash_: raw for hash_, raw, replica, why, _ in rows if why == fork or replica in replaced}

    def undecided(self, replaced: AbstractSet[ReplicaId]) -> list[bytes]:
        """The hashes of those that nobody is known to have written again."""
        here = {row[0] for row in self._disk.rows(_ALL) if row[-1] in ("", "said")}
        return sorted(here & self.adoptable(replaced).keys())

    def is_of(self, replica: ReplicaId) -> bool:
        """Whether there is anything that this author signed."""
        return bool(self._disk.rows("SELECT 1 FROM quarantine WHERE replica = ? LIMIT 1", replica))

    def hashes(self) -> set[bytes]:
        """Of all blocks that are here, those that count too."""
        rows = self._disk.rows("SELECT hash FROM block UNION SELECT hash FROM quarantine")
        return {hash_ for (hash_,) in rows}

    def end(self, replica: ReplicaId, cut_off: int) -> int:
        """Where the chain ends that is held and does not go beyond, with what waits in quarantine."""
        end = 0
        for first, last in sorted(self._disk.rows(_KEPT, replica, replica)):
            end = last if first == end + 1 and last <= cut_off else end
        return end
