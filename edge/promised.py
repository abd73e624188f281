"""An identity that the hub has given to a terminal whose storage was put back, until it is taken up.

The hub has ended what the terminal was. So from the moment this is kept, the terminal says nothing to the
hub any more but as the new identity, and first of all compares what it was (comparing.py).
"""

import json
from dataclasses import dataclass

from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from edge.errors import AnswerRefused, IdentityError
from edge.identity import Identity, SecretStore, decoded

PROMISED = "promised"  # the name of the record beside the identity's


@dataclass(frozen=True, slots=True)
class Promised:
    """The identity, and all the others that the hub knows of this terminal, or of one with such storage."""

    identity: Identity
    former: tuple[ReplicaId, ...]

    def encode(self) -> bytes:
        """The record for the secret store."""
        former = [each.hex() for each in self.former]
        return json.dumps({"identity": self.identity.encode().decode(), "former": former}).encode()


def load_promised(store: SecretStore) -> Promised | None:
    """What is kept; None for nothing. Raises IdentityError when it is damaged."""
    raw = store.get_secret(PROMISED)
    if not raw:
        return None
    try:
        record = json.loads(raw)
        former = tuple(ReplicaId(bytes.fromhex(each)) for each in record["former"])
        return Promised(decoded(record["identity"]), former)
    except (ValueError, KeyError, TypeError) as error:
        raise IdentityError("The promised identity cannot be read; pair the terminal again.") from error


def former_in(text: object) -> tuple[ReplicaId, ...]:
    """The identities in a hub's answer (crdt.pairing, "former"). Raises AnswerRefused."""
    try:
        return tuple(ReplicaId(bytes.fromhex(each)) for each in str(text).split())
    except ValueError as error:
        raise AnswerRefused(RefusalCode.MALFORMED, "the list of its identities does not read") from error
