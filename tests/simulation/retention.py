"""What a terminal may forget: what a settlement that a hub has signed includes, once that was so for long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final
from unittest import mock

from crdt.facts import ReplicaId
from crdt.store import fares, held, pruning, segment
from tests.simulation.oracle import expect

Span = tuple[ReplicaId, int, int]  # of a block: its author, its first number and its last

REMEMBERED: Final = 1  # fares, for the passback rule: the product's thousands would keep everything here


class Retention:
    """Of one terminal, in its own time."""

    def __init__(self, since: Mapping[Span, int] | None = None) -> None:
        self.since = dict(since or {})  # when each block on the disk was first seen to be settled

    def look(self, blocks: Iterable[Span], settled: Mapping[ReplicaId, int], now_ms: int) -> None:
        """Before it may forget: these blocks are there, and its settlement includes so much."""
        included = [block for block in blocks if block[2] <= settled.get(block[0], 0)]
        self.since = {block: self.since.get(block, now_ms) for block in included}

    def check(self, gone: Iterable[Span], now_ms: int, retention_ms: int) -> None:
        """It has forgotten these."""
        for block in gone:
            since = self.since.pop(block, None)
            expect(since is not None, f"it forgot facts {block[1:]}, which are not settled")
            assert since is not None
            expect(since <= now_ms - retention_ms, f"it forgot facts {block[1:]} before their time")


@contextmanager
def small_terminals() -> Iterator[None]:
    """Meanwhile terminals remember few fares, so that a small world has something to forget, and put down
    what they write again a fact at a time."""
    with (
        mock.patch.object(segment, "PART_ROWS", 1),
        mock.patch.object(held, "RECENT_FARES", REMEMBERED),
        mock.patch.object(fares, "RECENT_FARES", REMEMBERED),
        mock.patch.object(pruning, "RECENT_FARES", REMEMBERED),
    ):
        yield
