"""A terminal that an operator has revoked takes itself out of service as soon as the signed list says so."""

import asyncio
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web

from crdt.cursor import START
from crdt.documents import SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import Draft, Kind, ReplicaId
from crdt.frames import DocumentFrame, Hello, Message
from crdt.pull import Pull
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.store.database import Database
from edge.addresses import AddressBook
from edge.errors import AnswerRefused
from edge.exchange import Answer
from edge.sync import Sync
from edge.terminal import Terminal
from edge.words import REVOKED
from hardware.emulator.pty_line import EmulatedReader, PtyLine
from hardware.feedback import Signal
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, Passenger, document
from tests.edge.doors import Door, compared, doors, revoked
from tests.edge.jobs import running
from tests.edge.test_restored import Line
from tests.edge.test_taps import taking_taps, tap
from tests.edge.test_uplink import CARDS, enrolled, ride, uplink_of
from tests.edge.testhub import TestHub, open_ledger

OTHER = "04000000000001"


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    return TestHub(fleet, ledger, document=document(fleet, FARES))


@pytest.fixture
def line() -> Iterator[PtyLine]:
    with EmulatedReader() as line:
        yield line


@pytest.fixture
def two(tmp_path: Path, fleet: Fleet) -> Iterator[list[Door]]:
    with doors(tmp_path, fleet) as found:
        yield found


async def refuse(_request: web.Request, _honest: Sequence[Message]) -> web.Response:
    """As a hub does that has revoked whoever asks."""
    return web.json_response({"error": "revoked", "message": "The terminal was revoked."}, status=403)


def listed(fleet: Fleet, body: Revocations, version: int) -> SignedDocument:
    return SignedDocument.seal(fleet.hub_key, fleet.id, REVOKED_DOCUMENT, version, body.encode())


def test_a_terminal_that_knows_it_was_revoked_takes_no_taps(
    paired: Terminal, fleet: Fleet, line: PtyLine, passenger: Passenger
) -> None:
    """What it took would wait in quarantine, and the passenger would have paid for nothing."""
    with taking_taps(paired, line, passenger):
        tap(line, passenger, Signal.ACCEPTED)
        last_seq = enrolled(paired).ledger.status()["head_seq"]
        before = enrolled(paired).identity.certificate.terminal
        enrolled(paired).ledger.put_document(revoked(fleet, {enrolled(paired).ledger.replica: last_seq}))
        assert passenger.sees(Signal.OUT_OF_SERVICE) == REVOKED
        assert tap(line, passenger, Signal.OUT_OF_SERVICE, OTHER) == REVOKED
        assert enrolled(paired).ledger.status()["head_seq"] == last_seq
        assert enrolled(paired).ledger.status()["revoked"]
        paired.enrol(fleet.enrol(terminal=before), enrolled(paired).identity)
        passenger.sees(Signal.READY)
        tap(line, passenger, Signal.ACCEPTED, "04000000000002")


def test_it_knows_so_after_a_restart_too(paired: Terminal, database: Database, fleet: Fleet) -> None:
    enrolled(paired).ledger.put_document(revoked(fleet, {enrolled(paired).ledger.replica: 0}))
    assert enrolled(Terminal(database)).ledger.revoked


def test_a_terminal_that_the_list_no_longer_names_is_in_service_again(paired: Terminal, fleet: Fleet) -> None:
    ledger = enrolled(paired).ledger
    ledger.put_document(revoked(fleet, {ledger.replica: 0}))
    ledger.put_document(listed(fleet, NONE_REVOKED, 2))
    assert not ledger.revoked


def test_an_identity_that_was_only_replaced_stays_in_service(paired: Terminal, fleet: Fleet) -> None:
    """Its terminal goes on by itself: taps are kept, and written again under the next identity."""
    ledger = enrolled(paired).ledger
    replaced = NONE_REVOKED.with_replaced({ledger.replica: 0})
    ledger.put_document(listed(fleet, replaced, 1))
    assert not ledger.revoked
    ledger.put_document(listed(fleet, replaced.with_revoked({ledger.replica: 0}), 2))
    assert ledger.revoked


