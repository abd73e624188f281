"""Terminals that were paired anew and hear then that what they were has ended, and who is kin of whom.

Real terminals, and a real hub that does not do at once what they ask of it (invariants 4, 5 and 8).
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from crdt.documents import SignedDocument
from crdt.facts import ReplicaId
from crdt.revocations import REVOKED_DOCUMENT
from edge import comparing
from edge.canonical import CanonicalChain, canonical_chain
from edge.exchange import Answer
from edge.run import Run
from edge.terminal import Terminal
from hub import door
from hub.errors import RequestRefused
from hub.renewal import Renewal
from hub.settings import HubSettings
from tests.crdt.store.relays import EVERYTHING
from tests.demo.test_copied_storage import copy_of, gone_apart, nothing_is_there_to_adopt, pair_as
from tests.demo.test_forgotten_promise import (
    LATE,
    OPEN,
    SETTLED,
    balances,
    bus,
    listed,
    pair,
    settings,
    sync,
)
from tests.demo.test_settings_documents import enrolled
from tests.edge.test_uplink import ride
from tests.hub import conftest as hub_fixtures
from tests.hub.conftest import Depot
from tests.hub.test_restoring import up

__all__ = ["bus", "settings"]
write_settings = hub_fixtures.write_settings

pytestmark = pytest.mark.may_block("a start and an end of the hub wait for the disk")

A_FEW = 8  # exchanges


def seen(terminal: Terminal) -> list[int]:
    """The balances in its view."""
    view = enrolled(terminal).ledger.view
    return [view(card).balance_minor for card in (SETTLED, LATE, OPEN)]


async def test_a_run_ends_in_which_the_hub_takes_no_more_of_who_has_to_write_again(
    settings: HubSettings, bus: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 8: it has its share of the day. What it was has ended meanwhile, and it asked without end."""
    said: list[object] = []

    async def counted(run: Run, *arguments: Any) -> Answer:
        said.append(arguments)
        return await say(run, *arguments)

    say = Run.say
    async with up(settings) as depot, AsyncExitStack() as stack:
        await pair(depot, bus)
        await asyncio.to_thread(ride, bus, SETTLED)
        await sync(depot, bus)
        copy = await copy_of(tmp_path / "bus.db", tmp_path / "copy.db", stack)
        await asyncio.to_thread(ride, bus, LATE)
        await pair_as(depot, bus, "Bus 1")
        await asyncio.to_thread(enrolled(copy).ledger.suspend)
        await pair_as(depot, copy, "Bus 2")
        await asyncio.to_thread(ride, bus, LATE, 20)
        with monkeypatch.context() as slow:
            slow.setattr(door, "MAX_AUTHOR_DELTAS", 0)
            slow.setattr(door, "AUTHOR_DELTAS_A_DAY", 0)
            slow.setattr(Run, "say", counted)
            status = await sync(depot, bus)
            assert "far more than any bus does" in status.trouble
            assert len(said) <= A_FEW
        assert seen(bus) == [750, 730, 0]
        assert not (await sync(depot, bus)).trouble
        assert await balances(depot) == [750, 730, 0]


@pytest.mark.parametrize("fares_minor", [[100], [10, 15, 20, 25, 30]])
async def test_a_view_counts_once_what_was_written_again_while_the_hub_gives_no_identity(
    settings: HubSettings,
    bus: Terminal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fares_minor: list[int],
) -> None:
    """Invariant 6: the hub has something else of what it was, less or more, and what it had open from a copy
    as another. Also after a restart."""

    def refuse(*_arguments: object) -> None:
        raise RequestRefused("too_often", "Too many.")

    async with up(settings) as depot, AsyncExitStack() as stack:
        await gone_apart(depot, bus, tmp_path, fares_minor, stack)
        await asyncio.to_thread(ride, bus, LATE)
        await pair_as(depot, bus, "Bus 1")
        with monkeypatch.context() as refusing:
            refusing.setattr(Renewal, "_check_day", refuse)
            status = await sync(depot, bus)
            assert (status.trouble, status.disputed) == ("The hub refused: Too many.", "")
            assert seen(bus)[1:] == [750, 750], "all that it took"
            bus = await copy_of(tmp_path / "bus.db", tmp_path / "restarted.db", stack)
            assert seen(bus)[1:] == [750, 750]
            assert (await sync(depot, bus)).trouble == "The hub refused: Too many."
            assert seen(bus)[1:] == [750, 750]
        assert await balances(depot) == [650, 0, 750]
        assert not (await sync(depot, bus)).trouble
        assert await balances(depot) == [650, 750, 750]
        assert seen(bus) == [650, 750, 750]
        await nothing_is_there_to_adopt(depot)


