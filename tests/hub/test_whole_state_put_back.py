"""A hub whose whole state directory or machine was put back, its marks too: its own signed blocks tell it.

Invariants 3 (the books balance), 4 (nothing acknowledged is lost) and 5 (no number names two facts).
"""

import asyncio
import shutil
import signal
from pathlib import Path

import pytest

from crdt.block import parse
from crdt.frames import BlockFrame
from crdt.store.resolutions import ADOPTED
from hub.settings import HubSettings
from tests.hub.conftest import Depot
from tests.hub.pages.world import Visitor, operator, text_of
from tests.hub.processes import Shell, hub_process
from tests.hub.terminal import CARD
from tests.hub.test_restoring import at, settings, up

__all__ = ["settings"]

UID, OTHER = CARD.hex().upper(), "04FFEE01020304"


async def top_up(depot: Depot, card: str, amount: str) -> None:
    await depot.ask("POST", "/topup", {"card": card, "amount": amount, "request": f"{card}-{amount}"})


async def own_blocks(depot: Depot) -> list[bytes]:
    ledger = depot.hub.ledger
    return await asyncio.wrap_future(ledger.blocks_after(ledger.replica, 0, 10**6))


async def read(person: Visitor, path: str) -> str:
    answer = await person.get(path)
    assert answer.status == 200, answer.text
    return text_of(answer.text)


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_what_it_lost_and_numbered_again_is_told_as_its_own_and_booked_once(
    settings: HubSettings, tmp_path: Path
) -> None:
    """Nobody is "gone" and nothing of it comes "by itself"; and it stays booked while the hub sells on."""
    async with up(settings) as depot:
        bus = await depot.pair("Bus 1")
    copy(settings.state_directory, tmp_path / "image")
    async with up(settings) as depot:
        await top_up(depot, UID, "3")
        (lost,) = await own_blocks(depot)
    put_back(tmp_path / "image", settings.state_directory)
    async with up(settings) as depot:
        former = depot.hub.ledger.replica
        await top_up(depot, OTHER, "4")
        assert parse((await own_blocks(depot))[0]).header.first_seq == 1
        await at(depot, bus).exchange(BlockFrame(lost))
        assert depot.hub.ledger.restored
    place = f"/ledger/blocks/{parse(lost).hash.hex()}"
    async with up(settings) as depot, operator(depot) as person:
        assert depot.hub.ledger.replica != former
        page = await read(person, "/ledger")
        assert "This hub was put back" in page
        assert "The hub went back, and gave these numbers again Proven: the author signed both." in page
        assert "writes it again" not in page
        page = await read(person, place)
        assert "Compare with the receipts" in page
        assert "is gone" not in page
        assert (await person.post(f"{place}/adopt", {}, form=place)).status == 422
        for _ in range(2):
            await person.post(f"{place}/adopt", {"gone": "yes"}, form=place)
            await top_up(depot, OTHER, "2")
        assert "Booked by the hub, and counted so." in await read(person, "/ledger")
    async with up(settings) as depot:
        assert not depot.hub.ledger.restored
        await top_up(depot, OTHER, "1")
        cards = [(await depot.ask("GET", f"/cards/{card}"))["balance_minor"] for card in (UID, OTHER)]
        assert cards == [300, 400 + 200 + 100]
        forks = (await depot.ask("GET", "/ledger/forks"))["blocks"]
        assert [row["resolution"] for row in forks] == [ADOPTED]
        assert (await asyncio.wrap_future(depot.hub.ledger.books())).balance


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
@pytest.mark.parametrize("by", ["page", "command"])
async def test_all_that_it_lost_is_booked_at_once(settings: HubSettings, tmp_path: Path, by: str) -> None:
    """A hub that sold for an hour before it was put back has a block of its own for each of its bookings."""
    async with up(settings) as depot:
        bus = await depot.pair("Bus 1")
    copy(settings.state_directory, tmp_path / "image")
    async with up(settings) as depot:
        for amount in ("3", "2", "1"):
            await top_up(depot, UID, amount)
        lost = await own_blocks(depot)
    put_back(tmp_path / "image", settings.state_directory)
    async with up(settings) as depot:
        await top_up(depot, OTHER, "4")
        await at(depot, bus).exchange(*map(BlockFrame, lost))
    block = parse(lost[1]).hash.hex()
    place = f"/ledger/blocks/{block}"
    async with up(settings) as depot, operator(depot) as person:
        if by == "page":
            await person.post(f"{place}/adopt", {"gone": "yes", "others": "yes"}, form=place)
        else:
            asked = {"block": block, "others": True}
            assert await depot.ask("POST", "/ledger/adopt", asked) == {"entries": 3}
        assert (await depot.ask("GET", f"/cards/{UID}"))["balance_minor"] == 600
        forks = (await depot.ask("GET", "/ledger/forks"))["blocks"]
        assert [row["resolution"] for row in forks] == [ADOPTED] * 3


def test_the_process_ends_with_a_sentence_and_its_next_start_has_another_identity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `cp -a` of the state directory and systemd do it; a courier file brings the proof."""
    state, courier = tmp_path / "state", str(tmp_path / "lost.courier")
    with hub_process(tmp_path) as hub:
        shell = Shell(hub, capsys)
        copy(state, tmp_path / "image")
        hub.start()
        shell("topup", UID, "3.00")
        shell("ledger", "export", courier)
        hub.stop(signal.SIGTERM)
        put_back(tmp_path / "image", state)
        hub.start()
        shell("topup", OTHER, "4.00")
        assert "1 part was refused" in shell("ledger", "import", courier, status=1)
        assert hub.wait() == 1
        assert "This hub's whole state was put back" in (tmp_path / "log.txt").read_text().splitlines()[-1]
        hub.start()
        (row,) = [line for line in shell("ledger", "forks").splitlines() if " lost " in line]
        said = shell("ledger", "adopt", row.split()[-1], "--others")
        assert "as the ledger lacked them: 1 of the entries" in said
        shell("topup", OTHER, "1.00")
        assert "3.00" in shell("cards", "show", UID)
        assert "5.00" in shell("cards", "show", OTHER)


def copy(state: Path, image: Path) -> None:
    """Of a hub that is stopped: everything but its socket."""
    shutil.copytree(state, image, ignore=shutil.ignore_patterns("*.sock"))


def put_back(image: Path, state: Path) -> None:
    """Everything as it was."""
    shutil.rmtree(state)
    copy(image, state)
