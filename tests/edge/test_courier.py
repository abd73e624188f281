"""Courier files over the real control socket: everything on the stick or nothing, every block verified."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
import pytest_asyncio
from aiohttp import web

from crdt.block import Block, seal
from crdt.columns import MAX_BLOCK_DELTAS
from crdt.courier import MAX_COURIER_AUTHORS, Carried, CourierReader, CourierWriter
from crdt.documents import SignedDocument
from crdt.facts import CardId, Delta, Draft, Kind, ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, DocumentFrame
from crdt.frontier import GENESIS, Head
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store.database import Database
from edge import tech
from edge.control import Controls, bind, control_app
from edge.courier import Export
from edge.courier_words import tell_import
from edge.identity import new_keys
from edge.terminal import Terminal
from tests.edge.authority import Fleet
from tests.edge.doors import AT_MS, Door, digests, doors, revoked
from tests.edge.test_relay import hub_on, synced
from tests.fullstick import capped_files

CARD, OTHER_CARD = CardId(b"\x04\x01\x02\x03"), CardId(b"\x04\x09\x09\x09")


class Paper:
    """As much of a report as farebox-tech asks for here."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def for_technician(self, _uplink: object) -> dict[str, Any]:
        enrolment = self._terminal.enrolment
        if enrolment is None:
            return {"paired": False}
        identity = enrolment.identity
        belongs = {"fleet": identity.fleet.hex(), "replica": identity.replica.hex()}
        return {"paired": True, **belongs, "revoked": enrolment.ledger.revoked}


class Silent:
    status = None


@pytest.fixture
def two(tmp_path: Path, fleet: Fleet) -> Iterator[list[Door]]:
    with doors(tmp_path, fleet) as found:
        yield found


@contextlib.asynccontextmanager
async def controlled(terminal: Terminal, path: Path) -> AsyncIterator[Path]:
    """The control socket of a running terminal."""
    async with answering(terminal, path):
        yield path


@contextlib.asynccontextmanager
async def answering(terminal: Terminal, path: Path) -> AsyncIterator[web.AppRunner]:
    controls = Controls(
        cast(Any, Paper(terminal)), cast(Any, Silent()), cast(Any, None), list, terminal, cast(Any, None)
    )
    runner = web.AppRunner(control_app(controls), access_log=None, shutdown_timeout=0.1)
    listener = await asyncio.to_thread(bind, path)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield runner
    finally:
        await runner.cleanup()
        listener.close()


@pytest_asyncio.fixture
async def sockets(two: list[Door], tmp_path: Path) -> AsyncIterator[list[Path]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(controlled(door.terminal, tmp_path / f"{number}.sock"))
            for number, door in enumerate(two)
        ]


async def farebox_tech(socket: Path, *arguments: object) -> int:
    return await asyncio.to_thread(tech.main, ["--socket", str(socket), "--json", *map(str, arguments)])


def parts_in(directory: Path) -> list[Path]:
    """Files that an export has begun and not ended."""
    return list(directory.glob(".*.part"))


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


