"""A restored terminal that a technician pairs anew writes nothing that the hub has already (invariant 5).

Its former life may have sealed and sent taps that were open in the old copy. Nothing says so but the hub's
chain of its former identity, which ends with the pairing.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from crdt.facts import CardId
from crdt.frames import BlockFrame, Message
from crdt.pairing import PairingCode
from crdt.revocations import REVOKED_DOCUMENT
from crdt.store import quarantine
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from crdt.store.marks import Marks
from edge.addresses import AddressBook, HubAddress
from edge.enrolling import Enroller, Way
from edge.errors import NotCompared
from edge.https import Limits
from edge.terminal import Terminal
from tests.crdt.store.quarantined import in_quarantine
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, KEY, document
from tests.edge.jobs import running
from tests.edge.test_delivery import copied
from tests.edge.test_restored import Line, agree
from tests.edge.test_restored import restored as put_back
from tests.edge.test_uplink import enrolled, ride, uplink_of
from tests.edge.testhub import TestHub, answer, open_ledger

CODE = "4-7K2M9QX"
OPENED, LOST, AFTER = (CardId(bytes([4, 0, 0, number])) for number in (1, 2, 3))
"""Cards whose rides were open in the old copy, made after it, and made once it was put back."""


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    return TestHub(fleet, ledger, document=document(fleet, FARES), code=PairingCode.parse(CODE))


@dataclass
class Restored:
    """A terminal on an old copy, which its marks have told; `lost`: the blocks that the copy lacks."""

    terminal: Terminal
    lost: Sequence[bytes]
    image: Path
    database: Database
    marks: Marks | None = None

    def files(self, names: Sequence[str]) -> set[str]:
        """The copy's among these."""
        return {name for name in names if name.startswith(self.image.name)}

    async def pair(self, address: HubAddress, *hinted: HubAddress) -> None:
        """At the address, or (`hinted`) at whichever of these takes the code."""
        book = AddressBook(address if hinted else None, None)
        book.hint(hinted)
        enroller = Enroller(
            self.terminal,
            book,
            "Bus 12 front",
            Way(Limits(total_s=20, read_s=20), ""),
            lambda _address: None,
            os.urandom,
        )
        await enroller.pair(CODE, None if hinted else address)


@pytest_asyncio.fixture
async def restored(
    paired: Terminal, database: Database, hub: TestHub, tmp_path: Path
) -> AsyncIterator[Restored]:
    """One ride is at the hub, OPENED was open when the copy was made, LOST came later; both are sealed."""
    marks = await asyncio.to_thread(Marks.open, tmp_path / "marks")
    marked = await asyncio.to_thread(Terminal, database, marks)
    await asyncio.to_thread(ride, marked, OPENED)
    await Line(hub, marked).sync()
    sent = enrolled(marked).ledger.own_head().seq
    await asyncio.to_thread(ride, marked, OPENED)
    image = await asyncio.to_thread(copied, database, tmp_path)
    await asyncio.to_thread(ride, marked, LOST)
    await asyncio.to_thread(enrolled(marked).ledger.seal)
    lost = await asyncio.to_thread(enrolled(marked).ledger.blocks_after, sent, 1 << 20)
    opened = await asyncio.to_thread(Database.open, image, KEY, layout=TERMINAL_LAYOUT)
    terminal = await asyncio.to_thread(Terminal, opened, marks)
    assert enrolled(terminal).ledger.suspended
    yield Restored(terminal, lost, image, opened, marks)
    await asyncio.to_thread(opened.close)


async def balances(hub: TestHub) -> list[int]:
    return [await asyncio.wrap_future(hub.ledger.balance(card)) for card in (OPENED, LOST, AFTER)]


async def merged(hub: TestHub, raws: Sequence[bytes]) -> int:
    """Somebody brings blocks to the hub; how many it takes."""
    return len((await asyncio.wrap_future(hub.ledger.merge(raws))).added)


async def test_taps_that_the_hub_has_are_not_written_again(
    restored: Restored, hub: TestHub, tmp_path: Path
) -> None:
    """OPENED rode twice and paid twice, whoever wrote it down how often."""
    assert await merged(hub, restored.lost)
    await asyncio.to_thread(ride, restored.terminal, AFTER)
    async with hub.serving(tmp_path) as address:
        await restored.pair(address)
    assert (await Line(hub, restored.terminal).sync()).complete
    assert await balances(hub) == [500, 750, 750]
    assert await agree(restored.terminal, hub)


