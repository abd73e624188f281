"""Courier files at the hub: verified, counted once, and what is missing is told."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from crdt.block import parse
from crdt.columns import MAX_BLOCK_DELTAS
from crdt.courier import CourierReader, CourierWriter
from crdt.documents import FLEET_DOCUMENT, SignedDocument
from crdt.facts import CardId, Kind, ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, DocumentFrame
from crdt.frontier import Frontier, Head
from crdt.ledger import Ledger
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store import quarantine
from hub import courier
from hub.cli import main
from hub.control_client import download, upload
from hub.courier import BATCH_ITEMS, Import
from hub.errors import RequestRefused
from hub.evidence import Evidence
from tests.hub.conftest import Depot
from tests.hub.terminal import Terminal, reference
from tests.hub.test_revoking import revoke


def courier_file(
    carrier: Terminal, *carried: Terminal, skip: int = 0, listed: SignedDocument | None = None
) -> bytes:
    """A file with these terminals' chains, each without its first `skip` blocks; before them a list of
    revocations that the carrier's hub has signed."""
    writer = CourierWriter(carrier.fleet, carrier.key.replica)
    heads: Frontier = {terminal.key.replica: terminal.head for terminal in carried}
    parts = [writer.beginning(heads)]
    if listed is not None:
        parts.append(writer.message(CertificateFrame(carrier.hub_certificate.encode())))
        parts.append(writer.message(DocumentFrame(listed.encode())))
    for terminal in carried:
        parts.append(writer.message(CertificateFrame(terminal.certificate.encode())))
        parts += [writer.message(BlockFrame(raw)) for raw in terminal.chain[skip:]]
    return b"".join([*parts, writer.end(heads)])


async def bring(depot: Depot, file: bytes) -> Any:
    """Import the file."""
    place = depot.hub.settings.control_socket
    return await asyncio.to_thread(
        upload, place, "/ledger/import", io.BytesIO(file), len(file), lambda _done, _total: None
    )


async def test_a_file_brings_what_no_network_brought(depot: Depot) -> None:
    one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    one.taps(500, kind=Kind.OPENING), one.taps(-250), other.taps(-180, -180)
    done = await bring(depot, courier_file(one, one, other))
    assert (done["blocks"], done["entries"], done["known"], done["refused"]) == (3, 4, 0, 0)
    assert (done["missing"], done["trouble"]) == ([], "")
    assert await depot.digest() == await reference(one, other)


async def test_a_file_again_changes_nothing(depot: Depot) -> None:
    """Invariant 2."""
    one = await depot.pair()
    one.taps(-250), one.taps(-250)
    file = courier_file(one, one)
    await bring(depot, file)
    digest = await depot.digest()
    done = await bring(depot, file)
    assert (done["blocks"], done["known"], await depot.digest()) == (0, 2, digest)


async def test_a_file_that_was_cut_short_gives_what_it_has_and_says_so(depot: Depot) -> None:
    """Also between two blocks; the whole file goes on where that one stopped."""
    one = await depot.pair()
    one.taps(-250), one.taps(-250)
    file = courier_file(one, one)
    cut = file[: file.index(one.chain[1][:40]) - 5]
    done = await bring(depot, cut)
    assert (done["blocks"], "cut short" in done["trouble"]) == (1, True)
    done = await bring(depot, file)
    assert (done["blocks"], done["known"], done["trouble"]) == (1, 1, "")
    assert await depot.digest() == await reference(one)


async def test_a_file_of_certificates_is_taken_in_parts(depot: Depot) -> None:
    """Memory is bounded whatever a file is made of: what came first is merged before the rest is read."""
    one = await depot.pair()
    writer = CourierWriter(one.fleet, one.key.replica)
    paper = CertificateFrame(one.certificate.encode())
    beginning = writer.beginning({})
    block = writer.message(paper) + writer.message(BlockFrame(one.taps(-250)))

    async def pieces() -> AsyncIterator[bytes]:
        yield beginning + block
        yield b"".join(writer.message(paper) for _ in range(BATCH_ITEMS))
        assert await asyncio.wrap_future(depot.hub.ledger.heads()) == {one.key.replica: one.head}
        yield writer.end({one.key.replica: one.head})

    evidence = Evidence(depot.hub.database, depot.hub.ledger)
    done = await Import(depot.hub.ledger, evidence, depot.lost).run(pieces())
    assert (done.blocks, done.refused, done.trouble) == (1, 0, "")


