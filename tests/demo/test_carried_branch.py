"""Both sides' real code: a branch that only another door has is not covered up by the hub's settlement."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from crdt.errors import RefusalCode
from crdt.facts import CardId
from crdt.frames import Hello, Message
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from edge.exchange import Answer
from edge.sync import Delivery, Outcome, Sync
from edge.terminal import Terminal
from hub.answering import Answerer
from hub.heard import Heard
from tests.crdt.store.quarantined import in_quarantine
from tests.edge.authority import Fleet
from tests.edge.conftest import KEY, pair
from tests.edge.doors import Door, compared, doors
from tests.edge.test_delivery import copied
from tests.edge.test_uplink import enrolled, ride
from tests.edge.testhub import TestHub, open_ledger

FIRST, LOST, AFTER = (CardId(bytes([4, 0, 0, number])) for number in (1, 2, 3))


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet(1)


@pytest.fixture
def hub(tmp_path: Path, fleet: Fleet) -> Iterator[TestHub]:
    with Database.open(tmp_path / "hub.db", KEY) as opened:
        yield TestHub(fleet, open_ledger(opened, fleet))


async def synced(
    terminal: Terminal,
    hub: TestHub,
    at_ms: int = 10**12,
    describe: Callable[[], Mapping[str, Any]] = dict,
) -> Outcome:
    """A sync run against the hub's real answers."""
    answerer = Answerer(hub.ledger, 4_096, asyncio.wrap_future, lambda: at_ms)
    certificate = enrolled(terminal).identity.certificate

    async def exchange(messages: Sequence[Message]) -> Answer:
        heard = Heard(certificate.replica, certificate.name, certificate.terminal)
        for message in messages:
            heard.take(message)
        answer = await answerer.answer(heard)
        hello = Hello(hub.fleet.id, hub.ledger.replica, answer.frontier)
        return Answer(hello, tuple(answer.messages), None, 1)

    return await Sync(terminal, enrolled(terminal), exchange, describe, Delivery()).run()


@pytest.fixture
def rear(tmp_path: Path, fleet: Fleet) -> Iterator[Door]:
    (tmp_path / "rear").mkdir()
    with doors(tmp_path / "rear", fleet, 1) as (door,):
        yield door


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "ledger.db", KEY, layout=TERMINAL_LAYOUT) as opened:
        yield opened


@pytest.fixture
def bus(database: Database, fleet: Fleet) -> Terminal:
    terminal = Terminal(database)
    pair(terminal, fleet)
    return terminal


@pytest.mark.parametrize("rides", [2, 5])
async def test_invariants_4_and_5_the_branch_of_another_is_proved(
    rides: int, hub: TestHub, bus: Terminal, database: Database, rear: Door, tmp_path: Path
) -> None:
    """The bus was put back, marks and all, and went on; its lost ride is with the other door alone."""
    await asyncio.to_thread(ride, bus, FIRST)
    await synced(bus, hub)
    image = await asyncio.to_thread(copied, database, tmp_path)
    await asyncio.to_thread(ride, bus, LOST)
    await asyncio.to_thread(enrolled(bus).ledger.seal)
    await compared(await asyncio.to_thread(Door.of, bus), rear)
    restored = await asyncio.to_thread(Database.open, image, KEY, layout=TERMINAL_LAYOUT)
    again = await asyncio.to_thread(Terminal, restored)
    for _ in range(rides):
        await asyncio.to_thread(ride, again, AFTER)
    await synced(again, hub)
    await asyncio.to_thread(restored.close)
    assert (await synced(rear.terminal, hub)).complete
    (proof,) = await asyncio.wrap_future(in_quarantine(hub.ledger))
    author = enrolled(bus).identity.replica
    assert (proof.replica, proof.reason) == (author, RefusalCode.FORK_DETECTED)
    assert proof.first_seq == 3, "LOST: the opening and the fare of a card not met before"
    assert await asyncio.wrap_future(hub.ledger.digest()) == await asyncio.to_thread(rear.ledger.digest)
