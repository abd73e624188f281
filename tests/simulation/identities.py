"""Who a terminal writes as, what it writes beside that, and copies of its storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from crdt.facts import ReplicaId
from tests.simulation.authors import HOME, Author
from tests.simulation.disks import Image
from tests.simulation.retention import Retention


@dataclass(frozen=True)
class Identity:
    """What the sync run asks of `edge.identity.Identity`."""

    author: Author
    fleet = HOME.id
    fleet_public_key = HOME.root.public_key
    hub_certificate = HOME.hub.certificate

    @property
    def replica(self) -> ReplicaId:
        """Who the terminal writes as."""
        return self.author.replica

    @property
    def certificate(self) -> Any:
        """The author's certificate."""
        return self.author.certificate


@dataclass(frozen=True)
class Promised:
    """What the sync run asks of `edge.promised.Promised`."""

    identity: Identity
    former: tuple[ReplicaId, ...]


@dataclass(frozen=True)
class Card:
    """A copy of a terminal's whole SD card, and what was true when it was made."""

    image: Image
    marks: bytes
    fares_version: int
    facts: int  # how many this identity had written
    author: Author  # who it wrote as
    promised: Promised | None  # what the hub had given, and it had not taken up
    retention: Retention


@dataclass(frozen=True)
class Branch:
    """What is written on restored storage until a new identity takes over."""

    name: ReplicaId  # the oracle's for it
    common: frozenset[int]  # the numbers of what was there that everybody has of the identity
