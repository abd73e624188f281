"""A hub put back from its backup: another identity, nothing numbered twice, and everything comes back.

Real database files, real TLS; the marks stay where they were, as on a machine whose ledger is put back.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from crdt.block import parse
from crdt.certificate import AuthorCertificate
from crdt.documents import SignedDocument
from crdt.facts import Kind
from crdt.frames import BlockFrame, CertificateFrame, Heads, Message
from crdt.pull import Pull
from crdt.settlement import parse_page, verify_page
from crdt.terminal_status import Status
from hub import founding, restoring
from hub.app import Hub
from hub.control_client import download
from hub.evidence import Evidence
from hub.settings import HubSettings
from tests.hub.conftest import PASSWORD, Depot, running
from tests.hub.terminal import CARD, Terminal, first

SAID = Status({"held": 0})
UID = CARD.hex().upper()


@pytest.fixture
def settings(write_settings: Callable[[str], HubSettings]) -> HubSettings:
    """Of a founded hub that is not up."""
    settings = write_settings("")
    founding.found(settings, PASSWORD, {})
    return settings


@contextlib.asynccontextmanager
async def up(settings: HubSettings) -> AsyncIterator[Depot]:
    """The hub, running on what is on the disk."""
    with contextlib.ExitStack() as stack:
        database, secrets = stack.enter_context(founding.opened(settings, {}))
        authority, ledger = stack.enter_context(founding.open_ledger(settings, database, secrets))
        async with running(Hub(settings, database, authority, secrets.cookie_key, ledger)) as depot:
            yield depot


async def back_up(depot: Depot, file: Path) -> None:
    with file.open("xb") as opened:
        place = depot.hub.settings.control_socket
        await asyncio.to_thread(download, place, "/backup", opened, file, lambda _done, _total: None)


def put_back(settings: HubSettings, file: Path) -> None:
    """What `hub/README.md` says."""
    for left in settings.state_directory.glob("ledger.db*"):
        left.unlink()
    shutil.copy(file, settings.database)


async def top_up(depot: Depot, request: str) -> None:
    await depot.ask("POST", "/topup", {"card": UID, "amount": "5", "request": request})


async def waiting(depot: Depot) -> dict[bytes, tuple[int, int]]:
    found = await asyncio.wrap_future(depot.hub.ledger.waiting())
    return {one.replica: (one.held_seq, one.expected_seq) for one in found}


def at(depot: Depot, terminal: Terminal) -> Terminal:
    """The terminal, now that the hub has another port."""
    terminal.url = depot.url
    return terminal


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_a_hub_put_back_from_its_backup_gets_everything_back(
    settings: HubSettings, tmp_path: Path
) -> None:
    """Invariants 3, 4 and 5."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await one.push(one.taps(500, kind=Kind.OPENING))
        await back_up(depot, backup)
        former = depot.hub.ledger.replica
        for terminal in (one, other):
            await terminal.push(terminal.taps(-250), terminal.taps(-180))
        await top_up(depot, "request-1")
        (page,) = await one.pull()
        lost = await asyncio.wrap_future(depot.hub.ledger.blocks_after(former, 0, 10**6))

    put_back(settings, backup)
    async with up(settings) as depot:
        ledger = depot.hub.ledger
        assert ledger.replica != former
        # The marks beside the database tell what is missing, also what only the hub itself had.
        assert await waiting(depot) == {
            one.key.replica: (1, 3),
            other.key.replica: (0, 2),
            former: (0, 1),
        }
        told = {
            row.terminal: (row.own, row.source)
            for row in await Evidence(depot.hub.database, ledger).waiting()
        }
        assert told["hub"] == (True, "this hub's own marks")
        assert not told["Bus 1"][0]
        # A position that was given is never given again: the terminal's settlement is no base here any more.
        await top_up(depot, "request-2")
        events = await at(depot, one).exchange(
            SAID, Pull(page.series, page.position), frontier=dict(page.heads)
        )
        fresh = parse_page(first(events, "PageFrame").raw)
        assert fresh.restarts
        assert fresh.position > page.position
        # Who signs now is told first; documents are by the same key and newer than any that was lost.
        certificate = AuthorCertificate.decode(first(events, "CertificateFrame").raw)
        verify_page(fresh, certificate.verify(one.fleet_public_key))
        document = SignedDocument.decode(first(events, "DocumentFrame").raw).verify(certificate)
        assert document.version > 2**32
        # Bus 2 is broken for good; Bus 1 carries its blocks, and the old hub's, as any terminal may.
        frames: list[Message] = [
            CertificateFrame(other.certificate.encode()),
            CertificateFrame(one.hub_certificate.encode()),
            *(BlockFrame(raw) for raw in (*one.chain, *other.chain, *lost)),
        ]
        await one.exchange(*frames)
        assert await waiting(depot) == {}
        books = await asyncio.wrap_future(ledger.books())
        assert books.balance
        own = await asyncio.wrap_future(ledger.blocks_after(ledger.replica, 0, 10**6))
        assert parse(own[0]).header.first_seq == 1
        assert await asyncio.wrap_future(ledger.balance(CARD)) == 500 - 2 * 430 + 2 * 500


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_terminals_say_what_the_marks_cannot(settings: HubSettings, tmp_path: Path) -> None:
    """Invariant 4: the whole machine was lost, marks and all; a settlement remembers what it had included."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await back_up(depot, backup)
        former = depot.hub.ledger.replica
        await other.push(other.taps(-250, -180))
        (page,) = await one.pull()
    put_back(settings, backup)
    settings.marks_file.unlink()
    async with up(settings) as depot:
        assert depot.hub.ledger.replica != former
        assert await waiting(depot) == {}
        await at(depot, one).exchange(Heads(page.heads))
        assert await waiting(depot) == {other.key.replica: (0, 2)}
        await at(depot, other).push(*other.chain)
        assert await waiting(depot) == {}


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_a_power_cut_while_a_new_identity_is_made_only_makes_it_later(
    settings: HubSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 5: noted, and the key not kept."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        former = depot.hub.ledger.replica
        await back_up(depot, backup)
        await top_up(depot, "request-1")
    put_back(settings, backup)

    class PowerCut(BaseException):
        pass

    def cut(*_arguments: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(founding, "_put_ledger_key", cut)
        async with up(settings):
            pass
    async with up(settings) as depot:
        assert depot.hub.ledger.replica != former
        await top_up(depot, "request-2")


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_a_hub_that_only_starts_again_stays_who_it_is(settings: HubSettings) -> None:
    async with up(settings) as depot:
        former = depot.hub.ledger.replica
        await top_up(depot, "request-1")
        status = await depot.ask("GET", "/fleet")
    async with up(settings) as depot:
        assert depot.hub.ledger.replica == former
        assert await depot.ask("GET", "/fleet") == status
        await top_up(depot, "request-2")
        assert (await asyncio.wrap_future(depot.hub.ledger.heads()))[former].seq == 2
        found = await asyncio.wrap_future(depot.hub.database.read(restoring.last))
        assert found is None


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_put_back_twice_is_another_identity_each_time(settings: HubSettings, tmp_path: Path) -> None:
    """Invariant 5: else what it booked between would have the numbers of what it books now."""
    backup = tmp_path / "backup"
    seen = set()
    async with up(settings) as depot:
        seen.add(depot.hub.ledger.replica)
        await back_up(depot, backup)
        await top_up(depot, "request-0")
    for number in range(1, 4):
        put_back(settings, backup)
        async with up(settings) as depot:
            assert depot.hub.ledger.replica not in seen
            seen.add(depot.hub.ledger.replica)
            await top_up(depot, f"request-{number}")