async def test_a_copy_made_before_the_new_identity_was_taken_up_writes_nothing_again(
    restored: Restored, hub: TestHub, tmp_path: Path
) -> None:
    """The copy has the promise of an identity, under which the original has written since."""
    assert await merged(hub, restored.lost)
    await asyncio.to_thread(ride, restored.terminal, AFTER)
    async with hub.serving(tmp_path) as address:
        hub.misbehave = busy
        with pytest.raises(NotCompared):
            await restored.pair(address)
        hub.misbehave = None
    image = tmp_path / "again.db"

    def copy() -> None:
        with restored.database.direct:
            for suffix in ("", "-wal"):
                shutil.copy(f"{restored.image}{suffix}", f"{image}{suffix}")

    await asyncio.to_thread(copy)
    await asyncio.to_thread(ride, restored.terminal, LOST, 200)  # another one than the hub has of that moment
    assert (await Line(hub, restored.terminal).sync()).complete
    assert await balances(hub) == [500, 550, 750]
    opened = await asyncio.to_thread(Database.open, image, KEY, layout=TERMINAL_LAYOUT)
    second = await asyncio.to_thread(Terminal, opened, restored.marks)
    assert (await Line(hub, second).sync()).complete
    assert await balances(hub) == [500, 550, 750]
    assert await agree(second, hub)
    await asyncio.to_thread(opened.close)


async def test_what_another_brings_after_the_pairing_counts_no_second_time(
    restored: Restored, hub: TestHub, tmp_path: Path
) -> None:
    """The other door had the lost block: the identity has ended, so it waits for an operator."""
    async with hub.serving(tmp_path) as address:
        await restored.pair(address)
    assert (await Line(hub, restored.terminal).sync()).complete
    assert not await merged(hub, restored.lost)
    assert await balances(hub) == [500, 0, 0]
    waiting = await asyncio.wrap_future(in_quarantine(hub.ledger))
    assert len(waiting) == 1


async def test_what_was_sealed_and_not_sent_is_written_again(
    paired: Terminal, database: Database, hub: TestHub, tmp_path: Path
) -> None:
    """Nothing of a terminal's own is lost with its former identity, which takes nothing more at the hub."""
    for card in (OPENED, LOST):
        await asyncio.to_thread(ride, paired, card)
        await asyncio.to_thread(enrolled(paired).ledger.seal)
    await asyncio.to_thread(enrolled(paired).ledger.suspend)
    await asyncio.to_thread(ride, paired, AFTER)
    async with hub.serving(tmp_path) as address:
        await Restored(paired, (), tmp_path, database).pair(address)
    assert (await Line(hub, paired).sync()).complete
    assert await balances(hub) == [750, 750, 750]
    assert await agree(paired, hub)


async def forged(_request: web.Request, honest: list[Message]) -> web.StreamResponse:
    """Each block with another signature."""
    return answer(
        [
            BlockFrame(one.raw[:-1] + bytes([one.raw[-1] ^ 1])) if isinstance(one, BlockFrame) else one
            for one in honest
        ]
    )


async def test_a_list_that_comes_with_a_chain_that_is_refused_takes_nothing_from_a_view(
    paired: Terminal, database: Database, hub: TestHub, tmp_path: Path
) -> None:
    """Invariant 6: it cuts off what was sealed and not sent, so it holds only once that is written again."""
    ledger = enrolled(paired).ledger
    await asyncio.to_thread(ride, paired, OPENED)
    await asyncio.to_thread(ledger.seal)
    sent = await asyncio.to_thread(ledger.blocks_after, 0, 1 << 20)
    await asyncio.wrap_future(hub.ledger.merge(sent, [enrolled(paired).identity.certificate]))
    await asyncio.to_thread(ride, paired, LOST)
    await asyncio.to_thread(ledger.seal)
    await asyncio.to_thread(ledger.suspend)
    before = [await asyncio.to_thread(ledger.view, card) for card in (OPENED, LOST)]
    async with hub.serving(tmp_path) as address:
        hub.misbehave = forged
        with pytest.raises(NotCompared):
            await Restored(paired, (), tmp_path, database).pair(address)
        hub.misbehave = None
    assert hub.revoked is not None
    assert [await asyncio.to_thread(ledger.view, card) for card in (OPENED, LOST)] == before
    assert (await Line(hub, paired).sync()).complete
    assert await asyncio.to_thread(enrolled(paired).ledger.document, REVOKED_DOCUMENT) == hub.revoked
    assert await balances(hub) == [750, 750, 0]
    assert await agree(paired, hub)


