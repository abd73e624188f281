"""Two processes of a hub change one document at once, and neither change is lost."""

import asyncio
import os

import pytest

from crdt.certificate import Limits
from crdt.facts import Kind
from crdt.frames import BlockFrame, CertificateFrame
from hub.app import TERMINAL_KINDS, now_ms
from hub.events import EventBus
from hub.invites import Invites
from hub.registry import Registry
from hub.service import Author, Service
from tests.hub.conftest import Depot
from tests.hub.terminal import first

PROCESSES = 3


@pytest.fixture
def services(depot: Depot) -> list[Service]:
    """What each process has of its own, on one database."""
    hub = depot.hub
    limits = Limits(TERMINAL_KINDS, 100_000, 100_000, 1_000_000)
    author = Author(hub.authority.fleet, hub.authority.ledger_key, hub.authority.hub_certificate, limits)

    def service() -> Service:
        invites = Invites(hub.database, 600, 3)
        registry = Registry(hub.database)
        return Service(hub.database, hub.ledger, author, registry, invites, EventBus(), now_ms, os.urandom)

    return [service() for _ in range(PROCESSES)]


async def test_settings_that_are_changed_at_once_are_all_changed(services: list[Service]) -> None:
    changes = [{"flat_fare": "3.10"}, {"low_balance": "7.00"}, {"day_starts_at_h": "4"}]
    await asyncio.gather(*(each.fleet.change(change) for each, change in zip(services, changes, strict=True)))
    values = (await services[0].fleet.show()).values
    assert {name: values[name] for change in changes for name in change} == {
        name: value for change in changes for name, value in change.items()
    }


async def test_terminals_that_are_revoked_at_once_are_all_revoked(
    depot: Depot, services: list[Service]
) -> None:
    """Invariant 10: nothing of any of them counts from then on."""
    stolen = [await depot.pair(f"Bus {number}") for number in range(PROCESSES)]
    carrier = await depot.pair("Carrier")
    await asyncio.gather(
        *(each.revoke(one.certificate.name) for each, one in zip(services, stolen, strict=True))
    )
    papers = [CertificateFrame(one.certificate.encode()) for one in stolen]
    taken = [BlockFrame(one.taps(2000, kind=Kind.OPENING)) for one in stolen]
    events = await carrier.exchange(*papers, *taken)
    assert not any(head.seq for head in first(events, "Ack").frontier.values())
