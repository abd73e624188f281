"""A copy of a terminal's storage that is paired under a name of its own, as the hub advises (invariant 5)."""

import asyncio
import os
import shutil
from collections.abc import Iterable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from crdt.store.database import Database
from edge.addresses import AddressBook
from edge.comparing import take_up
from edge.enrolling import Enroller, Way
from edge.terminal import Terminal
from hub.errors import RequestRefused
from hub.renewal import Renewal
from hub.settings import HubSettings
from tests.crdt.store.quarantined import at_rest, in_quarantine
from tests.demo.test_forgotten_promise import (
    LATE,
    OPEN,
    SETTLED,
    address_of,
    balances,
    bus,
    client,
    pair,
    promise,
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


async def copy_of(bus: Path, into: Path, stack: AsyncExitStack) -> Terminal:
    """A terminal on a copy of what the storage is now."""
    for suffix in ("", "-wal"):
        await asyncio.to_thread(shutil.copy, f"{bus}{suffix}", f"{into}{suffix}")
    file = stack.enter_context(await asyncio.to_thread(Database.open, into, KEY))
    return await asyncio.to_thread(Terminal, file)


async def gone_apart(
    depot: Depot, bus: Terminal, directory: Path, fares_minor: Iterable[int], stack: AsyncExitStack
) -> None:
    """A first copy, which lacks what the terminal and a second copy have open, has sent these fares instead.
    The second one has given way, and written it again under an identity that the terminal does not know."""
    await pair(depot, bus)
    await asyncio.to_thread(ride, bus, SETTLED)
    await sync(depot, bus)
    first = await copy_of(directory / "bus.db", directory / "first.db", stack)
    await asyncio.to_thread(ride, bus, OPEN)
    second = await copy_of(directory / "bus.db", directory / "second.db", stack)
    for fare_minor in fares_minor:
        await asyncio.to_thread(ride, first, SETTLED, fare_minor)
    for one in (first, second):
        assert not (await sync(depot, one)).trouble


async def test_what_it_had_not_sent_as_the_other_one_counts_once(
    settings: HubSettings, bus: Terminal, tmp_path: Path
) -> None:
    """Both have sealed as what they were. What the copy has of that is no chain of the terminal's that it is
    now, and the hub's is longer: it gives way all the same, and nothing of it is there to adopt then."""
    async with up(settings) as depot, AsyncExitStack() as stack:
        await pair(depot, bus)
        await sync(depot, bus)
        copy = await copy_of(tmp_path / "bus.db", tmp_path / "copy.db", stack)
        for _ in range(2):
            await asyncio.to_thread(ride, bus, SETTLED)
            assert not (await sync(depot, bus)).trouble
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
    async with up(settings) as depot, AsyncExitStack() as stack:
        await pair(depot, bus)
        await asyncio.to_thread(ride, bus, SETTLED)
        await sync(depot, bus)
        copy = await copy_of(tmp_path / "bus.db", tmp_path / "copy.db", stack)
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
            copies.append((name, await copy_of(tmp_path / "bus.db", tmp_path / f"{name}.db", stack)))
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


async def nothing_is_there_to_adopt(depot: Depot) -> None:
    """Whatever an operator adopts, the cards have what they had."""
    before = await balances(depot)
    found = await asyncio.wrap_future(in_quarantine(depot.hub.ledger))
    await asyncio.wrap_future(depot.hub.ledger.adopt([entry.hash for entry in found]))
    assert await balances(depot) == before


async def counted_once(depot: Depot, *terminals: Terminal) -> None:
    """The hub has looked for rides that several say, and they hear what came of it.

    It does not know that storage which is not restored has copies, where it is paired under another name.
    """
    await asyncio.to_thread(at_rest, depot.hub.ledger)
    for one in terminals:
        assert not (await sync(depot, one)).trouble


@pytest.mark.parametrize("name", ["Bus 1", "Bus 2"])
async def test_one_that_is_paired_without_having_heard_that_it_had_ended_loses_nothing(
    settings: HubSettings, bus: Terminal, tmp_path: Path, name: str
) -> None:
    """A copy had been given another identity. What both had open the copy has written again, and the
    terminal writes the rest as what it is now: nothing leaves its view, and no operator is needed."""
    async with up(settings) as depot, AsyncExitStack() as stack:
        await pair(depot, bus)
        await asyncio.to_thread(ride, bus, SETTLED)
        await sync(depot, bus)
        await asyncio.to_thread(ride, bus, OPEN)
        copy = await copy_of(tmp_path / "bus.db", tmp_path / "copy.db", stack)
        await asyncio.to_thread(ride, copy, SETTLED, 100)
        await asyncio.to_thread(enrolled(copy).ledger.suspend)
        assert not (await sync(depot, copy)).trouble
        await asyncio.to_thread(ride, bus, LATE)
        await asyncio.to_thread(ride, bus, OPEN, 50)
        assert await balances(depot) == [650, 0, 750]
        await pair_as(depot, bus, name)
        await asyncio.to_thread(ride, bus, LATE, 20)
        status = await sync(depot, bus)
        assert (status.online, status.trouble, status.disputed) == (True, "", "")
        await counted_once(depot, bus)
        assert await balances(depot) == [650, 730, 700]
        now = enrolled(bus).ledger
        assert [now.view(card).balance_minor for card in (SETTLED, LATE, OPEN)] == [650, 730, 700]
        assert (now.held(), now.suspended) == ((0, 0), False)
        await nothing_is_there_to_adopt(depot)


@pytest.mark.parametrize("name", ["Bus 1", "Bus 3"])
async def test_one_whose_identity_ends_after_it_was_paired_anew_loses_nothing(
    settings: HubSettings, bus: Terminal, tmp_path: Path, name: str
) -> None:
    """A copy is paired under a name of its own, and the hub ends what both were, before the terminal has sent
    what it wrote as that: it hears of it as what it is now."""
    async with up(settings) as depot, AsyncExitStack() as stack:
        await pair(depot, bus)
        await asyncio.to_thread(ride, bus, SETTLED)
        await sync(depot, bus)
        await asyncio.to_thread(ride, bus, OPEN)
        copy = await copy_of(tmp_path / "bus.db", tmp_path / "copy.db", stack)
        await asyncio.to_thread(ride, bus, LATE)
        await pair_as(depot, bus, name)
        await asyncio.to_thread(ride, copy, SETTLED, 100)
        await asyncio.to_thread(enrolled(copy).ledger.suspend)
        await pair_as(depot, copy, "Bus 2")
        assert not (await sync(depot, copy)).trouble
        assert await balances(depot) == [650, 0, 750]
        await asyncio.to_thread(ride, bus, LATE, 20)
        for one in (bus, copy):
            status = await sync(depot, one)
            assert (status.online, status.trouble, status.disputed) == (True, "", "")
        await counted_once(depot, bus, copy)
        assert await balances(depot) == [650, 730, 750]
        for one in (bus, copy):
            now = enrolled(one).ledger
            assert [now.view(card).balance_minor for card in (SETTLED, LATE, OPEN)] == [650, 730, 750]
            assert (now.held(), now.suspended) == ((0, 0), False)
        await nothing_is_there_to_adopt(depot)


async def test_one_that_is_refused_another_identity_keeps_what_it_has_to_write_again(
    settings: HubSettings,
    bus: Terminal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It took too many in a day, say. Taps go on, all of it is in its view, and nothing is disputed."""

    def refuse(*_arguments: object) -> None:
        raise RequestRefused("too_often", "Too many.")

    async with up(settings) as depot, AsyncExitStack() as stack:
        await pair(depot, bus)
        await asyncio.to_thread(ride, bus, SETTLED)
        await sync(depot, bus)
        copy = await copy_of(tmp_path / "bus.db", tmp_path / "copy.db", stack)
        await asyncio.to_thread(enrolled(copy).ledger.suspend)
        await asyncio.to_thread(ride, bus, LATE)
        await pair_as(depot, bus, "Bus 1")
        await pair_as(depot, copy, "Bus 2")
        with monkeypatch.context() as refusing:
            refusing.setattr(Renewal, "_check_day", refuse)
            for fare_minor in (20, 25):
                await asyncio.to_thread(ride, bus, LATE, fare_minor)
                status = await sync(depot, bus)
                assert (status.trouble, status.disputed) == ("The hub refused: Too many.", "")
        assert enrolled(bus).ledger.view(LATE).balance_minor == 705
        assert "disputed" not in caplog.text
        assert await balances(depot) == [750, 0, 0], "what it had not said as it is now has ended too"
        assert not (await sync(depot, bus)).trouble
        assert await balances(depot) == [750, 705, 0]
        await nothing_is_there_to_adopt(depot)


async def test_what_a_copy_has_not_brought_by_then_counts_once(
    settings: HubSettings, bus: Terminal, tmp_path: Path
) -> None:
    """It had taken its next identity up, and left. That ends when the terminal that was paired meanwhile asks
    for another, for both have written the same; paired anew, the copy hears of it and compares as well."""
    async with up(settings) as depot, AsyncExitStack() as stack:
        await pair(depot, bus)
        await asyncio.to_thread(ride, bus, SETTLED)
        await sync(depot, bus)
        await asyncio.to_thread(ride, bus, OPEN)
        copy = await copy_of(tmp_path / "bus.db", tmp_path / "copy.db", stack)
        promised = await promise(depot, copy)
        async with await client(promised.identity) as asking:
            await take_up(copy, promised, partial(asking.exchange, address_of(depot)))
        await asyncio.to_thread(ride, copy, SETTLED, 100)
        await asyncio.to_thread(ride, bus, LATE)
        await pair_as(depot, bus, "Bus 1")
        assert not (await sync(depot, bus)).trouble
        assert await balances(depot) == [750, 750, 750]
        await pair_as(depot, copy, "Bus 2")
        for one in (copy, bus):
            status = await sync(depot, one)
            assert (status.online, status.trouble, status.disputed) == (True, "", "")
        await counted_once(depot, copy, bus)
        for one in (copy, bus):
            assert enrolled(one).ledger.view(OPEN).balance_minor == 750
        assert await balances(depot) == [650, 750, 750]
        await nothing_is_there_to_adopt(depot)


@pytest.mark.parametrize("fares_minor", [[100], [10, 15, 20, 25, 30]])
async def test_what_contradicts_the_hubs_chain_of_one_that_has_ended_counts_once(
    settings: HubSettings, bus: Terminal, tmp_path: Path, fares_minor: list[int]
) -> None:
    """By less than the terminal has, or more."""
    async with up(settings) as depot, AsyncExitStack() as stack:
        await gone_apart(depot, bus, tmp_path, fares_minor, stack)
        assert await balances(depot) == [650, 0, 750]
        await asyncio.to_thread(ride, bus, LATE)
        await pair_as(depot, bus, "Bus 1")
        status = await sync(depot, bus)
        assert (status.online, status.trouble, status.disputed) == (True, "", "")
        assert await balances(depot) == [650, 750, 750]
        view = enrolled(bus).ledger.view
        assert [view(card).balance_minor for card in (SETTLED, LATE, OPEN)] == [650, 750, 750]
        await nothing_is_there_to_adopt(depot)