async def test_a_ledger_goes_by_stick_and_again_changes_nothing(
    two: list[Door], sockets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Open taps are in the file too; importing again is known, and the ledgers agree (invariant 2)."""
    author, other = two
    await asyncio.to_thread(author.ride, CARD)
    stick = tmp_path / "stick.farebox"
    assert await farebox_tech(sockets[0], "export", stick) == 0
    complete = {"taps": 2, "unsealed": 0, "revoked": False}
    assert said(capsys) == {"file": str(stick), "blocks": 1, **complete}
    assert await farebox_tech(sockets[1], "import", stick) == 0
    answer = said(capsys)
    assert (answer["new"], answer["known"], answer["deltas"], answer["missing"]) == (1, 0, 2, [])
    assert len(await digests(author, other)) == 1
    assert await farebox_tech(sockets[1], "import", stick) == 0
    assert (said(capsys)["known"], await asyncio.to_thread(other.balance, CARD)) == (1, 750)
    assert parts_in(tmp_path) == [], "nothing half-done is left"


async def test_a_person_sees_how_far_a_file_is(
    two: list[Door],
    sockets: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Issue 3: courier files "with progress"."""
    await asyncio.to_thread(two[0].ride, CARD)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    stick = tmp_path / "stick.farebox"
    for socket, command in zip(sockets, ("export", "import"), strict=True):
        assert await farebox_tech(socket, command, stick) == 0
        bar = capsys.readouterr().err
        assert f"{command}ing [" in bar
        assert "100 %" in bar


async def test_the_list_of_revocations_goes_with_what_was_written_again(
    two: list[Door], sockets: list[Path], fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invariant 5: who has both chains of a replaced terminal counts them by it, or each tap twice."""
    author, other = two
    await asyncio.to_thread(author.ride, CARD)
    listed = revoked(fleet, {author.replica: 0}, version=3)
    stick, later = tmp_path / "stick", tmp_path / "later"
    assert await farebox_tech(sockets[0], "export", stick) == 0
    await asyncio.to_thread(other.ledger.put_document, listed)
    assert await farebox_tech(sockets[1], "export", later) == 0
    capsys.readouterr()
    assert await farebox_tech(sockets[0], "import", later) == 0
    assert said(capsys)["refused"] == []
    assert await asyncio.to_thread(author.ledger.document, REVOKED_DOCUMENT) == listed
    assert author.ledger.revoked
    assert await farebox_tech(sockets[1], "import", stick) == 1
    assert [one["code"] for one in said(capsys)["refused"]] == ["revoked"]


async def test_a_list_that_no_hub_has_signed_changes_nothing(
    two: list[Door], sockets: list[Path], fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invariants 8 and 10; what follows it in the file is taken."""
    author, other = two
    await asyncio.to_thread(author.ride, CARD)
    block = await asyncio.to_thread(author.ledger.seal)
    assert block is not None
    body = Revocations({other.replica: 0}).encode()
    forged = SignedDocument.seal(author.identity.keys.signing, fleet.id, REVOKED_DOCUMENT, 9, body)
    writer = CourierWriter(fleet.id, author.replica)
    head = {author.replica: block.head}
    carried: list[Carried] = [
        CertificateFrame(author.identity.certificate.encode()),
        DocumentFrame(forged.encode()),
        BlockFrame(block.raw),
    ]
    file = [writer.beginning(head), *(writer.message(one) for one in carried), writer.end(head)]
    (tmp_path / "stick").write_bytes(b"".join(file))
    assert await farebox_tech(sockets[1], "import", tmp_path / "stick") == 1
    answer = said(capsys)
    assert ([one["code"] for one in answer["refused"]], answer["new"]) == (["unknown_author"], 1)
    assert not other.ledger.revoked


async def test_a_file_that_was_cut_short_is_good_as_far_as_it_goes(
    two: list[Door], sockets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what is missing, and the whole file later adds just that."""
    author, other = two
    for card in (CARD, OTHER_CARD):
        await asyncio.to_thread(author.ride, card)
        await asyncio.to_thread(author.ledger.seal)
    stick = tmp_path / "stick"
    await farebox_tech(sockets[0], "export", stick)
    capsys.readouterr()
    short = tmp_path / "short"
    short.write_bytes(stick.read_bytes()[:-200])
    assert await farebox_tech(sockets[1], "import", short) == 1
    answer = said(capsys)
    assert answer["new"] == 1
    assert "cut short" in answer["unusable"]
    assert "Copy the file once more and import it again: nothing counts twice\n" in tell_import(answer)
    assert answer["missing"] == [{"replica": author.replica.hex(), "first": 3, "last": 4}]
    assert await farebox_tech(sockets[1], "import", stick) == 0
    assert said(capsys)["new"] == 1
    assert len(await digests(author, other)) == 1


async def test_what_the_settlement_covers_is_not_called_known_unless_it_is(
    two: list[Door],
    sockets: list[Path],
    hub_database: Database,
    fleet: Fleet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It may be the only copy of a branch: it is not kept here, so the technician is sent to the hub."""
    author, other = two
    for card in (CARD, OTHER_CARD):
        await asyncio.to_thread(author.ride, card)
        await asyncio.to_thread(author.ledger.seal)
    hub = await hub_on(hub_database, fleet)
    for door in two:
        assert (await synced(door, hub)).complete
    stick = tmp_path / "stick"
    await farebox_tech(sockets[0], "export", stick)
    capsys.readouterr()
    assert await farebox_tech(sockets[1], "import", stick) == 0
    answer = said(capsys)
    assert (answer["new"], answer["known"], answer["settled"]) == (0, 1, 1), "the settled head is compared"
    await asyncio.to_thread(tech.main, ["--socket", str(sockets[1]), "import", str(stick)])
    assert "1 block from before the hub's settlement, not kept here" in capsys.readouterr().out
    assert await farebox_tech(sockets[0], "import", stick) == 0
    answer = said(capsys)
    assert (answer["known"], answer["settled"]) == (2, 0), "it holds its own"


async def test_since_leaves_out_what_an_earlier_file_has(
    two: list[Door], sockets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    author = two[0]
    first, second = tmp_path / "first", tmp_path / "second"
    await asyncio.to_thread(author.ride, CARD)
    await farebox_tech(sockets[0], "export", first)
    await asyncio.to_thread(author.ride, CARD)
    capsys.readouterr()
    assert await farebox_tech(sockets[0], "export", second, "--since", first) == 0
    assert said(capsys)["taps"] == 1
    third = tmp_path / "third"
    assert await farebox_tech(sockets[0], "export", third, "--since", "settlement") == 0
    assert said(capsys)["taps"] == 3, "nothing is settled"
    for unreadable, why in ((sockets[0], "No such device"), (tmp_path / "nowhere", "No such file")):
        assert await farebox_tech(sockets[0], "export", tmp_path / "fourth", "--since", unreadable) == 1
        told = capsys.readouterr().err
        assert f"cannot be read ({why}" in told
        assert "Nothing was exported" in told
        assert "import" not in told


async def test_since_leaves_out_what_an_earlier_file_has_of_the_hubs_blocks(
    two: list[Door],
    sockets: list[Path],
    hub_database: Database,
    fleet: Fleet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are kept for the hub and not held: 16 MiB of them went onto the stick each time."""
    hub = await hub_on(hub_database, fleet)
    for count, name, since in ((1, "first", ""), (0, "second", "first"), (1, "third", "first")):
        if count:
            await asyncio.wrap_future(hub.ledger.append(CARD, [Draft(Kind.TOPUP, 500)], AT_MS))
            assert (await synced(two[0], hub)).complete
        earlier = str(tmp_path / since) if since else ""
        assert await farebox_tech(sockets[0], "export", tmp_path / name, "--since", earlier) == 0
        assert said(capsys)["blocks"] == count


async def test_an_export_takes_no_other_ones_place(
    sockets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next bus's ledger is not to replace this one's, on the technician's stick."""
    stick = tmp_path / "stick"
    assert await farebox_tech(sockets[0], "export", stick) == 0
    first = stick.read_bytes()
    assert await farebox_tech(sockets[1], "export", stick) == 1
    assert "is there already and was not touched. Name another." in capsys.readouterr().err
    assert stick.read_bytes() == first
    assert parts_in(tmp_path) == []


async def test_an_export_is_for_its_owner_alone(sockets: list[Path], tmp_path: Path) -> None:
    """Cards and rides are in it; also where an export that was killed has left its part."""
    stick = tmp_path / "stick"
    (tmp_path / ".stick.part").write_bytes(b"left over")
    assert await farebox_tech(sockets[0], "export", stick) == 0
    assert stick.stat().st_mode & 0o777 == 0o600


async def test_taps_that_an_old_copy_may_not_seal_are_told_as_not_in_the_file(
    two: list[Door], sockets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody takes the stick for all that the terminal has (invariant 4)."""
    author = two[0]
    await asyncio.to_thread(author.ledger.suspend)
    await asyncio.to_thread(author.ride, CARD)
    stick = tmp_path / "stick"
    assert await farebox_tech(sockets[0], "export", stick) == 1
    answer = said(capsys)
    assert (answer["taps"], answer["unsealed"]) == (0, author.ledger.status()["open"]) == (0, 2)
    await asyncio.to_thread(tech.main, ["--socket", str(sockets[0]), "export", f"{stick}2"])
    told = capsys.readouterr().out
    assert "2 TAPS ARE NOT IN IT" in told
    assert "old copy was put back" in told


async def test_a_full_stick_gets_a_sentence_and_no_file(
    two: list[Door],
    sockets: list[Path],
    fleet: Fleet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And the terminal's journal a line: it is no bug of the terminal's."""
    await asyncio.to_thread(carry_much, two[0], fleet)
    stick = tmp_path / "stick"
    with capped_files(1024):
        assert await farebox_tech(sockets[0], "export", stick) == 1
    assert "an export ended early" in await one_line(caplog)
    told = capsys.readouterr().err
    assert "cannot be written" in told
    assert "The taps are safe" in told
    assert not stick.exists()
    assert parts_in(tmp_path) == []


async def test_who_breaks_off_while_the_terminal_waits_for_its_reading_is_one_line(
    two: list[Door], fleet: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of an export too, with all that a socket takes on its way: no traceback is logged."""
    await asyncio.to_thread(carry_much, two[0], fleet)
    async with answering(two[0].terminal, tmp_path / "control.sock") as runner:
        _, writer = await asyncio.open_unix_connection(tmp_path / "control.sock", limit=1)
        writer.write(b"POST /export HTTP/1.1\r\nHost: terminal\r\nContent-Length: 2\r\n\r\n{}")
        await until_it_waits_for_a_reader(runner)
        writer.transport.abort()
        assert "an export ended early" in await one_line(caplog)


async def until_it_waits_for_a_reader(runner: web.AppRunner) -> None:
    server = runner.server
    assert server is not None
    while not any(connection.writing_paused for connection in server.connections):  # noqa: ASYNC110  (it tells nobody)
        await asyncio.sleep(0.005)


async def one_line(caplog: pytest.LogCaptureFixture) -> str:
    """What the terminal's journal says, once it does: no traceback, whatever becomes of a stick."""
    while not caplog.records:  # noqa: ASYNC110  (a log has no event to wait for)
        await asyncio.sleep(0.005)
    (record,) = caplog.records
    assert not record.exc_info
    return record.getMessage()


def carry_much(door: Door, fleet: Fleet, blocks: int = 20) -> None:
    """Blocks of another terminal, 64 KiB each: more in all than a socket takes before somebody reads it."""
    keys, source = new_keys(os.urandom), Random(1)  # noqa: S311 - numbers of cards, no secret
    certificate = fleet.enrol(keys, "Bus 13").certificate
    replica, chain = certificate.replica, [GENESIS]
    for number in range(blocks):
        seqs = range(number * MAX_BLOCK_DELTAS + 1, (number + 1) * MAX_BLOCK_DELTAS + 1)
        facts = [Delta(replica, seq, CardId(source.randbytes(16)), Kind.FARE, -250, AT_MS) for seq in seqs]
        block = seal(keys.signing, fleet.id, facts, chain[-1])
        chain.append(block.hash)
        assert not door.ledger.merge([block.raw], [certificate]).refused


async def test_what_cannot_be_had_or_is_no_courier_file_is_a_sentence(
    sockets: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await farebox_tech(sockets[0], "import", tmp_path / "nowhere") == 1
    assert "cannot be read (No such file or directory). Nothing was imported." in capsys.readouterr().err
    (tmp_path / "text").write_text("shopping list")
    assert await farebox_tech(sockets[0], "import", tmp_path / "text") == 1
    assert "is not a courier file" in capsys.readouterr().err
    assert "an import ended early" in await one_line(caplog)
    assert await farebox_tech(sockets[0], "export", tmp_path / "no" / "where") == 1
    assert "cannot be written" in capsys.readouterr().err


async def test_blocks_that_are_wrong_are_refused_and_counted(
    two: list[Door], sockets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invariant 8: a changed bit in a block costs that block and those after it, and is told."""
    author, other = two
    await asyncio.to_thread(author.ride, CARD)
    stick = tmp_path / "stick"
    await farebox_tech(sockets[0], "export", stick)
    capsys.readouterr()
    raw = stick.read_bytes()
    events = CourierReader(author.identity.fleet, author.replica).receive_data(raw)
    block = next(event.raw for event in events if isinstance(event, BlockFrame))
    at = raw.index(block) + len(block) - 1
    stick.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    assert await farebox_tech(sockets[1], "import", stick) == 1
    answer = said(capsys)
    assert [(one["code"], one["blocks"]) for one in answer["refused"]] == [("bad_signature", 1)]
    assert answer["refused"][0]["replica"] == author.replica.hex()
    assert await asyncio.to_thread(other.balance, CARD) == 0


async def test_a_fork_in_a_file_is_told_apart_and_not_as_missing(
    two: list[Door], sockets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invariant 5: what is on another branch is kept here, and nobody has to look for it."""
    author, other = two
    replica, fleet, key = author.replica, author.identity.fleet, author.identity.keys.signing

    def fare(seq: int, amount_minor: int, previous: bytes) -> Block:
        return seal(key, fleet, [Delta(replica, seq, CARD, Kind.FARE, amount_minor, AT_MS)], previous)

    counting, branch = fare(1, -250, GENESIS), fare(1, -180, GENESIS)
    after, last = fare(2, -180, branch.hash), fare(4, -180, branch.hash)
    await asyncio.to_thread(other.ledger.merge, [counting.raw], [author.identity.certificate])
    writer = CourierWriter(fleet, replica)
    stick = tmp_path / "stick"
    parts = [writer.beginning({replica: last.head})]
    parts += [writer.message(BlockFrame(block.raw)) for block in (branch, after)]
    stick.write_bytes(b"".join([*parts, writer.end({replica: after.head})]))
    assert await farebox_tech(sockets[1], "import", stick) == 1
    answer = said(capsys)
    assert {(one["code"], one["kept"]) for one in answer["refused"]} == {("fork_detected", True)}
    assert sum(one["blocks"] for one in answer["refused"]) == 2
    assert answer["missing"] == [{"replica": replica.hex(), "first": 3, "last": 4}]
    assert await asyncio.to_thread(other.balance, CARD) == -250
    await asyncio.to_thread(tech.main, ["--socket", str(sockets[1]), "import", str(stick)])
    told = capsys.readouterr().out
    assert f"fork: 1 block of {replica.hex()[:8]}: " in told
    assert "goes to the hub with the next sync" in told
    assert f"missing: entries 3 to 4 of {replica.hex()[:8]}, held by the exporter" in told
    assert "No balance here counts what is missing." in told


async def test_what_a_file_claims_of_very_many_authors_is_counted(
    two: list[Door], sockets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody signs it; an answer with all of it was cut off, and the import seemed to have failed."""
    writer = CourierWriter(two[0].identity.fleet, two[0].replica)
    claimed = {ReplicaId(at.to_bytes(16, "big")): Head(5, bytes(32)) for at in range(20_000)}
    stick = tmp_path / "stick"
    stick.write_bytes(writer.beginning(claimed) + writer.end(claimed))
    assert await farebox_tech(sockets[1], "import", stick) == 0
    answer = said(capsys)
    assert answer["missing"][0] == {"replica": bytes(16).hex(), "first": 1, "last": 5}
    assert (len(answer["missing"]), answer["missing_more"]) == (32, 19_968)
    await asyncio.to_thread(tech.main, ["--socket", str(sockets[1]), "import", str(stick)])
    assert "missing: 19,968 more such stretches, held by the exporter" in capsys.readouterr().out


async def test_an_earlier_file_of_as_many_authors_as_there_may_be_is_one_to_go_on_from(
    two: list[Door], sockets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it names was more than the terminal took in a request."""
    await asyncio.to_thread(two[0].ride, CARD)
    writer = CourierWriter(two[0].identity.fleet, two[0].replica)
    claimed = {ReplicaId(at.to_bytes(16, "big")): Head(2**40, bytes(32)) for at in range(MAX_COURIER_AUTHORS)}
    (tmp_path / "first").write_bytes(writer.beginning(claimed) + writer.end(claimed))
    assert await farebox_tech(sockets[0], "export", tmp_path / "stick", "--since", tmp_path / "first") == 0
    assert said(capsys)["blocks"] == 1


async def test_another_fleets_file_is_refused_at_its_beginning(
    two: list[Door], sockets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of it is looked at."""
    foreign = tmp_path / "foreign"
    await asyncio.to_thread(export_of, Fleet(7), foreign)
    assert await farebox_tech(sockets[0], "import", foreign / "stick") == 1
    answer = said(capsys)
    assert "another fleet" in answer["unusable"]
    assert "once more" not in tell_import(answer), "another copy is of the same fleet"
    assert (answer["new"], answer["refused"]) == (0, [])


def export_of(fleet: Fleet, directory: Path) -> None:
    """A courier file of some terminal of the fleet."""
    directory.mkdir()
    with doors(directory, fleet, 1) as (door,):
        door.ride(CARD)
        (directory / "stick").write_bytes(b"".join(Export(door.terminal).parts()))


async def test_a_terminal_that_is_not_paired_has_nothing_to_carry(
    terminal: Terminal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with controlled(terminal, tmp_path / "s") as socket:
        assert await farebox_tech(socket, "export", tmp_path / "x") == 1
        assert await farebox_tech(socket, "import", tmp_path / "x") == 1
    assert capsys.readouterr().err.count("farebox-tech pair CODE") == 2
    assert parts_in(tmp_path) == []


async def test_output_that_nobody_reads_to_its_end_is_no_error(sockets: list[Path]) -> None:
    """`farebox-tech … | head`: quiet, with the status that Python's own documentation gives."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "edge.tech", "--socket", str(sockets[0]), "peers"]
    with os.fdopen(write) as nobody:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=nobody, stderr=asyncio.subprocess.PIPE
        )
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (1, b"")
