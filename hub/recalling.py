"""What terminals still have of a hub that was put back from a backup: its later documents.

Their numbers were given, so the hub's own go on above them, or terminals would not take those. The list of
revocations says which identities were ended: without that, what one of them wrote and a later one wrote again
counts twice. So the lost list is joined with the hub's. Other settings are for an operator to make again.
"""

from crdt.documents import SignedDocument
from crdt.errors import MisuseError, NotPermitted, TooLarge, UnknownAuthor
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store import blocks, papers
from crdt.store.amending import Amendment
from crdt.store.hub import HubLedger
from hub import restoring
from hub.sealing import Sealer
from hub.waiting import Wait

MAX_BELIEVED = 2**62  # of a document's number by a terminal's word: there is as much room again above a lie


class Recall:
    """Takes them in. A hub that was never put back has lost nothing, and believes nobody."""

    def __init__(self, ledger: HubLedger, sealer: Sealer, wait: Wait) -> None:
        self._ledger = ledger
        self._sealer = sealer
        self._wait = wait

    async def outbid(self, name: str, version: int) -> SignedDocument | None:
        """The document of the hub, now newer than the one that a terminal has; None for none such."""

        def work(amendment: Amendment) -> SignedDocument | None:
            kept = amendment.document(name)
            put_back = restoring.last(amendment.connection) is not None
            if kept is not None and put_back and kept.version < version <= MAX_BELIEVED:
                self._sealer.put(amendment, name, kept.body, above=version)
            return amendment.document(name)

        return await self._wait(self._ledger.amend(work))

    async def take(self, document: SignedDocument) -> None:
        """Join a list of revocations that the hub signed before it was put back, and has lost, with its own.

        The lower cut-off holds, whoever was decided on. Raises InputRefused, and nothing has changed.
        """

        def work(amendment: Amendment) -> None:
            connection = amendment.connection
            signer = blocks.authors_of(connection, [document.signer]).get(document.signer)
            if signer is None:
                raise UnknownAuthor("The list of revocations is not signed by a hub that is known here.")
            document.verify(signer)
            if document.signer == self._sealer.key.replica:
                return
            kept = restoring.list_kept(connection, document.signer)
            if kept is None:
                raise NotPermitted("This hub has lost no list of revocations.")
            if document.version <= kept:
                return
            ours, theirs = papers.revocations(connection), Revocations.decode(document.body)
            try:
                joined = ours.joined(theirs)
            except MisuseError as error:
                raise TooLarge("The list of revocations is full.") from error
            if joined != ours:
                self._sealer.put(amendment, REVOKED_DOCUMENT, joined.encode())

        await self._wait(self._ledger.amend(work))
