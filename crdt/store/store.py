"""What a ledger asks of its database, whichever it is: an encrypted file or a database server."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Protocol, Self, TypeVar, runtime_checkable

from sqlalchemy import Connection, MetaData

from crdt.store.jobs import Rank, nothing
from crdt.store.secrets import Secrets

T = TypeVar("T")


class Store(Protocol):
    """An open database. `write` and `read` never wait; the other methods that reach it do. For any thread.

    A database is one by inheritance: what follows from the others is written here.
    """

    def write(
        self,
        work: Callable[[Connection], T],
        *,
        rank: Rank = Rank.NORMAL,
        after: Callable[[T], None] = nothing,
    ) -> Future[T]:
        """Run `work` in a write transaction; the future is done once it is durable.

        Jobs that wait at the same time share a commit; one that raises is undone alone and its future gets
        the error. `work` must not begin or end transactions itself. `after` gets the result when it is
        durable, before anybody else may write: the place to change what memory keeps of the database; it
        must not raise. The future fails with Overloaded or StoreFailed.
        """

    def read(self, work: Callable[[Connection], T]) -> Future[T]:
        """Run `work` in one snapshot of everything that was committed before."""

    @property
    def secrets(self) -> Secrets:
        """How they are kept, for use within a write."""

    @property
    def failed(self) -> bool:
        """Whether it has failed and refuses everything until the program starts again."""

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is being closed."""

    def check_may_wait(self) -> None:
        """Raise MisuseError within a write: whoever waits for the database there waits for itself."""

    def close(self) -> None:
        """Finish what is queued and let go of it. Idempotent."""

    def write_and_wait(self, work: Callable[[Connection], T], *, after: Callable[[T], None] = nothing) -> T:
        """`write`, and wait until it is durable. Raises MisuseError within a write."""
        self.check_may_wait()
        return self.write(work, after=after).result()

    def read_and_wait(self, work: Callable[[Connection], T]) -> T:
        """`read`, and wait for the answer. Raises MisuseError within a write."""
        self.check_may_wait()
        return self.read(work).result()

    def wait(self, future: Future[T]) -> T:
        """The result of something begun before. Raises MisuseError within a write."""
        self.check_may_wait()
        return future.result()

    def create(self, metadata: MetaData) -> None:
        """Make the tables of `metadata` that are not there yet; waits."""
        self.write_and_wait(metadata.create_all)

    def get_secret(self, name: str) -> bytes | None:
        """A value put by `put_secret`, such as a private key; waits.

        Raises WrongKey where they are sealed.
        """
        return self.read_and_wait(lambda connection: self.secrets.get(connection, name))

    def put_secret(self, name: str, value: bytes) -> None:
        """Keep a value under a name, replacing the one before; waits until it is durable."""
        self.write_and_wait(lambda connection: self.secrets.put(connection, name, value))

    def swap_secret(self, name: str, former: bytes, value: bytes) -> bytes:
        """Keep `value` in place of `former`; what is kept then: another one, where `former` was not there.

        Raises WrongKey where they are sealed.
        """
        return self.write_and_wait(lambda connection: self.secrets.swap(connection, name, former, value))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Guard(Protocol):
    """Whoever tells whether a database is the one it was: a `crdt.store.witness.Witness`."""

    def check(self, connection: Connection) -> bool:
        """Within a write, before all else: whether it is. If not, what this did is committed, and no more."""

    def committed(self) -> None:
        """The write that was checked last is durable."""


@runtime_checkable
class Shared(Store, Protocol):
    """A store that other processes write to as well."""

    def wait_told(self) -> None:
        """Within a read: wait until `after` was called for every write of this process's that it may see."""

    def on_others(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when another process may have written; now and then also when none has.

        On a thread of the store's own, so it is quick. Returns how to stop.
        """

    def guard(self, guard: Guard | None) -> None:
        """Ask `guard` in every write from now on. Once it denies, the store fails: everything is refused."""