@pytest.mark.parametrize(
    ("signer", "name", "refusal"),
    [
        ("terminal", REVOKED_DOCUMENT, "only a hub may write the fleet's documents"),
        ("hub", FLEET_DOCUMENT, "a document 'fleet' is not for a courier file"),
    ],
)
async def test_a_document_that_is_no_hubs_list_is_refused(
    depot: Depot, signer: str, name: str, refusal: str
) -> None:
    """Invariants 8 and 10; what follows in the file counts as ever."""
    one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await one.push(one.taps(-100))
    key = depot.hub.authority.ledger_key if signer == "hub" else one.key
    body = Revocations({other.key.replica: 0}).encode()
    listed = SignedDocument.seal(key, one.fleet, name, 9, body)
    other.taps(-100)
    done = await bring(depot, courier_file(one, other, listed=listed))
    assert (done["blocks"], done["refusals"], done["trouble"]) == (1, [refusal], "")
    assert await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT)) is None


async def test_the_list_that_holds_is_no_news_from_a_file(depot: Depot) -> None:
    """Invariant 2: nor is one from before it."""
    one = await depot.pair("Bus 1")
    for name in ("Bus 2", "Bus 3"):
        await depot.pair(name)
    await revoke(depot, "Bus 2")
    before = await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT))
    await revoke(depot, "Bus 3")
    now = await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT))
    for listed in (before, now):
        done = await bring(depot, courier_file(one, listed=listed))
        assert (done["refused"], done["trouble"]) == (0, "")
        assert await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT)) == now


async def test_blocks_whose_predecessors_are_elsewhere_are_named(depot: Depot) -> None:
    one = await depot.pair("Bus 1")
    one.taps(-250), one.taps(-250, -250)
    done = await bring(depot, courier_file(one, one, skip=1))
    assert (done["blocks"], done["refused"]) == (0, 1)
    assert "are missing" in done["refusals"][0]
    (gap,) = done["missing"]
    assert (gap["author"], gap["first_seq"], gap["last_seq"]) == ("Bus 1", 1, 3)


async def test_a_fork_in_a_file_is_told_as_evidence_of_its_author_and_not_as_missing(depot: Depot) -> None:
    """Invariant 5: what lies in quarantine is here and waits for a decision; nobody has to look for it."""
    one = await depot.pair("Bus 1")
    await one.push(one.taps(500, kind=Kind.OPENING), one.taps(-250))
    one.chain, one.head = one.chain[:1], parse(one.chain[0]).head
    one.taps(-180, -180)
    done = await bring(depot, courier_file(one, one))
    assert (done["known"], done["refused"], done["evidence"], done["missing"]) == (1, 1, 1, [])
    (sentence,) = done["refusals"]
    assert sentence.startswith("Bus 1: ")
    assert "two different blocks" in sentence


async def test_what_follows_another_branch_is_evidence_also_without_that_branch(depot: Depot) -> None:
    """It is in quarantine, so nobody has to look for it, whatever it was refused for."""
    one = await depot.pair("Bus 1")
    await one.push(one.taps(500, kind=Kind.OPENING))
    one.head = Head(1, bytes(range(32)))
    one.taps(-180)
    done = await bring(depot, courier_file(one, one))
    assert (done["known"], done["refused"], done["evidence"], done["missing"]) == (1, 1, 1, [])


