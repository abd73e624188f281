"""Who is looked at next, of more names than are looked at at a time."""

from collections.abc import Iterable


class Turns:
    """Whoever has waited longest is next: a name that stays has its turn, however many others come and go."""

    def __init__(self) -> None:
        self._order: dict[str, None] = {}

    def next(self, there: Iterable[str], most: int) -> list[str]:
        """So many of those that are there now. A new one waits behind those that do already."""
        names = dict.fromkeys(there)
        order = [name for name in self._order if name in names]
        order += [name for name in names if name not in self._order]
        self._order = dict.fromkeys([*order[most:], *order[:most]])
        return order[:most]
