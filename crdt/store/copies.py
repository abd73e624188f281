"""Terminals with old storage of another one: what that had and nobody has sent, any of them may write again.

The hub hears of it when such a one is paired under a name of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from sqlalchemy import Connection, select

from crdt.facts import TerminalId
from crdt.store.hub_schema import COPY
from crdt.store.sql import GIVEN, Bulk
from crdt.store.statement import Statement

Pair = frozenset[TerminalId]

_NOTE: Final = Bulk(COPY, changes={"origin": GIVEN})
_PAIRS: Final = Statement(select(COPY.c.terminal, COPY.c.origin))


def note(connection: Connection, terminal: TerminalId, origin: TerminalId) -> None:
    """This terminal has storage that the other one had; it may be the same."""
    if terminal != origin:
        _NOTE.run(connection, [(terminal, origin)])


def pairs(connection: Connection) -> Sequence[Pair]:
    """All that was noted."""
    return [frozenset(map(TerminalId, row)) for row in _PAIRS.rows(connection)]


def with_copies(noted: Sequence[Pair], terminals: Iterable[TerminalId]) -> AbstractSet[TerminalId]:
    """These terminals, and all whose storage came from the same one as theirs, as far as it was noted."""
    found = set(terminals)
    while more := [pair for pair in noted if pair & found and not pair <= found]:
        found.update(*more)
    return found
