"""How a bug is planted in the product, and hunted.

A bug is a change of a product function's source text, so it is exactly what a slip of the pen would be; when
the text is no longer there the mutation fails loudly and has to be brought along.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from tests.simulation.actions import THEMES
from tests.simulation.play import Played, first_failure


@dataclass(frozen=True)
class Change:
    """In the source of this function, `new` instead of `old`, which occurs once."""

    function: Callable[..., Any]
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """One bug. `seeds`: it is found within so many from `first` on; of one theme's where `theme` says so.

    `first` is where it was found last, so that it is found there at once; where the product has changed and
    it is not, the seeds after it are played.
    """

    name: str
    seeds: int
    changes: tuple[Change, ...]
    theme: int | None = None
    first: int = 0

    def hunt(self) -> Played | None:
        """Play until it is found; None when it is not."""
        with planted(self):
            if self.theme is None:
                return first_failure(self.first, self.seeds)
            return first_failure(self.first + self.theme, self.seeds, THEMES)


def mutation(
    name: str,
    seeds: int,
    function: Callable[..., Any],
    old: str,
    new: str,
    *more: Change,
    theme: int | None = None,
    first: int = 0,
) -> Mutation:
    """A bug in one function, and in others that go with it. `first`: with a theme a multiple of THEMES."""
    return Mutation(name, seeds, (Change(function, old, new), *more), theme, first)


@contextmanager
def planted(bug: Mutation) -> Iterator[None]:
    """The product with the bug in it."""
    with ExitStack() as undo:
        for function in {change.function: None for change in bug.changes}:
            assert isinstance(function, FunctionType)
            undo.callback(setattr, function, "__code__", function.__code__)
            function.__code__ = _changed(function, bug.changes).__code__
        yield


def _changed(function: FunctionType, changes: Iterable[Change]) -> FunctionType:
    source = textwrap.dedent(inspect.getsource(function))
    for change in changes:
        if change.function is function:
            count = source.count(change.old)
            assert count == 1, f"{change.old!r} is {count} times in {function.__qualname__}; bring it along"
            source = source.replace(change.old, change.new)
    names: dict[str, Any] = {}
    code = compile(
        "from __future__ import annotations\n" + source,
        f"<{function.__qualname__} with a planted bug>",
        "exec",
    )
    exec(code, function.__globals__, names)  # noqa: S102 - our own source, with a bug in it
    changed = names[function.__name__]
    assert isinstance(changed, FunctionType)
    return changed