@pytest.mark.parametrize("second_by", ["renewal", "pairing"])
@pytest.mark.parametrize("first", ["renewal", "pairing"])
async def test_the_same_old_copy_put_back_twice_is_charged_once(
    first: str, second_by: str, restored: Restored, hub: TestHub, tmp_path: Path
) -> None:
    """The life before has written again what was open in it, as an identity that the copy does not know."""
    again = tmp_path / "again"
    shutil.copytree(restored.image.parent, again, ignore=lambda _d, names: set(names) - restored.files(names))
    before = restored.terminal
    async with hub.serving(tmp_path) as address:
        if first == "pairing":
            await restored.pair(address)
        assert (await Line(hub, before).sync()).complete
        assert await balances(hub) == [500, 0, 0]
        opened = await asyncio.to_thread(
            Database.open, again / restored.image.name, KEY, layout=TERMINAL_LAYOUT
        )
        second = Restored(
            await asyncio.to_thread(Terminal, opened, restored.marks), (), restored.image, opened
        )
        assert enrolled(second.terminal).ledger.suspended
        await asyncio.to_thread(ride, second.terminal, AFTER)
        if second_by == "pairing":
            await second.pair(address)
    assert (await Line(hub, second.terminal).sync()).complete
    assert await balances(hub) == [500, 0, 750]
    assert await agree(second.terminal, hub)
    await asyncio.to_thread(opened.close)


async def busy(_request: web.Request, _honest: list[Message]) -> web.StreamResponse:
    return web.json_response({"error": "busy", "message": "Come again."}, status=503)


@pytest.mark.parametrize("started_again", [False, True], ids=["", "started again"])
async def test_a_terminal_compares_itself_before_it_says_anything_else(
    started_again: bool, restored: Restored, hub: TestHub, tmp_path: Path
) -> None:
    """The hub showed nothing when it was paired: what comes first then is not a sync as what it was."""
    assert await merged(hub, restored.lost)
    await asyncio.to_thread(ride, restored.terminal, AFTER)
    before = enrolled(restored.terminal)
    terminal = restored.terminal
    async with hub.serving(tmp_path) as address:
        hub.misbehave = busy
        with pytest.raises(NotCompared, match="Come again.*asks again by itself"):
            await restored.pair(address, HubAddress("localhost", address.port))
        assert terminal.enrolment is before
        if started_again:
            terminal = await asyncio.to_thread(Terminal, restored.database, restored.marks)
        hub.heard.clear()
        uplink = uplink_of(terminal, AddressBook(address, None))
        async with running(uplink):
            assert "Come again" in (await uplink.sync_now()).trouble
            hub.misbehave = None
            status = await uplink.sync_now()
    assert (status.online, status.trouble) == (True, "")
    assert before.identity.replica not in {messages[0].replica for messages in hub.heard}  # type: ignore[union-attr]
    assert await balances(hub) == [500, 750, 750]
    assert await agree(terminal, hub)


async def test_what_one_address_has_promised_is_taken_up_at_another(
    restored: Restored, hub: TestHub, tmp_path: Path
) -> None:
    """The terminal can compare itself wherever it reaches the hub, in the same attempt."""
    cut = False

    async def cut_after_the_renewal(request: web.Request, honest: list[Message]) -> web.StreamResponse:
        nonlocal cut
        if hub.renewals and not cut:
            cut = True
            assert request.transport is not None
            request.transport.close()
        return answer(honest)

    hub.misbehave = cut_after_the_renewal
    async with hub.serving(tmp_path) as address:
        other = HubAddress("localhost", address.port)
        book = AddressBook(address, None)
        book.hint([other])
        uplink = uplink_of(restored.terminal, book)
        async with running(uplink):
            status = await uplink.sync_now()
    assert cut
    assert (status.online, status.hub, status.trouble) == (True, other, "")
    assert len(hub.renewals) == 1
    assert await agree(restored.terminal, hub)


