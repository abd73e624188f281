"""What people call the author of ledger entries."""

from collections.abc import Mapping

from crdt.certificate import AuthorCertificate
from crdt.facts import ReplicaId


def author_name(authors: Mapping[ReplicaId, AuthorCertificate], replica: ReplicaId) -> str:
    """The name in its certificate, "hub" for the hub's own; of one that has not come, that it is unknown."""
    author = authors.get(replica)
    return "an unknown author" if author is None else author.name
