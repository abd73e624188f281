"""Answers of the database, kept in memory until what they are about changes."""

from collections.abc import Callable
from typing import Generic, TypeVar

from crdt.store.store import Shared, Store

K = TypeVar("K")
V = TypeVar("V")

MAX_ANSWERS = 20_000  # one for each terminal that a hub may have


class Remembered(Generic[K, V]):
    """Whoever changes what an answer depends on calls `forget` in the change's `after`.

    A database that other processes change too is asked each time: a revocation by one of them has to hold for
    the very next request.
    """

    def __init__(self, database: Store) -> None:
        self._kept: dict[K, V] | None = None if isinstance(database, Shared) else {}
        self._changes = 0

    def get(self, key: K) -> V | None:
        """The answer; None where it has to be asked for."""
        return None if self._kept is None else self._kept.get(key)

    def asking(self, key: K) -> Callable[[V], V]:
        """Call before asking; the function it gives keeps the answer, unless that is out of date by then."""
        kept, changes = self._kept, self._changes

        def keep(value: V) -> V:
            if kept is not None and len(kept) < MAX_ANSWERS:
                kept[key] = value
                if self._changes != changes:  # counted before forgotten, so one of both always sees the other
                    kept.pop(key, None)
            return value

        return keep

    def forget(self) -> None:
        """Something has changed; said on the writer's thread, before anybody hears of it."""
        self._changes += 1
        if self._kept is not None:
            self._kept = {}
