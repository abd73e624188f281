"""Who writes a simulated hub's marks: without a thread."""

from __future__ import annotations

from concurrent.futures import Future

from crdt.frontier import Frontier
from crdt.store.marks import Marks


class InlineKeeper:
    """Writes the hub's marks: at once for its own facts; for everybody else's when it comes to that."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    def note(self, heads: Frontier) -> None:
        """See crdt.store.markkeeper.Keeper."""
        self._marks.advance(heads)

    def secure(self, heads: Frontier) -> Future[None]:
        """See crdt.store.markkeeper.Keeper."""
        self._marks.advance(heads)
        self._marks.save()
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def close(self) -> None:
        """See crdt.store.markkeeper.Keeper."""
