"""What changed lately, in the order of the changes: each thing once, at its last place."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from crdt.cursor import Cursor

MANY: Final = 500  # changes; from so many on all is gone through once, and not a piece moved for each

K = TypeVar("K")
V = TypeVar("V")


class Changed(NamedTuple, Generic[K, V]):
    """One thing, by its key, as it is since the change at a place."""

    place: Cursor
    key: K
    value: V


class Recent(Generic[K, V]):
    """Ascending `places`, and one of `values` for each. What changes again moves to the end.

    A change costs what moving a part of a list in memory does, however much has changed before.
    """

    def __init__(self) -> None:
        self.places: list[Cursor] = []
        self.values: list[V] = []
        self._keys: list[K] = []
        self._where: dict[K, Cursor] = {}

    def add(self, changes: Sequence[Changed[K, V]]) -> None:
        """Later changes, in their order, each of another key."""
        again = [self._where[change.key] for change in changes if change.key in self._where]
        if len(again) < MANY:
            for place in again:
                self._remove(bisect_left(self.places, place))
        else:
            self._remove_all({*again})
        self.places += [change.place for change in changes]
        self.values += [change.value for change in changes]
        self._keys += [change.key for change in changes]
        self._where.update((change.key, change.place) for change in changes)

    def drop(self, count: int) -> None:
        """Forget the first ones."""
        for key in self._keys[:count]:
            del self._where[key]
        del self.places[:count], self.values[:count], self._keys[:count]

    def _remove(self, at: int) -> None:
        del self.places[at], self.values[at], self._keys[at]

    def _remove_all(self, gone: set[Cursor]) -> None:
        kept = [at for at, place in enumerate(self.places) if place not in gone]
        self.places = [self.places[at] for at in kept]
        self.values = [self.values[at] for at in kept]
        self._keys = [self._keys[at] for at in kept]