async def moved(depot: Depot, replica: ReplicaId, seq: int) -> None:
    """An operator lets so much count of an identity that had ended."""
    authority, before = depot.hub.authority, await listed(depot)
    document = await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT))
    assert document is not None
    version, body = document.version + 1, before.with_cut_off(replica, seq).encode()
    signed = SignedDocument.seal(authority.ledger_key, authority.fleet, REVOKED_DOCUMENT, version, body)
    await asyncio.wrap_future(depot.hub.ledger.put_document(signed))


async def test_a_former_identity_of_which_more_counts_than_is_here_costs_no_other(
    settings: HubSettings, bus: Terminal, tmp_path: Path
) -> None:
    """Invariant 5: a copy wrote the rest, and the cut-off is moved up when the hub has it. Each cut-off that
    moves would cost one of the identities that a terminal may take in a day."""
    async with up(settings) as depot, AsyncExitStack() as stack:
        await pair(depot, bus)
        await asyncio.to_thread(ride, bus, SETTLED)
        await sync(depot, bus)
        before = enrolled(bus).identity.replica
        copy = await copy_of(tmp_path / "bus.db", tmp_path / "copy.db", stack)
        await asyncio.to_thread(enrolled(bus).ledger.suspend)
        assert not (await sync(depot, bus)).trouble
        now = enrolled(bus).identity.replica
        assert now != before
        await asyncio.to_thread(ride, copy, LATE)
        await asyncio.to_thread(enrolled(copy).ledger.seal)
        written = await asyncio.to_thread(enrolled(copy).ledger.blocks_after, 0, EVERYTHING)
        await moved(depot, before, 4)
        await asyncio.wrap_future(depot.hub.ledger.merge(written, []))
        assert await balances(depot) == [750, 750, 0]
        for _ in range(2):
            status = await sync(depot, bus)
            assert (status.online, status.trouble, status.disputed) == (True, "", "")
            assert enrolled(bus).identity.replica == now
            assert not enrolled(bus).ledger.suspended
        assert seen(bus) == [750, 750, 0]


async def test_buses_that_start_from_one_paired_image_are_no_kin(
    settings: HubSettings, bus: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 8: one that is restored asks for its own chains, not for those of the whole fleet; and
    invariant 5: it ends what it was itself, and no other bus."""
    asked: set[ReplicaId] = set()

    async def noted(say: comparing.Exchange, replica: ReplicaId, after_seq: int) -> CanonicalChain:
        asked.add(replica)
        return await canonical_chain(say, replica, after_seq)

    async with up(settings) as depot, AsyncExitStack() as stack:
        await pair(depot, bus)
        await sync(depot, bus)
        image = enrolled(bus).identity.replica
        buses = [await copy_of(tmp_path / "bus.db", tmp_path / f"{n}.db", stack) for n in range(3)]
        for number, one in enumerate(buses, 2):
            await pair_as(depot, one, f"Bus {number}")
            await asyncio.to_thread(ride, one, SETTLED)
            assert not (await sync(depot, one)).trouble
        restored = buses[0]
        before = enrolled(restored).identity.replica
        await asyncio.to_thread(enrolled(restored).ledger.suspend)
        monkeypatch.setattr(comparing, "canonical_chain", noted)
        assert not (await sync(depot, restored)).trouble
        now = enrolled(restored).identity.replica
        assert asked == {image, before, now}
        assert (await listed(depot)).cut_offs.keys() == {before}
