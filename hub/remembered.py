"""Answers of the database, kept in memory until what they are about changes."""

from collections.abc import Callable, Collection
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
        self._asking: dict[K, object] = {}  # what is being asked, each time by another object

    def get(self, key: K) -> V | None:
        """The answer; None where it has to be asked for."""
        return None if self._kept is None else self._kept.get(key)

    def asking(self, key: K) -> Callable[[V], V]:
        """Call before asking; the function it gives keeps the answer, unless that is out of date by then."""
        kept, this = self._kept, object()
        if kept is None or max(len(kept), len(self._asking)) >= MAX_ANSWERS:
            return lambda value: value
        self._asking[key] = this

        def keep(value: V) -> V:
            kept[key] = value
            if self._asking.get(key) is not this:  # it is forgotten after this, so one of both sees the other
                kept.pop(key, None)
            else:
                self._asking.pop(key, None)
            return value

        return keep

    def forget(self, keys: Collection[K] | None = None) -> None:
        """What these answers are about has changed, or all; said on the writer's thread, before anybody hears
        of it."""
        if keys is None:
            self._asking = {}
            self._kept = None if self._kept is None else {}
        elif self._kept is not None:
            for key in keys:
                self._asking.pop(key, None)
                self._kept.pop(key, None)
