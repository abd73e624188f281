"""Part of a list that may be long: some of its rows, and how many there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Self, TypeVar

T = TypeVar("T")

PAGE_ROWS: Final = 200


@dataclass(frozen=True, slots=True)
class Excerpt(Generic[T]):
    """One page of the list."""

    rows: Sequence[T]
    page: int  # from 1
    total: int  # rows of all pages

    @classmethod
    def of(cls, every: Sequence[T], page: int) -> Self:
        """A page of a list that is in memory; the last one, where there are not so many."""
        page = existing(page, len(every))
        return cls(every[offset(page) : offset(page) + PAGE_ROWS], page, len(every))

    @property
    def first(self) -> int:
        """The number of its first row in the list, from 1."""
        return offset(self.page) + 1

    @property
    def last(self) -> int:
        """The number of its last row."""
        return offset(self.page) + len(self.rows)

    @property
    def before(self) -> int:
        """The page before; 0 for none."""
        return self.page - 1

    @property
    def following(self) -> int:
        """The page after; 0 for none."""
        return self.page + 1 if self.last < self.total else 0


def existing(page: int, total: int) -> int:
    """The page, or the last one where there are not so many."""
    return max(1, min(page, -(-total // PAGE_ROWS)))


def offset(page: int) -> int:
    """How many rows are on the pages before."""
    return (page - 1) * PAGE_ROWS


def page_number(text: str | None) -> int:
    """A page as an address names it; the first one for anything else."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else 1
