"""A terminal whose storage was put back from an old copy: no tap lost, none counted twice (invariant 5).

The hub's chain counts; what it lacks is written again under a new identity, in the run that finds it out.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from crdt.block import Block
from crdt.errors import RefusalCode
from crdt.facts import CardId, TerminalId
from crdt.frames import CertificateFrame, Message
from crdt.revocations import Revocations
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from crdt.store.marks import Marks
from crdt.store.resolutions import SAID
from edge.addresses import AddressBook
from edge.errors import HubUnreachable, LedgerBehind, UplinkError
from edge.exchange import Answer
from edge.renewal import renewed_identity
from edge.sync import Delivery, Exchange, Outcome, Sync
from edge.terminal import Terminal
from tests.crdt.store.quarantined import in_quarantine
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, KEY, document
from tests.edge.doors import Door, compared, doors
from tests.edge.jobs import running
from tests.edge.test_delivery import copied
from tests.edge.test_uplink import enrolled, ride, uplink_of
from tests.edge.testhub import TestHub, open_ledger

EARLY, LATE, AFTER = (CardId(bytes([4, 0, 0, number])) for number in (1, 2, 3))
ENTROPY = bytes(range(32))
FEW = 6  # exchanges


@pytest.fixture
def younger_database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "younger.db", KEY, layout=TERMINAL_LAYOUT) as opened:
        yield opened


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    return TestHub(fleet, ledger, document=document(fleet, FARES))


@pytest.fixture
async def younger(younger_database: Database, fleet: Fleet) -> TestHub:
    """The hub, put back to before anything."""
    ledger = await asyncio.to_thread(open_ledger, younger_database, fleet)
    return TestHub(fleet, ledger, document=document(fleet, FARES))


class Line:
    """The way to the hub without the network. After `lose` more answers the next one is lost, once."""

    def __init__(self, hub: TestHub, terminal: Terminal) -> None:
        self.hub = hub
        self.terminal = terminal
        self.began_as = enrolled(terminal).identity.replica
        self.lose: int | None = None
        self.said = 0

    async def exchange(self, messages: Sequence[Message]) -> Answer:
        hello, *rest = await self.hub.answer_to(list(messages))
        self._arrive()
        return Answer(hello, tuple(rest), None, 1)  # type: ignore[arg-type]  # an answer begins with HELLO

    async def renew(self, reissued: Sequence[bytes]) -> Exchange:
        before = enrolled(self.terminal).identity

        async def ask(request: Any) -> dict[str, Any]:
            asking = before.certificate
            given = await asyncio.to_thread(self.hub.renewed, asking.terminal, asking.replica, request)
            self._arrive()
            return dict(given)

        entropy = len(self.hub.renewals).to_bytes(1, "big") * 32
        promised = await renewed_identity(ask, before, reissued, lambda length: entropy[:length])
        await asyncio.to_thread(self.terminal.promise, promised, before)
        return self.exchange

    async def sync(self) -> Outcome:
        run = Sync(self.terminal, enrolled(self.terminal), self.exchange, dict, Delivery(), renew=self.renew)
        return await run.run()

    def _arrive(self) -> None:
        self.said += 1
        if self.said == self.lose:
            raise HubUnreachable("The answer was lost.")


class Leaving(Line):
    """The bus leaves the depot as soon as its terminal is another."""

    def _arrive(self) -> None:
        if enrolled(self.terminal).identity.replica != self.began_as:
            raise HubUnreachable("The hub is out of reach.")


class Damaging(Line):
    """Once the terminal is another, the certificates of authors arrive damaged."""

    async def exchange(self, messages: Sequence[Message]) -> Answer:
        if enrolled(self.terminal).identity.replica != self.began_as:
            messages = [_damaged(each) if isinstance(each, CertificateFrame) else each for each in messages]
        return await super().exchange(messages)


def _damaged(certificate: CertificateFrame) -> CertificateFrame:
    return CertificateFrame(certificate.raw[:-1] + bytes([certificate.raw[-1] ^ 1]))


async def restored(
    terminal: Terminal, database: Database, hub: TestHub, path: Path, marks: Marks | None = None
) -> tuple[Database, Terminal]:
    """A terminal with an image from before its last taps, which the hub has."""
    line = Line(hub, terminal)
    await asyncio.to_thread(ride, terminal, EARLY)
    await line.sync()
    image = await asyncio.to_thread(copied, database, path)
    await asyncio.to_thread(ride, terminal, LATE)
    await asyncio.to_thread(ride, terminal, LATE)
    await line.sync()
    opened = await asyncio.to_thread(Database.open, image, KEY, layout=TERMINAL_LAYOUT)
    return opened, await asyncio.to_thread(Terminal, opened, marks)


@pytest.fixture
def rear(tmp_path: Path, fleet: Fleet) -> Iterator[Door]:
    (tmp_path / "rear").mkdir()
    with doors(tmp_path / "rear", fleet, 1) as (door,):
        yield door


@pytest_asyncio.fixture
async def put_back(
    paired: Terminal, database: Database, hub: TestHub, tmp_path: Path
) -> AsyncIterator[Terminal]:
    opened, terminal = await restored(paired, database, hub, tmp_path)
    yield terminal
    await asyncio.to_thread(opened.close)


async def balances(hub: TestHub) -> list[int]:
    return [await asyncio.wrap_future(hub.ledger.balance(card)) for card in (EARLY, LATE, AFTER)]


async def agree(terminal: Terminal, hub: TestHub) -> bool:
    mine = await asyncio.to_thread(enrolled(terminal).ledger.digest)
    return mine == await asyncio.wrap_future(hub.ledger.digest())


async def test_taps_after_the_restore_go_up_under_a_new_identity_in_the_same_run(
    put_back: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """Over real TLS: the old certificate asks for the new identity, whose first exchanges are in this run."""
    before = enrolled(put_back).identity
    await asyncio.to_thread(ride, put_back, AFTER)
    async with hub.serving(tmp_path) as address:
        uplink = uplink_of(put_back, AddressBook(address, None))
        async with running(uplink):
            status = await uplink.sync_now()
    assert (status.online, status.trouble, status.disputed) == (True, "", "")
    now = enrolled(put_back).identity
    assert now.replica != before.replica
    assert now.certificate.terminal == before.certificate.terminal
    assert await balances(hub) == [750, 500, 750]
    assert await agree(put_back, hub)
    assert enrolled(put_back).ledger.held() == (0, 0)
    assert len(hub.renewals) == 1


async def test_what_was_sealed_offline_is_written_again_and_the_proof_goes_up(
    put_back: Terminal, hub: TestHub
) -> None:
    """The fork is proven and quarantined, and resolved without losing or doubling anybody's money."""
    await asyncio.to_thread(ride, put_back, AFTER)
    sealed = await asyncio.to_thread(enrolled(put_back).ledger.seal)
    assert sealed is not None
    outcome = await Line(hub, put_back).sync()
    assert (outcome.complete, outcome.conceded, outcome.renewed) == (True, 1, True)
    assert hub.renewals[0]["reissued"] == [sealed.hash.hex()]
    assert await balances(hub) == [750, 500, 750]
    assert await agree(put_back, hub)
    proofs = await asyncio.wrap_future(in_quarantine(hub.ledger))
    assert [(entry.raw, entry.replica) for entry in proofs] == [(sealed.raw, sealed.header.replica)]
    assert await asyncio.to_thread(enrolled(put_back).ledger.quarantined, 9) == [], "delivered, once"


