"""The registry of terminals, on each database: what is asked of it, as it was last heard of."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.facts import TerminalId
from crdt.store.store import Store
from hub import tables
from hub.registry import Registry
from hub.sightings import Sighting
from tests.crdt.store.servers import Server
from tests.crdt.store.stores import store_opener

ONE, TWO, GONE = (TerminalId(bytes([number]) * 16) for number in (1, 2, 3))


@pytest.fixture
def store(server: Server | None, tmp_path: Path) -> Iterator[Store]:
    """A database with a hub's tables in it."""
    with store_opener(server, tmp_path)() as opened:
        opened.create(tables.metadata)
        yield opened


async def test_every_terminal_one_of_them_and_those_put_back(store: Store) -> None:
    """Each as it was last heard of: also what is not written down yet."""
    rows: list[dict[str, object]] = [
        {"terminal": ONE, "name": "b", "restored_ms": 5, "revoked_ms": None, "seen_ms": 9},
        {"terminal": TWO, "name": "a", "restored_ms": None, "revoked_ms": None, "seen_ms": None},
        {"terminal": GONE, "name": "c", "restored_ms": None, "revoked_ms": 7, "seen_ms": 6},
    ]
    enter = tables.terminal.insert().values(replica=bytes(16), paired_ms=1)
    await asyncio.wrap_future(store.write(lambda connection: connection.execute(enter, rows) and None))
    registry = Registry(store)
    registry.sightings.note(TWO, Sighting(12, "10.0.0.1", {"held": 3}))
    every = await registry.terminals()
    assert [(one.terminal, one.name, one.seen_ms, one.status) for one in every] == [
        (TWO, "a", 12, {"held": 3}),
        (ONE, "b", 9, {}),
        (GONE, "c", 6, {}),
    ]
    assert sorted(at_ms or 0 for at_ms in await registry.seen()) == [9, 12], (
        "the revoked one is nobody's concern"
    )
    assert await registry.terminal(TWO) == every[0]
    assert await registry.terminal(TerminalId(b"?" * 16)) is None
    assert await registry.once_put_back() == [every[1]]
    registry.sightings.note(ONE, Sighting(13, "10.0.0.2", sound_ms=13))
    assert [one.restored_ms for one in await registry.once_put_back()] == [None], "it was a mistake"