async def test_a_hub_that_refuses_it_gives_it_the_list(
    paired: Terminal, fleet: Fleet, hub: TestHub, tmp_path: Path
) -> None:
    """A refusal is a word, which takes nobody out of service; the list is signed. It is asked for more and
    more seldom, and not any more once it says so."""
    ledger = enrolled(paired).ledger
    hub.misbehave = refuse
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(paired, AddressBook(address, None))
        async with running(uplink):
            assert not (await uplink.sync_now()).online
            assert not ledger.revoked
            hub.revoked = listed(Fleet(9), Revocations({ledger.replica: 0}), 1)
            for _ in range(2):
                await uplink.sync_now()
            assert not ledger.revoked, "the list of another fleet"
            assert hub.lists_given == 2
            hub.revoked = revoked(fleet, {ReplicaId(bytes(16)): 0, ledger.replica: 0})
            for _ in range(3):
                status = await uplink.sync_now()
            assert enrolled(paired).ledger.revoked
            assert "was revoked" in status.trouble
            for _ in range(9):
                await uplink.sync_now()
            assert hub.lists_given == 3


class Changing(Line):
    """An operator ends an identity while the second page of a settlement is under way."""

    def __init__(self, hub: TestHub, terminal: Terminal, ends: ReplicaId, *, replaced: bool) -> None:
        super().__init__(hub, terminal)
        self.ends, self.replaced = ends, replaced
        self.knew: list[tuple[ReplicaId, bool]] = []
        """Who asked for a page each time, and whether the terminal knew by then."""

    async def exchange(self, messages: Sequence[Message]) -> Answer:
        hello, ledger = messages[0], enrolled(self.terminal).ledger
        assert isinstance(hello, Hello)
        pulls = [message for message in messages if isinstance(message, Pull)]
        if pulls:
            known = await asyncio.to_thread(ledger.revocations)
            self.knew.append((hello.replica, self.ends in known.cut_offs))
        if pulls and pulls[0].after != START and self.hub.revoked is None:
            await asyncio.to_thread(self.hub.end, self.ends, replaced=self.replaced)
        return await super().exchange(messages)


@pytest.fixture
async def paged(hub: TestHub) -> TestHub:
    """Whose settlement is a page a card."""
    for card in CARDS:
        await asyncio.wrap_future(hub.ledger.append(card, [Draft(Kind.TOPUP, 2_000)], 1_780_000_000_000))
    hub.page_rows = 1
    return hub


async def test_who_is_revoked_while_a_settlement_comes_is_revoked_here_at_once(
    paired: Terminal, fleet: Fleet, paged: TestHub
) -> None:
    """A first load takes minutes over a slow link; a stolen terminal's taps must not count for as long."""
    line = Changing(paged, paired, fleet.enrol().replica, replaced=False)
    assert (await line.sync()).complete
    assert [knew for _, knew in line.knew] == [False, False, *[True] * (len(CARDS) - 2)]
    assert (await asyncio.to_thread(enrolled(paired).ledger.view, CARDS[6])).balance_minor == 2_000


async def test_who_hears_that_it_was_replaced_while_a_settlement_comes_leaves_that_to_the_next(
    paired: Terminal, paged: TestHub
) -> None:
    """The settlement may include what this identity has still to write again; the next one begins it anew."""
    await asyncio.to_thread(ride, paired, CARDS[0])
    before = enrolled(paired).identity.replica
    line = Changing(paged, paired, before, replaced=True)
    outcome = await line.sync()
    assert (outcome.complete, outcome.renewed) == (True, True)
    asked = [knew for replica, knew in line.knew if replica == before]
    assert asked == [False, False, True], "two pages, and why it needs another identity"
    assert (await asyncio.to_thread(enrolled(paired).ledger.view, CARDS[0])).balance_minor == 2_750


async def test_a_list_that_comes_with_a_later_page_and_is_nobodys_is_told_when_all_is_here(
    paired: Terminal, paged: TestHub
) -> None:
    line = Line(paged, paired)
    stopped = Revocations({enrolled(paired).identity.replica: 0})
    stranger = DocumentFrame(listed(Fleet(9), stopped, 1).encode())

    async def exchange(messages: Sequence[Message]) -> Answer:
        said = await line.exchange(messages)
        return said if line.said != 2 else dataclasses.replace(said, messages=(stranger, *said.messages))

    with pytest.raises(AnswerRefused) as refusal:
        await Sync(paired, enrolled(paired), exchange, dict).run()
    assert refusal.value.code is RefusalCode.UNKNOWN_AUTHOR
    ledger = enrolled(paired).ledger
    assert not ledger.revoked
    assert (await asyncio.to_thread(ledger.view, CARDS[6])).balance_minor == 2_000


async def test_it_hears_of_it_from_a_peer(two: list[Door], fleet: Fleet) -> None:
    """Which believes it no more, and hands it the list all the same."""
    door, stolen = two
    await asyncio.to_thread(door.ledger.put_document, revoked(fleet, {stolen.replica: 0}))
    with pytest.raises(AnswerRefused, match="revoked"):
        await compared(door, stolen)
    assert stolen.ledger.revoked