async def proven(put_back: Terminal, hub: TestHub) -> Block:
    """What it has sealed beside the hub's chain; the hub has the proof."""
    await asyncio.to_thread(ride, put_back, AFTER)
    sealed = await asyncio.to_thread(enrolled(put_back).ledger.seal)
    assert sealed is not None
    await Line(hub, put_back).sync()
    return sealed


async def test_a_proof_that_the_hub_could_not_read_goes_up_again(
    put_back: Terminal, hub: TestHub, younger: TestHub
) -> None:
    """Invariant 5: the hub says that it has it; until then the terminal has not brought it."""
    sealed = await proven(put_back, hub)
    damaging = Damaging(younger, put_back)
    damaging.began_as = sealed.header.replica
    with contextlib.suppress(UplinkError):
        await damaging.sync()
    assert await asyncio.wrap_future(in_quarantine(younger.ledger)) == []
    await Line(younger, put_back).sync()
    proofs = await asyncio.wrap_future(in_quarantine(younger.ledger))
    assert [entry.raw for entry in proofs] == [sealed.raw]


async def test_a_hub_that_was_put_back_gets_the_proof_again(
    put_back: Terminal, hub: TestHub, younger: TestHub
) -> None:
    """Invariant 5: the proof is kept; what a hub has lost of it with everything else comes back too."""
    sealed = await proven(put_back, hub)
    await Line(younger, put_back).sync()
    proofs = await asyncio.wrap_future(in_quarantine(younger.ledger))
    assert [entry.raw for entry in proofs] == [sealed.raw]
    assert await asyncio.to_thread(enrolled(put_back).ledger.quarantined, 9) == [], "delivered again, once"


