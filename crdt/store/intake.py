"""Merges on their way in: verified on a reader's thread, then written, with so much under way and no more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate
from crdt.errors import InputRefused, Overloaded
from crdt.ledger import MergeReport, RefusedInput
from crdt.numbering import restore
from crdt.store import arrivals, expectations
from crdt.store.admission import Prepared, prepare
from crdt.store.authors import Authors
from crdt.store.futures import then
from crdt.store.markkeeper import Keeper
from crdt.store.merging import Merged, merge_prepared
from crdt.store.numbers import CardNumbers
from crdt.store.own_chain import OwnChain
from crdt.store.recording import Change
from crdt.store.store import Store

MAX_MERGING_BYTES: Final = 64 * 1024 * 1024  # given and not yet merged or refused, all callers together
_IN_FULL: Final = 4  # times what a short block takes, about: of its cards it has numbers only

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Given:
    """What somebody brings to be merged."""

    blocks: Sequence[bytes] = ()
    shorts: Sequence[bytes] = ()  # short blocks, which are put back in full before
    certificates: Sequence[AuthorCertificate] = ()

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return sum(map(len, self.blocks)) + _IN_FULL * sum(map(len, self.shorts))


class Intake:
    """Takes blocks in."""

    def __init__(
        self,
        database: Store,
        authors: Authors,
        numbers: CardNumbers,
        own: OwnChain,
        keeper: Keeper | None,
        now_ms: Callable[[], int],
        publish: Callable[[Change], None],
    ) -> None:
        """`own`: whether a merge proves the hub put back. `publish` hears of every change, on the writer's
        thread."""
        self._database = database
        self._authors = authors
        self._numbers = numbers
        self._own = own
        self._keeper = keeper
        self._now_ms = now_ms
        self._publish = publish
        self._mutex = threading.Lock()
        self._merging_bytes = 0
        self._noted: int | None = None  # the quarter of an hour whose first block was noted last

    def take_in(self, given: Given, look: Callable[[Connection], T]) -> Future[tuple[T, MergeReport]]:
        """See HubLedger.take_in; with what `look` saw in the snapshot in which it was verified."""
        size = given.size_bytes
        outcome: Future[tuple[T, MergeReport]] = Future()
        outcome.set_running_or_notify_cancel()
        if not self._reserve(size):
            outcome.set_exception(Overloaded("The hub is merging all it can; send the blocks again later."))
            return outcome
        outcome.add_done_callback(lambda _done: self._reserve(-size))
        preparing = self._database.read(lambda found: (look(found), self._prepared(found, given)))
        preparing.add_done_callback(then(outcome, partial(self._commit, outcome)))
        return outcome

    def see_time(self) -> Future[None]:
        """See HubLedger.see_time."""

        def work(connection: Connection) -> None:
            _see(connection, self._now_ms())

        return self._database.write(work)

    def _prepared(self, connection: Connection, given: Given) -> Prepared:
        """Everything verified that can be; refused are also short blocks that cannot be read."""
        blocks, unread = list(given.blocks), list[RefusedInput]()
        for short in given.shorts:
            try:
                blocks.append(restore(short, partial(self._numbers.cards, connection)))
            except InputRefused as error:  # noqa: PERF203 - one bad block must not stop the others
                unread.append(RefusedInput(short, error))
        prepared = prepare(connection, self._authors, blocks, given.certificates)
        return replace(prepared, refused=[*unread, *prepared.refused])

    def _commit(self, outcome: Future[tuple[T, MergeReport]], seen: tuple[T, Prepared]) -> None:
        (looked, prepared), at_ms = seen, self._now_ms()
        quarter = arrivals.quarter_of(at_ms)

        def work(connection: Connection) -> tuple[Merged, bool]:
            if quarter != self._noted:
                _see(connection, at_ms)
            merged = merge_prepared(connection, self._authors, prepared, at_ms)
            return merged, self._own.look(connection, merged.admitted)

        def after(done: tuple[Merged, bool]) -> None:
            merged, put_back = done
            self._noted = quarter
            if put_back:
                self._own.proven()
            self._authors.remember(merged.admitted.authors)
            if self._keeper is not None and merged.admitted.moved:
                self._keeper.note({replica: chain.head for replica, chain in merged.admitted.moved.items()})
            if merged.change is not None:
                self._publish(merged.change)

        merging = self._database.write(work, after=after)
        merging.add_done_callback(then(outcome, lambda done: outcome.set_result((looked, done[0].report))))

    def _reserve(self, size: int) -> bool:
        with self._mutex:
            if size > 0 and self._merging_bytes + size > MAX_MERGING_BYTES:
                return False
            self._merging_bytes += size
            return True


def _see(connection: Connection, at_ms: int) -> None:
    """It is this time now: what is noted of later was noted by a clock that was ahead."""
    arrivals.note(connection, arrivals.quarter_of(at_ms))
    expectations.said_by(connection, at_ms)
