"""Flags put on authors and taken off by people, beside those that a merge puts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from crdt.errors import InputRefused, RefusalCode
from crdt.facts import ReplicaId
from crdt.store import flags
from crdt.store.admission import Suspicion
from crdt.store.recording import Change
from crdt.store.store import Store


class Flagging:
    """Puts them and takes them off."""

    def __init__(self, database: Store, now_ms: Callable[[], int], publish: Callable[[Change], None]) -> None:
        """`publish` hears of every change, on the writer's thread."""
        self._database = database
        self._now_ms = now_ms
        self._publish = publish

    def flag(self, replica: ReplicaId, error: InputRefused, seq: int) -> Future[bool]:
        """See HubLedger.flag."""
        suspicion = Suspicion(replica, error.code, seq, str(error))
        at_ms = self._now_ms()
        return self._database.write(
            lambda connection: bool(flags.put(connection, [suspicion], at_ms)),
            after=lambda new: self._tell(replica, error.code) if new else None,
        )

    def dismiss(self, replica: ReplicaId, code: RefusalCode) -> Future[bool]:
        """See HubLedger.dismiss_flag."""
        return self._database.write(
            lambda connection: flags.dismiss(connection, replica, code),
            after=lambda dismissed: self._tell(replica, code) if dismissed else None,
        )

    def _tell(self, replica: ReplicaId, code: RefusalCode) -> None:
        self._publish(Change(0, (), suspects=(replica,), flags=((replica, code),)))