async def test_a_fork_longer_than_the_hubs_chain_gives_way_too(put_back: Terminal, hub: TestHub) -> None:
    """Nothing in the heads tells that the longer chain is another one; the hub refuses its blocks."""
    for _ in range(4):
        await asyncio.to_thread(ride, put_back, AFTER)
        await asyncio.to_thread(enrolled(put_back).ledger.seal)
    outcome = await Line(hub, put_back).sync()
    assert outcome.complete
    assert await balances(hub) == [750, 500, 0]
    assert await agree(put_back, hub)


async def test_the_hubs_chain_is_paged_through(put_back: Terminal, hub: TestHub) -> None:
    hub.want_bytes = 1
    assert (await Line(hub, put_back).sync()).complete
    assert await agree(put_back, hub)


@pytest.mark.parametrize("lose", range(1, 9))
async def test_an_answer_that_is_lost_anywhere_does_no_harm(
    lose: int, put_back: Terminal, hub: TestHub
) -> None:
    """Whatever stops the run half way, repeating it is safe: the same sums, once each."""
    await asyncio.to_thread(ride, put_back, AFTER)
    await asyncio.to_thread(enrolled(put_back).ledger.seal)
    await asyncio.to_thread(ride, put_back, AFTER)
    line = Line(hub, put_back)
    line.lose = lose
    for _ in range(3):
        try:
            outcome = await line.sync()
        except HubUnreachable:
            continue
        break
    assert outcome.complete
    assert line.said >= lose, "no answer was lost: fewer exchanges than that"
    assert await balances(hub) == [750, 500, 500]
    assert await agree(put_back, hub)


async def test_marks_beside_the_ledger_tell_it_without_a_hub(
    paired: Terminal, database: Database, hub: TestHub, tmp_path: Path
) -> None:
    """Taps go on, nothing is sealed, and a sync makes it good."""
    marks = await asyncio.to_thread(Marks.open, tmp_path / "marks")
    marked = await asyncio.to_thread(Terminal, database, marks)
    opened, terminal = await restored(marked, database, hub, tmp_path, marks)
    try:
        ledger = enrolled(terminal).ledger
        assert ledger.suspended
        await asyncio.to_thread(ride, terminal, AFTER)
        assert await asyncio.to_thread(ledger.seal) is None
        assert (await Line(hub, terminal).sync()).renewed
        assert await balances(hub) == [750, 500, 750]
        assert await agree(terminal, hub)
        assert not enrolled(terminal).ledger.suspended
    finally:
        await asyncio.to_thread(opened.close)


async def test_a_peer_gives_back_what_the_old_copy_lacks(
    paired: Terminal, database: Database, hub: TestHub, fleet: Fleet, tmp_path: Path, rear: Door
) -> None:
    """Taps that were open in the copy are in blocks that a peer carries: they are not written again."""
    await asyncio.to_thread(ride, paired, EARLY)
    image = await asyncio.to_thread(copied, database, tmp_path)
    await asyncio.to_thread(enrolled(paired).ledger.seal)
    await asyncio.to_thread(ride, paired, LATE)
    await asyncio.to_thread(enrolled(paired).ledger.seal)
    await compared(await asyncio.to_thread(Door.of, paired), rear)
    opened = await asyncio.to_thread(Database.open, image, KEY, layout=TERMINAL_LAYOUT)
    try:
        front = await asyncio.to_thread(Door.of, await asyncio.to_thread(Terminal, opened))
        await asyncio.to_thread(ride, front.terminal, AFTER)
        await compared(front, rear)
        assert front.ledger.suspended
        assert [await asyncio.to_thread(front.balance, card) for card in (EARLY, LATE, AFTER)] == [750] * 3
        assert (await Line(hub, front.terminal).sync()).renewed
        line = Line(hub, rear.terminal)
        assert (await line.sync()).complete
        assert await balances(hub) == [750, 750, 750]
        assert await agree(rear.terminal, hub)
    finally:
        await asyncio.to_thread(opened.close)


