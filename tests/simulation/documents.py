"""The documents that a hub signs, as hub.founding and hub.sealing do it: fares, and who is revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt.documents import FLEET_DOCUMENT, SignedDocument
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.store.amending import Amendment
from hub.sealing import Sealer
from tests.simulation.authors import FARES, HOME, fares
from tests.simulation.oracle import expect

if TYPE_CHECKING:
    from tests.simulation.hubs import Hub


class Documents:
    """Of one hub."""

    def __init__(self, hub: Hub) -> None:
        self.fares = 0  # the version that it has
        self.published = 0  # the highest version of fares that there ever was
        self.revocations = NONE_REVOKED
        self.lost = NONE_REVOKED  # what it has to be told again: until then an operator remembers it
        self._hub = hub
        self._highest = 0  # the highest version of the list that there ever was

    @property
    def sealer(self) -> Sealer:
        """Who signs them."""
        return Sealer(HOME.id, self._hub.author.key)

    @property
    def remembered(self) -> Revocations:
        """The list as an operator knows it, who was there when the hub was put back."""
        return self.revocations.joined(self.lost)

    def read(self) -> None:
        """See which list holds: the product may have changed it."""
        document = self._hub.ledger.document(REVOKED_DOCUMENT).result()
        self.revocations = NONE_REVOKED if document is None else Revocations.decode(document.body)
        self._highest = max(self._highest, 0 if document is None else document.version)
        if self.lost.cut_offs.keys() <= self.revocations.cut_offs.keys():
            self.lost = NONE_REVOKED

    def publish_fares(self) -> None:
        """Put the next version of the fleet's settings."""
        self._put_fares(self.fares + 1)
        self._hub.set_floor(FARES[(self.fares - 1) % len(FARES)].floor_minor)

    def show_fares_again(self) -> None:
        """The same, above all that a hub that was put back has shown and does not know of."""
        if 0 < self.fares < self.published:
            self._put_fares(self.fares)

    def put_list(self, revocations: Revocations, *, again: bool = False) -> None:
        """Replace the list. `again`: on a hub that does not know that it was put back, above all numbers."""
        above = self._highest if again else 0

        def work(amendment: Amendment) -> SignedDocument:
            return self.sealer.put(amendment, REVOKED_DOCUMENT, revocations.encode(), above)

        self._hub.ledger.amend(work).result()
        self.read()
        expect(self.revocations == revocations, "a newer list of the revoked was not taken")

    def sign_again(self) -> None:
        """Those of a former key: terminals are told of the hub that speaks, and of no other.

        Fares go on above all that there were. The list gets the least that is newer: a terminal with a later
        one, which this hub has lost, had better keep it.
        """
        ledger = self._hub.ledger
        listed, shown = (ledger.document(name).result() for name in (REVOKED_DOCUMENT, FLEET_DOCUMENT))
        if shown is not None and shown.signer != ledger.replica:
            self._put_fares(self.fares)
        if listed is not None and listed.signer != ledger.replica:
            key, version = self._hub.author.key, listed.version + 1
            again = SignedDocument.seal(key, HOME.id, REVOKED_DOCUMENT, version, listed.body)
            ledger.put_document(again).result()

    def _put_fares(self, wanted: int) -> None:
        """Settings as those of this version, as one that no hub has shown before."""
        cycles = max(0, -(-(self.published + 1 - wanted) // len(FARES)))
        self.fares = wanted + cycles * len(FARES)
        document = fares(self.fares, self._hub.author)
        expect(self._hub.ledger.put_document(document).result(), "newer settings were not taken")
        self.published = max(self.published, self.fares)
