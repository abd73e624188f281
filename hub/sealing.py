"""The hub's signed documents: each newer than every one before, and none lost to another process's."""

from dataclasses import dataclass

from crdt.documents import SignedDocument
from crdt.facts import FleetId
from crdt.signing import SigningKey
from crdt.store.amending import Amendment
from hub import restoring


@dataclass(frozen=True, slots=True)
class Sealer:
    """Signs in the hub's name, within the transaction that decided what the document says."""

    fleet: FleetId
    key: SigningKey

    def put(self, amendment: Amendment, name: str, body: bytes, above: int = 0) -> SignedDocument:
        """Sign and keep the document in place of the one that is kept now, its version above this one too."""
        kept = amendment.document(name)
        floor = restoring.version_floor(amendment.connection)
        version = max(above + 1, 1 if kept is None else kept.version + 1, floor)
        document = SignedDocument.seal(self.key, self.fleet, name, version, body)
        amendment.put_document(document)
        return document
