"""Merges on their way in: verified on a reader's thread, then written, with so much under way and no more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate
from crdt.errors import Overloaded
from crdt.ledger import MergeReport
from crdt.store.admission import Prepared, prepare
from crdt.store.authors import Authors
from crdt.store.futures import then
from crdt.store.markkeeper import Keeper
from crdt.store.merging import Merged, merge_prepared
from crdt.store.own_chain import OwnChain
from crdt.store.recording import Change
from crdt.store.store import Store

MAX_MERGING_BYTES: Final = 64 * 1024 * 1024  # given and not yet merged or refused, all callers together


class Intake:
    """Takes blocks in."""

    def __init__(
        self,
        database: Store,
        authors: Authors,
        own: OwnChain,
        keeper: Keeper | None,
        now_ms: Callable[[], int],
        publish: Callable[[Change], None],
    ) -> None:
        """`own`: whether a merge proves the hub put back. `publish` hears of every change, on the writer's
        thread."""
        self._database = database
        self._authors = authors
        self._own = own
        self._keeper = keeper
        self._now_ms = now_ms
        self._publish = publish
        self._mutex = threading.Lock()
        self._merging_bytes = 0

    def merge(self, given: Sequence[bytes], presented: Sequence[AuthorCertificate]) -> Future[MergeReport]:
        """See HubLedger.merge."""
        size = sum(map(len, given))
        outcome: Future[MergeReport] = Future()
        outcome.set_running_or_notify_cancel()
        if not self._reserve(size):
            outcome.set_exception(Overloaded("The hub is merging all it can; send the blocks again later."))
            return outcome
        outcome.add_done_callback(lambda _done: self._reserve(-size))
        preparing = self._database.read(lambda found: prepare(found, self._authors, given, presented))
        preparing.add_done_callback(then(outcome, partial(self._commit, outcome)))
        return outcome

    def _commit(self, outcome: Future[MergeReport], prepared: Prepared) -> None:
        at_ms = self._now_ms()

        def work(connection: Connection) -> tuple[Merged, bool]:
            merged = merge_prepared(connection, self._authors, prepared, at_ms)
            return merged, self._own.look(connection, merged.admitted)

        def after(done: tuple[Merged, bool]) -> None:
            merged, put_back = done
            if put_back:
                self._own.proven()
            self._authors.remember(merged.admitted.authors)
            if self._keeper is not None and merged.admitted.moved:
                self._keeper.note({replica: chain.head for replica, chain in merged.admitted.moved.items()})
            if merged.change is not None:
                self._publish(merged.change)

        merging = self._database.write(work, after=after)
        merging.add_done_callback(then(outcome, lambda done: outcome.set_result(done[0].report)))

    def _reserve(self, size: int) -> bool:
        with self._mutex:
            if size > 0 and self._merging_bytes + size > MAX_MERGING_BYTES:
                return False
            self._merging_bytes += size
            return True