@pytest.mark.parametrize("room_bytes", [quarantine.MAX_QUARANTINED_BYTES, 0], ids=["", "quarantine full"])
async def test_a_pairing_of_which_the_terminal_heard_nothing_loses_and_doubles_nothing(
    paired: Terminal, hub: TestHub, monkeypatch: pytest.MonkeyPatch, room_bytes: int
) -> None:
    """The answer was lost, so the terminal learns in a sync that it was replaced: what it had sealed and not
    sent does not wait for an operator."""
    monkeypatch.setattr(quarantine, "MAX_QUARANTINED_BYTES", room_bytes)
    for card in (OPENED, LOST):
        await asyncio.to_thread(ride, paired, card)
        await asyncio.to_thread(enrolled(paired).ledger.seal)
    await asyncio.to_thread(enrolled(paired).ledger.suspend)
    await asyncio.to_thread(ride, paired, AFTER)
    await asyncio.to_thread(hub.end, enrolled(paired).ledger.replica)
    for _ in range(2):  # the first brings the list that says so
        assert (await Line(hub, paired).sync()).complete
    assert await balances(hub) == [750, 750, 750]
    assert await agree(paired, hub)


async def test_what_an_operator_has_revoked_is_not_written_again(paired: Terminal, hub: TestHub) -> None:
    """Only what the terminal itself gave up comes under its next identity."""
    await asyncio.to_thread(ride, paired, OPENED)
    await asyncio.to_thread(enrolled(paired).ledger.seal)
    await asyncio.to_thread(hub.end, enrolled(paired).ledger.replica, replaced=False)
    for _ in range(2):  # the first brings the list that says so
        assert (await Line(hub, paired).sync()).complete
    assert await balances(hub) == [0, 0, 0]
    assert await agree(paired, hub)


async def test_a_pairing_brings_back_nothing_that_an_operator_has_cut_off(
    paired: Terminal, database: Database, hub: TestHub, tmp_path: Path
) -> None:
    """Also where the terminal has not heard of it: the list comes before anything is written again."""
    await asyncio.to_thread(ride, paired, OPENED)
    await asyncio.to_thread(enrolled(paired).ledger.seal)
    await asyncio.to_thread(enrolled(paired).ledger.suspend)
    await asyncio.to_thread(ride, paired, AFTER)
    await asyncio.to_thread(hub.end, enrolled(paired).ledger.replica, replaced=False)
    async with hub.serving(tmp_path) as address:
        await Restored(paired, (), tmp_path, database).pair(address)
    assert (await Line(hub, paired).sync()).complete
    assert await balances(hub) == [0, 0, 750]
    assert await agree(paired, hub)


async def test_what_a_revoked_terminal_had_not_sent_under_a_replaced_identity_waits_for_an_operator(
    paired: Terminal, database: Database, hub: TestHub, tmp_path: Path
) -> None:
    """ "What it earned honestly before is still accepted, for review": evidence that somebody adopts."""
    before = enrolled(paired).ledger.replica
    for card in (OPENED, LOST):
        await asyncio.to_thread(ride, paired, card)
        await asyncio.to_thread(enrolled(paired).ledger.seal)
    await asyncio.to_thread(enrolled(paired).ledger.suspend)
    await asyncio.to_thread(ride, paired, AFTER)
    await asyncio.to_thread(hub.end, before)
    await asyncio.to_thread(hub.end, before, replaced=False)
    async with hub.serving(tmp_path) as address:
        await Restored(paired, (), tmp_path, database).pair(address)
    assert (await Line(hub, paired).sync()).complete
    assert await balances(hub) == [0, 0, 750]
    waiting = await asyncio.wrap_future(in_quarantine(hub.ledger))
    assert [entry.resolution for entry in waiting] == ["", ""]
    for _ in range(2):
        await asyncio.wrap_future(hub.ledger.adopt([entry.hash for entry in waiting]))
        assert await balances(hub) == [750, 750, 750]


async def test_a_branch_of_a_revoked_terminal_waits_for_an_operator(
    paired: Terminal, database: Database, hub: TestHub, tmp_path: Path
) -> None:
    """A thief may have put an old copy back and sealed on it: pairing does not make that count by itself."""
    opened, terminal = await put_back(paired, database, hub, tmp_path)
    before = enrolled(terminal).ledger.replica
    await asyncio.to_thread(ride, terminal, AFTER)
    await asyncio.to_thread(enrolled(terminal).ledger.seal)
    await asyncio.to_thread(enrolled(terminal).ledger.suspend)
    await asyncio.to_thread(hub.end, before, replaced=False)
    async with hub.serving(tmp_path) as address:
        await Restored(terminal, (), tmp_path, opened).pair(address)
    assert (await Line(hub, terminal).sync()).complete
    assert await balances(hub) == [750, 500, 0]
    assert await agree(terminal, hub)
    (branch,) = await asyncio.wrap_future(in_quarantine(hub.ledger))
    assert (branch.replica, branch.resolution) == (before, "")
    await asyncio.to_thread(opened.close)