async def test_what_came_too_late_hides_nothing_that_is_missing_before_it(depot: Depot) -> None:
    """Up to the cut-off a revoked terminal's entries count once somebody brings them: look for them."""
    one = await depot.pair("Bus 1")
    await one.push(one.taps(-100), one.taps(-100))
    for _ in range(5):
        one.taps(-100)
    await revoke(depot, "Bus 1", cut_off=4)
    one.chain = [one.chain[4], one.chain[6]]
    done = await bring(depot, courier_file(one, one))
    assert (done["refused"], done["evidence"]) == (2, 2)
    assert [(gap["first_seq"], gap["last_seq"]) for gap in done["missing"]] == [(3, 4), (6, 6)]


async def test_evidence_that_has_no_room_is_not_called_kept(
    depot: Depot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invariant 8: a terminal's share of the quarantine is bounded, and what is past it is not here."""
    monkeypatch.setattr(quarantine, "MAX_QUARANTINED_BYTES", 0)
    one = await depot.pair("Bus 1")
    await one.push(one.taps(500, kind=Kind.OPENING), one.taps(-250))
    one.chain, one.head = one.chain[:1], parse(one.chain[0]).head
    one.taps(-180, -180)
    file = tmp_path / "stick"
    file.write_bytes(courier_file(one, one))
    done = await bring(depot, file.read_bytes())
    assert (done["refused"], done["evidence"], done["dropped"]) == (1, 0, 1)
    assert [(gap["first_seq"], gap["last_seq"]) for gap in done["missing"]] == [(3, 3)]
    assert (await depot.ask("GET", "/ledger/forks"))["blocks"] == []
    settings = str(tmp_path / "hub.toml")
    assert await asyncio.to_thread(main, ["--settings", settings, "ledger", "import", str(file)]) == 1
    said = capsys.readouterr()
    assert "are kept as evidence" not in said.out
    assert "No room was left to keep 1 of them as evidence" in said.out
    refused = f"Of {file} 1 part was refused; why is said above. What else is in it is in the ledger."
    assert said.err == f"farebox-hub: {refused}\n"


async def test_what_a_file_claims_of_very_many_authors_is_counted(depot: Depot) -> None:
    """Nobody signs it: it is not to fill an operator's screen."""
    one = await depot.pair()
    writer = CourierWriter(one.fleet, one.key.replica)
    claimed = {ReplicaId(at.to_bytes(16, "big")): Head(5, bytes(32)) for at in range(1000)}
    done = await bring(depot, writer.beginning(claimed) + writer.end(claimed))
    assert (len(done["missing"]), done["missing_more"]) == (20, 980)


@pytest.mark.parametrize("damage", ["nothing", "garbage", "foreign", "flipped"])
async def test_a_bad_file_changes_nothing(depot: Depot, damage: str) -> None:
    """Invariant 8."""
    one = await depot.pair()
    block = one.taps(-250)
    file = bytearray(courier_file(one, one))
    if damage == "flipped":
        file[file.index(block) + len(block) - 1] ^= 1
    bad = {"nothing": b"", "garbage": b"farebox courier v2\n" + bytes(1000), "flipped": bytes(file)}
    foreign = CourierWriter(type(one.fleet)(bytes(16)), one.key.replica)
    bad["foreign"] = foreign.beginning({}) + foreign.end({})
    done = await bring(depot, bad[damage])
    assert done["trouble"] or done["refused"]
    assert done["damaged"] is (damage in ("nothing", "flipped"))
    assert done["blocks"] == 0
    assert await asyncio.wrap_future(depot.hub.ledger.heads()) == {}


async def test_all_the_hub_holds_goes_into_a_file_that_proves_itself(depot: Depot, tmp_path: Path) -> None:
    one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await one.push(one.taps(500, kind=Kind.OPENING), one.taps(-250))
    await other.push(other.taps(-180))
    await depot.ask("POST", "/topup", {"card": "04a1b2c3", "amount": "5", "request": "request-1"})
    await revoke(depot, "Bus 2", cut_off=1)
    place, file = depot.hub.settings.control_socket, io.BytesIO()
    await asyncio.to_thread(download, place, "/ledger/export", file, Path("copy"), lambda _done, _total: None)
    reader = CourierReader(one.fleet, one.key.replica)
    events = reader.receive_data(file.getvalue()) + reader.receive_eof()
    listed = await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT))
    assert listed is not None
    assert [event.raw for event in events if isinstance(event, DocumentFrame)] == [listed.encode()]
    assert reader.heads == await asyncio.wrap_future(depot.hub.ledger.heads())
    certificates = [
        type(one.certificate).decode(event.raw) for event in events if isinstance(event, CertificateFrame)
    ]
    ledger = Ledger(one.fleet_public_key)
    ledger.merge([event.raw for event in events if isinstance(event, BlockFrame)], certificates)
    assert ledger.digest() == await depot.digest()


