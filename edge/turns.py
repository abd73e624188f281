"""Who is next, of more than can be looked at or tried at a time."""

from collections.abc import Hashable, Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Turns(Generic[T]):
    """Whoever has waited longest is next: one that stays has its turn, however many others come and go."""

    def __init__(self) -> None:
        self._had: dict[T, bool] = {}  # in the order of their turns; whether it has had one

    def __iter__(self) -> Iterator[T]:
        """All that are there, in the order of their turns."""
        return iter(self._had)

    @property
    def untried(self) -> Iterator[T]:
        """Those that have had no turn yet."""
        return (one for one, had in self._had.items() if not had)

    def see(self, there: Iterable[T]) -> None:
        """These are there now. A new one waits behind those that do already."""
        now = dict.fromkeys(there, False)
        stay = {one: had for one, had in self._had.items() if one in now}
        self._had = stay | {one: False for one in now if one not in stay}

    def had(self, one: T) -> None:
        """It has its turn now, and waits behind the others for the next; nothing where it is not there."""
        if self._had.pop(one, None) is not None:
            self._had[one] = True

    def next(self, there: Iterable[T], most: int) -> list[T]:
        """So many of those that are there now, and they have had their turns."""
        self.see(there)
        chosen = list(islice(self, most))
        for one in chosen:
            self.had(one)
        return chosen
