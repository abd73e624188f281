"""Operators' sessions, in every database that a hub's ledger may lie in."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from crdt.store.store import Store
from hub import sessions, tables
from hub.sessions import Sessions
from tests.crdt.store.servers import Server
from tests.crdt.store.stores import store_opener

IDLE_S, LONGEST_S = 100, 1000


@pytest.fixture
def store(server: Server | None, tmp_path: Path) -> Iterator[Store]:
    """A database with a hub's tables in it."""
    with store_opener(server, tmp_path)() as opened:
        opened.create(tables.metadata)
        yield opened


def sessions_of(store: Store, now_ms: Callable[[], int]) -> Sessions:
    numbers = count()
    return Sessions(store, IDLE_S, LONGEST_S, now_ms, lambda size: next(numbers).to_bytes(size, "big"))


async def test_a_session_stands_until_it_ends(store: Store) -> None:
    clock = [0]
    kept = sessions_of(store, lambda: clock[0])
    one, other = await kept.begin(), await kept.begin()
    await kept.end(one)
    assert not await kept.stands(one, touch=True)
    clock[0] = IDLE_S * 1000
    assert await kept.stands(other, touch=True)
    clock[0] += IDLE_S * 1000
    assert await kept.stands(other, touch=False), "it was used meanwhile"
    clock[0] += 1
    assert not await kept.stands(other, touch=False)


async def test_of_too_many_sessions_the_one_that_was_used_longest_ago_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the database takes no limit within an IN."""
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    clock = count(1)
    kept = sessions_of(store, lambda: next(clock))
    begun = [await kept.begin() for _ in range(3)]
    assert [await kept.stands(token, touch=False) for token in begun] == [False, True, True]