async def test_a_peer_that_comes_to_the_hub_after_the_renewal_doubles_nothing(
    paired: Terminal, database: Database, hub: TestHub, fleet: Fleet, tmp_path: Path, rear: Door
) -> None:
    """Invariant 5: EARLY was open in the copy, and a peer has it sealed; LATE only the peer has.

    So the peer's block comes after the end of the old identity, and waits for an operator.
    """
    marks = await asyncio.to_thread(Marks.open, tmp_path / "marks")
    marked = await asyncio.to_thread(Terminal, database, marks)
    await asyncio.to_thread(ride, marked, EARLY)
    image = await asyncio.to_thread(copied, database, tmp_path)
    await asyncio.to_thread(ride, marked, LATE)
    await asyncio.to_thread(enrolled(marked).ledger.seal)
    await compared(await asyncio.to_thread(Door.of, marked), rear)
    opened = await asyncio.to_thread(Database.open, image, KEY, layout=TERMINAL_LAYOUT)
    try:
        terminal = await asyncio.to_thread(Terminal, opened, marks)
        assert enrolled(terminal).ledger.suspended
        assert (await Line(hub, terminal).sync()).renewed
        assert (await Line(hub, rear.terminal).sync()).complete
        assert await balances(hub) == [750, 0, 0]
        (late,) = await asyncio.wrap_future(in_quarantine(hub.ledger))
        assert (late.reason, late.resolution) == (RefusalCode.REVOKED, SAID)
        assert await agree(rear.terminal, hub)
    finally:
        await asyncio.to_thread(opened.close)


@pytest.mark.parametrize("line", [Line, Leaving])
@pytest.mark.parametrize("asked_by", ["rear", "front"])
async def test_what_is_written_again_counts_once_at_a_door_without_a_hub(
    asked_by: str,
    line: type[Line],
    paired: Terminal,
    database: Database,
    hub: TestHub,
    tmp_path: Path,
    rear: Door,
) -> None:
    """Invariant 5: EARLY was open in the copy, and the rear door has it sealed of the identity that ended."""
    marks = await asyncio.to_thread(Marks.open, tmp_path / "marks")
    marked = await asyncio.to_thread(Terminal, database, marks)
    await asyncio.to_thread(ride, marked, EARLY)
    image = await asyncio.to_thread(copied, database, tmp_path)
    await asyncio.to_thread(enrolled(marked).ledger.seal)
    await compared(await asyncio.to_thread(Door.of, marked), rear)
    opened = await asyncio.to_thread(Database.open, image, KEY, layout=TERMINAL_LAYOUT)
    try:
        terminal = await asyncio.to_thread(Terminal, opened, marks)
        with contextlib.suppress(HubUnreachable):
            await line(hub, terminal).sync()
        front = await asyncio.to_thread(Door.of, terminal)
        status = await asyncio.to_thread(front.ledger.status)
        assert (status["suspended"], status["open"]) == (False, 2 if line is Leaving else 0)
        await compared(*((rear, front) if asked_by == "rear" else (front, rear)))
        assert await asyncio.to_thread(rear.balance, EARLY) == 750
    finally:
        await asyncio.to_thread(opened.close)


async def test_a_list_that_comes_before_the_new_identity_takes_nothing_from_a_view(
    put_back: Terminal, hub: TestHub
) -> None:
    """Invariant 6: what was sealed beyond the cut-off counts until it is written again, however long the hub
    gives no identity; and no settlement comes in between, which may have it already."""
    for _ in range(4):
        await asyncio.to_thread(ride, put_back, AFTER)
    before = enrolled(put_back)
    sealed = await asyncio.to_thread(before.ledger.seal)
    assert sealed is not None
    await asyncio.to_thread(hub.end, before.identity.replica)
    assert hub.revoked is not None
    assert Revocations.decode(hub.revoked.body).cut_offs[before.identity.replica] < sealed.last_seq
    line, settled = Line(hub, put_back), before.ledger.settled()[1]
    assert await asyncio.to_thread(before.ledger.put_document, hub.revoked)
    with pytest.raises(UplinkError, match="too often"):
        await Sync(put_back, before, line.exchange, dict, renew=refused_renewal).run()
    assert line.said < FEW
    assert before.ledger.settled()[1] == settled
    assert (await asyncio.to_thread(before.ledger.view, AFTER)).balance_minor == 0
    outcome = await line.sync()
    assert (outcome.complete, outcome.renewed) == (True, True)
    assert await balances(hub) == [750, 500, 0]
    assert await agree(put_back, hub)


