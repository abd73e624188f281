"""A copy of a terminal's storage that is paired under a name of its own, as the hub advises (invariant 5)."""

import asyncio
import os
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from crdt.store.database import Database
from edge.addresses import AddressBook
from edge.enrolling import Enroller, Way
from edge.terminal import Terminal
from hub.settings import HubSettings
from tests.crdt.store.quarantined import in_quarantine
from tests.demo.test_forgotten_promise import (
    OPEN,
    SETTLED,
    address_of,
    balances,
    bus,
    pair,
    settings,
    sync,
)
from tests.demo.test_settings_documents import KEY, LIMITS, enrolled
from tests.edge.test_uplink import ride
from tests.hub import conftest as hub_fixtures
from tests.hub.conftest import Depot
from tests.hub.test_restoring import up

__all__ = ["bus", "settings"]
write_settings = hub_fixtures.write_settings

pytestmark = pytest.mark.may_block("a start and an end of the hub wait for the disk")


async def pair_as(depot: Depot, terminal: Terminal, name: str) -> None:
    book, way = AddressBook(None, None), Way(LIMITS, "")
    enroller = Enroller(terminal, book, name, way, lambda _address: None, os.urandom)
    await enroller.pair(await depot.invite(), address_of(depot))


async def test_what_it_had_not_sent_as_the_other_one_counts_once(
    settings: HubSettings, bus: Terminal, tmp_path: Path
) -> None:
    """Both have sealed as what they were. What the copy has of that is no chain of the terminal's that it is
    now, and the hub's is longer: it gives way all the same, and nothing of it is there to adopt then."""
    async with up(settings) as depot:
        await pair(depot, bus)
        await sync(depot, bus)
        for suffix in ("", "-wal"):
            await asyncio.to_thread(shutil.copy, tmp_path / f"bus.db{suffix}", tmp_path / f"copy.db{suffix}")
        for _ in range(2):
            await asyncio.to_thread(ride, bus, SETTLED)
            assert not (await sync(depot, bus)).trouble
        with await asyncio.to_thread(Database.open, tmp_path / "copy.db", KEY) as file:
            copy = await asyncio.to_thread(Terminal, file)
            await asyncio.to_thread(ride, copy, OPEN)
            await pair_as(depot, copy, "Bus 2")
            status = await sync(depot, copy)
            assert (status.online, status.trouble, status.disputed) == (True, "", "")
            assert enrolled(copy).ledger.held() == (0, 0)
            assert await balances(depot) == [500, 0, 750]
        branch = await asyncio.wrap_future(in_quarantine(depot.hub.ledger))
        assert branch
        await asyncio.wrap_future(depot.hub.ledger.adopt([entry.hash for entry in branch]))
        assert await balances(depot) == [500, 0, 750]


async def test_it_does_not_give_way_each_time_that_the_other_one_has_gone_on(
    settings: HubSettings, bus: Terminal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its storage ends where it was copied, within the other one's chain: nothing is to be fetched."""
    async with up(settings) as depot:
        await pair(depot, bus)
        await asyncio.to_thread(ride, bus, SETTLED)
        await sync(depot, bus)
        for suffix in ("", "-wal"):
            await asyncio.to_thread(shutil.copy, tmp_path / f"bus.db{suffix}", tmp_path / f"copy.db{suffix}")
        with await asyncio.to_thread(Database.open, tmp_path / "copy.db", KEY) as file:
            copy = await asyncio.to_thread(Terminal, file)
            await pair_as(depot, copy, "Bus 2")
            await asyncio.to_thread(ride, bus, SETTLED, 100)
            for one in (bus, copy):
                assert not (await sync(depot, one)).trouble
            assert enrolled(copy).ledger.view(SETTLED).balance_minor == 650
    assert "gave way" not in caplog.text


@pytest.mark.parametrize("at_once", [True, False])
async def test_what_was_open_in_each_of_several_copies_counts_once(
    settings: HubSettings, bus: Terminal, tmp_path: Path, at_once: bool
) -> None:
    """Each hears what the others have written since as whoever they are now: it cannot tell who is a copy.

    Also where one is paired before another has sent anything as that: then that has to compare again, and
    only then.
    """
    async with up(settings) as depot, AsyncExitStack() as stack:
        await pair(depot, bus)
        await asyncio.to_thread(ride, bus, SETTLED)
        await sync(depot, bus)
        await asyncio.to_thread(ride, bus, OPEN)
        copies = []
        for name, fare_minor in (("Bus 2", 100), ("Bus 3", 200)):
            path = tmp_path / f"{name}.db"
            for suffix in ("", "-wal"):
                await asyncio.to_thread(shutil.copy, tmp_path / f"bus.db{suffix}", f"{path}{suffix}")
            file = stack.enter_context(await asyncio.to_thread(Database.open, path, KEY))
            copies.append((name, await asyncio.to_thread(Terminal, file)))
            await asyncio.to_thread(ride, copies[-1][1], SETTLED, fare_minor)
        for one in (bus, *(copy for _, copy in copies)):
            await asyncio.to_thread(enrolled(one).ledger.suspend)
        for name, copy in copies:
            await pair_as(depot, copy, name)
            if not at_once:
                assert not (await sync(depot, copy)).trouble
        paired = [enrolled(copy).identity.replica for _, copy in copies]
        for one in (bus, *(copy for _, copy in copies)):
            assert not (await sync(depot, one)).trouble
        assert await balances(depot) == [450, 0, 750]
        assert at_once or paired == [enrolled(copy).identity.replica for _, copy in copies]
        for _, copy in copies:
            assert not (await sync(depot, copy)).trouble
            assert enrolled(copy).ledger.view(SETTLED).balance_minor == 450
            assert enrolled(copy).ledger.view(OPEN).balance_minor == 750
