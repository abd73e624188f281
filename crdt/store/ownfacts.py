"""The hub's own chain: facts that it writes itself, acknowledged once they are durable and marked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate
from crdt.facts import ReplicaId
from crdt.frontier import Head
from crdt.signing import SigningKey
from crdt.store import comparing
from crdt.store.adopting import Adopter, Adoption
from crdt.store.authors import Authors
from crdt.store.chore import Chore
from crdt.store.comparing import Accounted
from crdt.store.futures import then
from crdt.store.jobs import Rank
from crdt.store.markkeeper import Keeper
from crdt.store.own_chain import OwnChain
from crdt.store.recording import Booking, Change, Order, book
from crdt.store.store import Store

T = TypeVar("T")


class OwnFacts:
    """Books. Nothing, where the chain must not be continued because the database was put back."""

    def __init__(
        self,
        database: Store,
        key: SigningKey,
        certificate: AuthorCertificate,
        chain: OwnChain,
        keeper: Keeper | None,
        now_ms: Callable[[], int],
        publish: Callable[[Change], None],
        authors: Authors,
    ) -> None:
        """`chain`: of `key`. `publish` hears of every change, on the writer's thread."""
        self._database = database
        self._key = key
        self._certificate = certificate
        self._chain = chain
        self._keeper = keeper
        self._now_ms = now_ms
        self._publish = publish
        self._adopter = Adopter(key, certificate, authors.every)
        self._accounted = Accounted()
        self._taking_over = True  # to answer what this process cannot account for, too; a start does
        self._comparing = Chore(
            database,
            self._compare_some,
            self._compared,
            "What the hub has adopted from a terminal, and the terminal wrote again, counts twice for now.",
        )

    def append(self, order: Order) -> Future[Booking]:
        """Book an order, unless its request has booked before."""

        def work(connection: Connection) -> tuple[Booking, Head | None, Sequence[Change]]:
            self._chain.check(connection)
            order.check(self._certificate)
            booking, change = book(connection, self._key, self._certificate, order)
            return booking, booking.head, [change] if change is not None else []

        return self._write(work, Rank.URGENT)

    def adopt(self, hashes: Collection[bytes]) -> Future[int]:
        """Book what these blocks in quarantine say and the ledger does not; how many facts.

        In as many transactions as it takes for none to be long: where it fails, what was booked before stays.
        """
        outcome: Future[int] = Future()
        outcome.set_running_or_notify_cancel()

        def go_on(facts: int, left: Collection[bytes], rank: Rank) -> None:
            def adopted(adoption: Adoption) -> None:
                if adoption.more:
                    go_on(facts + adoption.facts, adoption.left.blocks, Rank.NORMAL)
                else:
                    outcome.set_result(facts + adoption.facts)

            writing = self._write(lambda connection: self._adopt_some(connection, left), rank)
            writing.add_done_callback(then(outcome, adopted))

        go_on(0, hashes, Rank.URGENT)
        return outcome

    def compare(self, came: Iterable[ReplicaId], new: Iterable[bytes] = (), asked: int = 0) -> None:
        """Take back, in the background, what was adopted of these authors' terminals and they wrote again.

        And note what they wrote again of what they said so. For the hub itself: of everybody's. `new`: blocks
        in quarantine, by their hashes, that are to be looked at whoever came. `asked`: the request that this
        is about. On the writer's thread, where anything is named.
        """
        self._adopter.look(came, new)
        if asked:
            self._accounted.take(asked)
        self._comparing.begin()

    def compare_all(self, asked: int = 0) -> None:
        """The same of everything: facts left the record, and what was taken back for them is booked again."""
        self._adopter.look_anew()
        self.compare((), asked=asked)

    def take_over(self) -> None:
        """Answer what nobody else does, in the background. For any thread."""
        if not self._chain.retired:
            self._taking_over = True
            self._comparing.resume(wanted=True)

    def resume(self, *, wanted: bool) -> None:
        """See `Chore.resume`, of comparing."""
        self._comparing.resume(wanted=wanted)

    def end(self) -> None:
        """See `Chore.end`, of comparing."""
        self._comparing.end()

    def _adopt_some(
        self, connection: Connection, hashes: Collection[bytes]
    ) -> tuple[Adoption, Head | None, Sequence[Change]]:
        self._chain.check(connection)
        adoption = self._adopter.adopt(connection, hashes, self._now_ms())
        return adoption, adoption.head, adoption.changes

    def _write(
        self,
        work: Callable[[Connection], tuple[T, Head | None, Sequence[Change]]],
        rank: Rank,
    ) -> Future[T]:
        """Write facts of the hub's own; done when they are durable and marked.

        `work` says what it did, where the hub's own chain ends after it (None: it wrote nothing), and what
        changed.
        """
        outcome: Future[T] = Future()
        outcome.set_running_or_notify_cancel()

        def after(result: tuple[T, Head | None, Sequence[Change]]) -> None:
            for change in result[2]:
                self._publish(change)

        def written(result: tuple[T, Head | None, Sequence[Change]]) -> None:
            answer, head, _ = result
            if self._keeper is None or head is None:
                outcome.set_result(answer)
                return
            marking = self._keeper.secure({self._key.replica: head})
            marking.add_done_callback(then(outcome, lambda _none: outcome.set_result(answer)))

        writing = self._database.write(work, rank=rank, after=after)
        writing.add_done_callback(then(outcome, written))
        return outcome

    def _compare_some(self, connection: Connection) -> Adoption:
        if not self._chain.may_write(connection):
            return Adoption()
        answered = self._account(connection)
        upto = self._accounted.upto
        compared = self._adopter.compare(connection, self._now_ms())
        if upto > answered and compared.more:
            comparing.note_step(connection)
        elif upto > answered:
            comparing.answer(connection, upto)
        return compared

    def _account(self, connection: Connection) -> int:
        """See which requests this process is to answer; how many are. What it takes over is everything."""
        requests = comparing.requests(connection)
        self._accounted.take_all(requests.answered)
        if self._taking_over:
            self._taking_over = False
            if self._accounted.upto < requests.asked:
                self._adopter.look_anew()
                self._accounted.take_all(requests.asked)
        return requests.answered

    def _compared(self, compared: Adoption) -> None:
        self._adopter.settle(compared)
        if self._keeper is not None and compared.head is not None:
            self._keeper.secure({self._key.replica: compared.head})
        for change in compared.changes:
            self._publish(change)