async def test_a_ledger_of_more_authors_than_a_file_has_room_for_is_told_at_once(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told after the last block, by an answer that broke off, each time again."""
    for terminal in [await depot.pair("Bus 1"), await depot.pair("Bus 2")]:
        await terminal.push(terminal.taps(-250))
    monkeypatch.setattr("crdt.courier.MAX_COURIER_AUTHORS", 1)
    place, file = depot.hub.settings.control_socket, io.BytesIO()
    with pytest.raises(RequestRefused, match="Nothing was exported.* of 2.*farebox-hub backup FILE"):
        await asyncio.to_thread(
            download, place, "/ledger/export", file, Path("copy"), lambda _done, _total: None
        )
    assert file.getvalue() == b""


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (b"GET /ledger/export HTTP/1.1\r\nHost: hub\r\n\r\n", "/ledger/export ended early"),
        (b"POST /ledger/import HTTP/1.1\r\nHost: hub\r\nContent-Length: 9\r\n\r\nF", "an import ended early"),
    ],
    ids=["export", "import"],
)
async def test_a_command_that_breaks_off_is_one_line_in_the_hubs_log(
    depot: Depot, caplog: pytest.LogCaptureFixture, asked: bytes, told: str
) -> None:
    """Its disk is full, or Ctrl-C was pressed: no failure of the hub's, so no traceback."""
    one, source = await depot.pair(), Random(1)  # noqa: S311 - numbers of cards, no secret
    for _ in range(8):  # of 64 KiB: more than a socket takes before somebody reads it
        one.taps_on([CardId(source.randbytes(16)) for _ in range(MAX_BLOCK_DELTAS)], -250)
    await asyncio.wrap_future(depot.hub.ledger.merge(one.chain, [one.certificate]))
    caplog.clear()
    reader, writer = await asyncio.open_unix_connection(depot.hub.settings.control_socket, limit=1)
    writer.write(asked)
    if told.startswith("/"):
        await reader.read(1)
    writer.transport.abort()
    while not caplog.records:  # noqa: ASYNC110  (a log has no event to wait for)
        await asyncio.sleep(0.005)
    (record,) = caplog.records
    assert (told in record.getMessage(), record.exc_info) == (True, None)


async def test_an_export_ends_although_a_terminal_is_revoked_meanwhile(depot: Depot) -> None:
    """The blocks that it was to write are gone then: it names what it wrote, and no more, as its heads."""
    pair = [await depot.pair("Bus 1"), await depot.pair("Bus 2")]
    one, other = sorted(pair, key=lambda each: each.key.replica)
    for terminal in (one, other):
        await terminal.push(terminal.taps(-250))
    pieces = courier.export(depot.hub.ledger)
    begun = await anext(pieces)
    await depot.ask("POST", "/terminals/revoke", {"terminal": other.certificate.name, "cut_off": 0})
    async with asyncio.timeout(10):
        rest = b"".join([piece async for piece in pieces])
    reader = CourierReader(one.fleet, one.key.replica)
    events = reader.receive_data(begun + rest) + reader.receive_eof()
    assert [event.raw for event in events if isinstance(event, BlockFrame)] == one.chain
    assert reader.heads == {one.key.replica: one.head}