@pytest.mark.parametrize("line", [Line, Leaving])
async def test_what_another_life_has_written_again_counts_until_a_settlement_says_so(
    paired: Terminal, database: Database, hub: TestHub, tmp_path: Path, line: type[Line]
) -> None:
    """Invariant 6: a copy does not write LATE again, which was open in it and the original has at the hub.

    It hears that it was replaced, goes on as another, and never lacks it, also when the bus leaves then.
    """
    original = Line(hub, paired)
    await asyncio.to_thread(ride, paired, EARLY)
    await original.sync()
    await asyncio.to_thread(ride, paired, LATE)
    image = await asyncio.to_thread(copied, database, tmp_path)
    opened = await asyncio.to_thread(Database.open, image, KEY, layout=TERMINAL_LAYOUT)
    try:
        copy = await asyncio.to_thread(Terminal, opened, None)
        await asyncio.to_thread(enrolled(paired).ledger.suspend)
        assert (await original.sync()).renewed
        watched = Watched(line(hub, copy))
        with contextlib.suppress(HubUnreachable):
            assert (await watched.sync()).renewed, "in the run that hears of it"
        assert watched.views == {750}
        assert enrolled(copy).identity.replica != watched.line.began_as
        assert (await asyncio.to_thread(enrolled(copy).ledger.view, LATE)).balance_minor == 750
        assert await balances(hub) == [750, 750, 0]
    finally:
        await asyncio.to_thread(opened.close)


@dataclass
class Watched:
    """Looks at a card at each exchange of a line."""

    line: Line
    views: set[int] = field(default_factory=set)

    async def exchange(self, messages: Sequence[Message]) -> Answer:
        ledger = enrolled(self.line.terminal).ledger
        self.views.add((await asyncio.to_thread(ledger.view, LATE)).balance_minor)
        return await self.line.exchange(messages)

    async def renew(self, reissued: Sequence[bytes]) -> Exchange:
        await self.line.renew(reissued)
        return self.exchange

    async def sync(self) -> Outcome:
        terminal = self.line.terminal
        return await Sync(terminal, enrolled(terminal), self.exchange, dict, renew=self.renew).run()


async def refused_renewal(_reissued: Sequence[bytes]) -> Exchange:
    raise UplinkError("too often")


async def test_a_hub_that_gives_no_new_identity_keeps_nobody_from_tapping(
    put_back: Terminal, hub: TestHub
) -> None:
    await asyncio.to_thread(ride, put_back, AFTER)

    line = Line(hub, put_back)
    with pytest.raises(UplinkError, match="too often"):
        await Sync(put_back, enrolled(put_back), line.exchange, dict, renew=refused_renewal).run()
    await asyncio.to_thread(ride, put_back, AFTER)
    with pytest.raises(LedgerBehind, match="can be sent once the terminal has a new identity"):
        await Sync(put_back, enrolled(put_back), line.exchange, dict).run()
    assert (await line.sync()).complete
    assert await balances(hub) == [750, 500, 500]


async def test_a_hub_with_another_terminals_identity_is_not_believed(
    put_back: Terminal, hub: TestHub, fleet: Fleet
) -> None:
    """Invariant 8: a new identity is for this terminal, of this fleet, and for its keys."""
    before = enrolled(put_back).identity
    for giver, terminal in ((hub, b"x" * 16), (TestHub(Fleet(9), hub.ledger), before.certificate.terminal)):

        async def ask(request: Any, giver: TestHub = giver, terminal: bytes = terminal) -> dict[str, Any]:
            named = TerminalId(terminal)
            return dict(await asyncio.to_thread(giver.renewed, named, before.replica, request))

        with pytest.raises(UplinkError, match="another terminal|not usable"):
            await renewed_identity(ask, before, [], lambda length: ENTROPY[:length])
