"""Copies of a storage that are paired anew and do not know that they are copies: a real hub, real terminals.

Each writes again what the storage held, under an identity that counts (invariant 5).
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from crdt.errors import RefusalCode
from crdt.facts import Kind
from edge.terminal import Terminal
from hub.settings import HubSettings
from tests.crdt.store.quarantined import at_rest
from tests.demo.test_copied_storage import copy_of
from tests.demo.test_forgotten_promise import OPEN, SETTLED, balances, bus, pair, settings, sync
from tests.demo.test_settings_documents import enrolled
from tests.edge.test_uplink import ride
from tests.hub import conftest as hub_fixtures
from tests.hub.test_restoring import up

__all__ = ["bus", "settings"]
write_settings = hub_fixtures.write_settings

pytestmark = pytest.mark.may_block("a start and an end of the hub wait for the disk")


async def test_what_both_had_sealed_beside_the_hubs_chain_counts_once_and_the_operator_is_told(
    settings: HubSettings, bus: Terminal, tmp_path: Path
) -> None:
    """One copy goes on as the old identity; two hold the same block beside that, and are paired anew."""
    async with up(settings) as depot, AsyncExitStack() as stack:
        await pair(depot, bus)
        await sync(depot, bus)
        first = await copy_of(tmp_path / "bus.db", tmp_path / "first.db", stack)
        await asyncio.to_thread(ride, first, SETTLED)
        assert not (await sync(depot, first)).trouble
        await asyncio.to_thread(ride, bus, OPEN)
        await asyncio.to_thread(enrolled(bus).ledger.seal)
        second = await copy_of(tmp_path / "bus.db", tmp_path / "second.db", stack)
        for one in (bus, second):
            await pair(depot, one)
        for one in (bus, second):
            assert not (await sync(depot, one)).trouble
        await asyncio.to_thread(at_rest, depot.hub.ledger)
        assert await balances(depot) == [750, 0, 750]
        facts = await asyncio.wrap_future(depot.hub.ledger.history(OPEN, 10))
        assert sorted(fact.kind for fact in facts if fact.kind is not Kind.OPENING) == [
            Kind.FARE,
            Kind.FARE,
            Kind.DUPLICATE,
        ]
        flags = await asyncio.wrap_future(depot.hub.ledger.flags())
        copied = {flag.replica for flag in flags if flag.code is RefusalCode.RESTORED}
        assert copied == {enrolled(one).identity.replica for one in (bus, second)}
        assert not (await sync(depot, second)).trouble
        assert enrolled(second).ledger.view(OPEN).balance_minor == 750
        mine = await asyncio.to_thread(enrolled(second).ledger.digest)
        assert mine == await asyncio.wrap_future(depot.hub.ledger.digest())
