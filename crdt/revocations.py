"""Revocations: up to which number a revoked replica's facts count. Signed by the hub, carried by everybody.

What a stolen terminal earned before still counts; what it writes after the cut-off is refused by everybody
who knows the list, whoever carries it. An identity that was replaced after a restore is on the list too: its
terminal goes on under another, which may have written again what lies beyond the cut-off. The list travels as
the body of the document `revoked`.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Self

from crdt.errors import Malformed, MisuseError, Revoked, TooLarge
from crdt.facts import ID_BYTES, MAX_SEQ, ReplicaId
from crdt.frontier import MAX_FRONTIER
from crdt.wire import Reader, Writer

REVOKED_DOCUMENT: Final = "revoked"

_REVOKED: Final = 0  # why a replica is on the list
_REPLACED: Final = 1
_BOTH: Final = 2


@dataclass(frozen=True, slots=True)
class Revocations:
    """The revoked replicas of a fleet, each with its cut-off: the last number that counts, 0 for none.

    `replaced`: those of them that are listed because of a restore: their terminal goes on as another, which
    writes again what they had not sent, unless (`stopped`) it was revoked as well. Then an operator decides.
    """

    cut_offs: Mapping[ReplicaId, int] = field(default_factory=dict)
    replaced: AbstractSet[ReplicaId] = frozenset()
    stopped: AbstractSet[ReplicaId] = frozenset()

    def __post_init__(self) -> None:
        """Keep a read-only copy. Raises MisuseError past MAX_FRONTIER replicas or for a wrong number."""
        if not self.stopped <= self.replaced <= self.cut_offs.keys():
            raise MisuseError(
                "a replica that was replaced has a cut-off, and one that was stopped as well both"
            )
        fits = len(self.cut_offs) <= MAX_FRONTIER and all(
            len(replica) == ID_BYTES and type(seq) is int and 0 <= seq <= MAX_SEQ
            for replica, seq in self.cut_offs.items()
        )
        if not fits:
            raise MisuseError("a cut-off is a number from 0 to 2**48 - 1, of a bounded number of replicas")
        object.__setattr__(self, "cut_offs", MappingProxyType(dict(self.cut_offs)))
        object.__setattr__(self, "replaced", frozenset(self.replaced))
        object.__setattr__(self, "stopped", frozenset(self.stopped))

    @property
    def revoked(self) -> AbstractSet[ReplicaId]:
        """Those that an operator has revoked."""
        return (self.cut_offs.keys() - self.replaced) | self.stopped

    @property
    def written_again(self) -> AbstractSet[ReplicaId]:
        """Those whose terminal writes again by itself what they had not sent."""
        return self.replaced - self.stopped

    def check(self, replica: ReplicaId, last_seq: int) -> None:
        """Raise Revoked when the replica's fact `last_seq` does not count."""
        cut_off = self.cut_offs.get(replica)
        if cut_off is not None and last_seq > cut_off:
            why = "replaced after a restore" if replica in self.replaced else "revoked"
            rest = f"what it wrote after {cut_off} counts only if an operator says so"
            raise Revoked(f"the author was {why}; {rest}")

    def ends(self, replica: ReplicaId, held_seq: int) -> bool:
        """Whether a replica was revoked, and all of it that counts is in a chain of this length.

        Of one that was replaced nobody decided what counts of the rest.
        """
        cut_off = self.cut_offs.get(replica)
        return cut_off is not None and replica not in self.replaced and held_seq >= cut_off

    def with_cut_off(self, replica: ReplicaId, cut_off: int) -> Self:
        """The list with a replica revoked, or its cut-off moved."""
        return replace(self, cut_offs={**self.cut_offs, replica: cut_off})

    def with_revoked(self, cut_offs: Mapping[ReplicaId, int]) -> Self:
        """The list with all identities of a terminal revoked; of one that was replaced the cut-off stays."""
        replaced = cut_offs.keys() & self.replaced
        moved = {replica: seq for replica, seq in cut_offs.items() if replica not in replaced}
        return replace(self, cut_offs={**self.cut_offs, **moved}, stopped=self.stopped | replaced)

    def with_replaced(self, cut_offs: Mapping[ReplicaId, int]) -> Self:
        """The list with these replicas replaced after a restore; cut-offs that are there already stay."""
        new = cut_offs.keys() - self.cut_offs.keys()
        return replace(self, cut_offs={**cut_offs, **self.cut_offs}, replaced=self.replaced | new)

    def joined(self, other: Self) -> Self:
        """Both lists: of each replica the lower cut-off, and whichever reasons one of them gives.

        Raises MisuseError past MAX_FRONTIER replicas.
        """
        lower = {
            replica: min(self.cut_offs.get(replica, seq), seq) for replica, seq in other.cut_offs.items()
        }
        replaced = self.replaced | other.replaced
        stopped = replaced & (self.revoked | other.revoked)
        return type(self)({**self.cut_offs, **lower}, replaced, stopped)

    def lacking(self, other: Self) -> AbstractSet[ReplicaId]:
        """Those of whom the other list says more than this one: joined with it, that would change."""
        ends = self.cut_offs
        later = {replica for replica, seq in other.cut_offs.items() if ends.get(replica, MAX_SEQ + 1) > seq}
        return later | (other.replaced - self.replaced) | (other.revoked - self.revoked)

    def encode(self) -> bytes:
        """Count varint, then by ascending replica id: replica 16, cut-off varint, reason 1."""
        writer = Writer().varint(len(self.cut_offs))
        for replica in sorted(self.cut_offs):
            reason = _REPLACED if replica in self.replaced else _REVOKED
            reason = _BOTH if replica in self.stopped else reason
            writer.raw(replica).varint(self.cut_offs[replica]).uint(reason, 1)
        return writer.done()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """The list in `body`. Raises Malformed or TooLarge."""
        reader = Reader(body)
        size = reader.varint()
        if size > MAX_FRONTIER:
            raise TooLarge(f"at most {MAX_FRONTIER} replicas can be revoked")
        cut_offs: dict[ReplicaId, int] = {}
        replaced: set[ReplicaId] = set()
        stopped: set[ReplicaId] = set()
        last = b""
        for _ in range(size):
            replica = ReplicaId(reader.raw(ID_BYTES))
            if replica <= last:
                raise Malformed("the revoked replicas are not in ascending order")
            cut_offs[replica] = reader.varint(0, MAX_SEQ)
            reason = reader.uint(1, _REVOKED, _BOTH)
            if reason != _REVOKED:
                replaced.add(replica)
            if reason == _BOTH:
                stopped.add(replica)
            last = replica
        reader.end()
        return cls(cut_offs, replaced, stopped)


NONE_REVOKED: Final = Revocations()
