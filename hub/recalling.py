"""What terminals still have of a hub that was put back from a backup: its later documents.

Their numbers were given, so the hub's own go on above them, or terminals would not take those. The list of
revocations says which identities were ended: without that, what one of them wrote and a later one wrote again
counts twice. So the lost list is joined with the hub's. Other settings are for an operator to make again.

Whoever is revoked by it is stopped as well, and all that it was given since in the same pairing has ended: of
that nothing counts, for it was given to somebody who was revoked.

A number alone is a terminal's word. A list is signed by a key of this hub's fleet: one that the hub does not
know is proof that it was put back, also where nothing else tells it so.
"""

import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final

from sqlalchemy import Connection

from crdt.documents import SignedDocument
from crdt.errors import MisuseError, TooLarge, UnknownAuthor
from crdt.facts import ReplicaId
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.store import blocks, expectations, papers
from crdt.store.amending import Amendment
from crdt.store.blocks import NO_HEAD, heads_of
from crdt.store.hub import HubLedger
from hub import enrolling, restoring
from hub.enrolling import NONE_ENDED, Ended
from hub.events import EventBus, Topic
from hub.registry import Registry
from hub.sealing import Sealer
from hub.waiting import Wait

log = logging.getLogger(__name__)

MAX_BELIEVED: Final = 2**62  # of a document's number, by a terminal's word: half of them are left above a lie
MAX_GIVEN: Final = MAX_BELIEVED + 2**61  # of one that a hub signed, maybe after a lie

_FULL: Final = (
    "The list of identities that ended is full at the hub, and cannot take in those that this one names. The"
    " hub's own list holds; an operator has to look who is missing in it."
)


class Recall:
    """Takes them in."""

    def __init__(
        self,
        ledger: HubLedger,
        terminals: Registry,
        bus: EventBus,
        sealer: Sealer,
        wait: Wait,
        now_ms: Callable[[], int],
    ) -> None:
        """`now_ms`: the hub's clock."""
        self._ledger = ledger
        self._registry = terminals
        self._bus = bus
        self._sealer = sealer
        self._wait = wait
        self._now_ms = now_ms

    async def outbid(self, name: str, version: int) -> SignedDocument | None:
        """What a terminal is given that has a document of this later version; None for nothing.

        A hub that knows that it was put back gives its own, signed again above that. Another believes no
        number, and shows its list of revocations as it is, for which a terminal hands over a later one.
        """

        def work(amendment: Amendment) -> SignedDocument | None:
            kept = amendment.document(name)
            put_back = restoring.last(amendment.connection) is not None
            if kept is not None and put_back and kept.version < version <= MAX_BELIEVED:
                return self._sealer.put(amendment, name, kept.body, above=version)
            if name != REVOKED_DOCUMENT:
                return kept if kept is not None and kept.version > version else None
            return kept or self._sealer.put(amendment, name, NONE_REVOKED.encode())

        return await self._wait(self._ledger.amend(work))

    async def take(self, document: SignedDocument) -> SignedDocument:
        """Join a list of revocations that a hub of this fleet signed, and this one has lost, with its own.

        The lower cut-off holds, whoever was decided on; a list that was joined once, or was in the backup, is
        not joined again, as an operator may have decided otherwise since. Returns the hub's list then, which
        is newer. Raises InputRefused, and nothing has changed.

        In the same transaction the registry stops whom an operator had revoked, by that list and not by the
        hub's. A terminal that was paired anew since goes on.
        """
        ended = NONE_ENDED

        def work(amendment: Amendment) -> SignedDocument:
            nonlocal ended
            self._verify(amendment, document)
            kept = amendment.document(REVOKED_DOCUMENT)
            ours = papers.revocations(amendment.connection)
            joined, ended = self._joined(amendment, kept, ours, document)
            if kept is not None and joined == ours and kept.version > document.version:
                return kept
            return self._sealer.put(amendment, REVOKED_DOCUMENT, joined.encode(), above=document.version)

        listed = await self._wait(self._ledger.amend(work, after=lambda: self._forget(ended)))
        self._tell(ended)
        return listed

    def _forget(self, ended: Ended) -> None:
        if ended.identities:
            self._registry.forget()

    def _tell(self, ended: Ended) -> None:
        for name in ended.stopped:
            log.warning("%s was revoked before this hub was put back, and is stopped again", name)
        if ended.identities:
            self._bus.publish(Topic.TERMINALS)
            self._bus.publish(Topic.LEDGER)

    def _verify(self, amendment: Amendment, document: SignedDocument) -> None:
        signer = blocks.authors_of(amendment.connection, [document.signer]).get(document.signer)
        if signer is None:
            raise UnknownAuthor("The list of revocations is not signed by a hub that is known here.")
        document.verify(signer)
        if document.version > MAX_GIVEN:
            raise TooLarge("The list of revocations has a number that no hub gives.")

    def _joined(
        self, amendment: Amendment, kept: SignedDocument | None, ours: Revocations, document: SignedDocument
    ) -> tuple[Revocations, Ended]:
        """The hub's list (`ours`, in `kept`) with what it lacks of another one; and what that has ended."""
        connection, theirs = amendment.connection, Revocations.decode(document.body)
        own = document.signer == self._sealer.key.replica
        if own:  # the same number for another list was given twice
            known = kept is not None and (document.version < kept.version or theirs == ours)
        else:
            known = document.version <= restoring.list_known(connection, document.signer)
        if known:
            return ours, NONE_ENDED
        ended = enrolling.end_pairings(connection, theirs.revoked - ours.revoked, self._now_ms())
        since = ended.identities - theirs.cut_offs.keys() - ours.revoked
        try:
            joined = ours.joined(theirs)
            joined = joined.joined(Revocations(dict.fromkeys(since, 0)))
        except MisuseError as error:
            raise TooLarge(_FULL) from error
        _end_held(connection, joined, joined.revoked - ours.revoked)
        if not own:
            restoring.note_list(connection, document.signer, document.version)
        return joined, ended


def _end_held(connection: Connection, joined: Revocations, revoked: AbstractSet[ReplicaId]) -> None:
    """Wait for no more of those of these identities that had been replaced, as where an operator revokes
    them; but for what the hub held of them once, and has lost."""
    replaced = sorted(joined.replaced & revoked)
    heads, cut_offs = heads_of(connection, replaced), joined.cut_offs
    whole = [one for one in replaced if heads.get(one, NO_HEAD).seq >= cut_offs[one]]
    expectations.end(connection, whole)
