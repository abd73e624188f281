"""Who else may have written what an author wrote: the hub, and other identities of its terminal, or of one
that had a copy of its storage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from crdt.certificate import AuthorCertificate, Role
from crdt.facts import ReplicaId, TerminalId
from crdt.store.copies import Pair, with_copies

Place = TerminalId | Role

_NOBODY: Final[frozenset[ReplicaId]] = frozenset()


class Kin:
    """Of everybody who is enrolled at one instant; asked of many authors, each at the cost of one."""

    def __init__(self, authors: Mapping[ReplicaId, AuthorCertificate], copies: Sequence[Pair] = ()) -> None:
        """`copies`: which terminals had the same storage."""
        self.authors = authors
        self.copies = copies
        self._at: dict[Place, set[ReplicaId]] = {}
        for replica, author in authors.items():
            self._at.setdefault(place(author), set()).add(replica)

    @property
    def hubs(self) -> AbstractSet[ReplicaId]:
        """All identities of the fleet's hub, before and after it was put back."""
        return self._at.get(Role.HUB, _NOBODY)

    def identities(self, replica: ReplicaId) -> AbstractSet[ReplicaId]:
        """All identities of this author's terminal, and of those with copies of its storage; or `hubs` for
        one of them; of a stranger none."""
        author = self.authors.get(replica)
        if author is None:
            return _NOBODY
        return _NOBODY.union(*(self._at.get(at, _NOBODY) for at in places([author], self.copies)))

    def concerned(self, came: Iterable[ReplicaId]) -> AbstractSet[ReplicaId]:
        """Whose facts these authors may have written again: see `identities`; for a hub everybody's."""
        came = set(came)
        if came & self.hubs:
            return self.authors.keys()
        return _NOBODY.union(*(self.identities(replica) for replica in came))


def hubs_among(
    replicas: Iterable[ReplicaId], authors: Mapping[ReplicaId, AuthorCertificate]
) -> set[ReplicaId]:
    """Those of these authors that are identities of the hub."""
    return {replica for replica in replicas if authors[replica].role is Role.HUB}


def place(author: AuthorCertificate) -> Place:
    """Where an author writes: each identity of a hub has a terminal's id of its own, and there is one hub."""
    return author.role if author.role is Role.HUB else author.terminal


def places(authors: Iterable[AuthorCertificate], copies: Sequence[Pair]) -> AbstractSet[Place]:
    """Where these authors write, and where else what they write may be written again."""
    found = {place(author) for author in authors}
    return {*found, *with_copies(copies, [TerminalId(at) for at in found if isinstance(at, bytes)])}
