"""A card that owes too much, as a terminal tells of it: not as one that somebody has blocked."""

import asyncio
from pathlib import Path

import pytest

from crdt.store.database import Database
from edge.addresses import AddressBook
from edge.decide import Reason, Refused, decide
from edge.report import Report
from edge.settings import check_settings
from edge.tech import tell_card
from edge.terminal import Terminal
from tests.edge.authority import Fleet
from tests.edge.clocks import standing_clock
from tests.edge.conftest import FARES, document
from tests.edge.jobs import running
from tests.edge.test_uplink import CARDS, enrolled, ride, uplink_of
from tests.edge.testhub import TestHub, open_ledger

CARD = CARDS[0]


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    return TestHub(fleet, ledger, document=document(fleet, FARES))


def believed(terminal: Terminal) -> tuple[Reason, str]:
    """Why the card is refused, and the first line that the technician reads of it."""
    verdict = decide(enrolled(terminal).ledger.view(CARD), FARES, "", 1_780_000_000_000)
    assert isinstance(verdict, Refused)
    settings = check_settings(Path("/etc/edge.toml"), {"terminal": {"name": "Bus 12 front"}})
    said = Report(settings, terminal, standing_clock(), str).card(CARD)
    assert said is not None
    return verdict.reason, tell_card(said).splitlines()[0]


async def test_an_overdrawn_card_is_told_apart_from_a_blocked_one(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """The one that is stolen too, for which paying is no help."""
    await asyncio.wrap_future(hub.ledger.set_floor(0))
    await asyncio.to_thread(ride, paired, CARD, 1_250)
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(address, None))
        async with running(uplink):
            await uplink.sync_now()
            name, owes = f"card {CARD.hex().upper()}:", "balance -2.50 EUR"
            overdrawn = f"{name} overdrawn, and refused until it is paid, {owes}"
            assert await asyncio.to_thread(believed, paired) == (Reason.OVERDRAWN, overdrawn)
            await asyncio.wrap_future(hub.ledger.set_hotlisted(CARD, True))
            await uplink.sync_now()
            blocked = f"{name} blocked, {owes}"
            assert await asyncio.to_thread(believed, paired) == (Reason.HOTLISTED, blocked)
