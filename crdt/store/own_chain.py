"""Whether a hub may go on with its own chain, or its identity is retired.

Marks tell that a database was put back, unless they went back with it: the whole machine was put back, say.
Then a block tells that somebody brings, which the hub has signed and does not have. Nothing else does: what
anybody says without a signature of the hub's own key proves nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from crdt.errors import Restored
from crdt.facts import ReplicaId
from crdt.settlement import SERIES_BYTES
from crdt.store import witness
from crdt.store.admission import Admitted

_log = logging.getLogger(__name__)

_PROVEN: Final = (
    "A block was brought that this hub has signed and does not have: its whole state was put back, with the"
    " marks. It books nothing more under this identity, and may have given numbers again meanwhile."
)


class OwnChain:
    """Of the identity that a hub writes under. For the writer's thread, but for `retired`."""

    def __init__(self, replica: ReplicaId, entropy: Callable[[int], bytes], *, retired: bool) -> None:
        """`entropy`: for the settlement's new series once the chain must not be continued."""
        self._replica = replica
        self._entropy = entropy
        self.retired = retired
        """As far as is known in memory: for good, once it is so."""

    def look(self, connection: Connection, admitted: Admitted) -> bool:
        """Within a merge: whether a block proves that the hub was put back; then the identity is retired.

        It may continue the chain as it is here, lie beyond it, or contradict it.
        """
        own = self._replica
        evidence = any(entry.replica == own for entry in admitted.evidence)
        if not (own in admitted.moved or own in admitted.ahead or evidence):
            return False
        if witness.retired(connection) != own:
            witness.disown(connection, own, self._entropy(SERIES_BYTES))
        return True

    def proven(self) -> None:
        """What `look` found is durable."""
        if not self.retired:
            _log.error(_PROVEN)
        self.retired = True

    def may_write(self, connection: Connection) -> bool:
        """Within a write: whether it may be continued."""
        return witness.retired(connection) != self._replica

    def check(self, connection: Connection) -> None:
        """Within a write: raise Restored unless it may be continued."""
        if not self.may_write(connection):
            raise Restored(
                "This hub's ledger was put back from an old copy and books nothing under its old"
                " identity. It takes a new one when it is started again."
            )
