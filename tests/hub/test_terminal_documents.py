"""Terminals' documents at the hub (issue 3, "Settings documents"): whose they are, and who comes first."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from crdt.documents import FLEET_DOCUMENT, TERMINAL_DOCUMENT, SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import FleetId, TerminalId
from crdt.frames import BlockFrame, CertificateFrame, DocumentFrame
from crdt.pull import Pull
from crdt.session import Event
from crdt.signing import SigningKey
from crdt.store.store import Store
from crdt.terminal_document import MAX_NOTES_BYTES, TERMINAL_EDITS, TerminalDocument
from hub import tables
from hub.terminal_documents import TerminalDocuments
from tests.crdt.store.servers import Server
from tests.crdt.store.stores import store_opener
from tests.hub.conftest import Depot
from tests.hub.terminal import Terminal, first

NAME = "Bus 1 front"
OTHER = TerminalId(b"?" * 16)


def own(terminal: Terminal, **changes: str) -> TerminalDocument:
    return TerminalDocument.new(terminal.certificate.terminal).edited(TERMINAL_EDITS, changes)


def signed(
    terminal: Terminal, document: TerminalDocument, version: int = 0, name: str = TERMINAL_DOCUMENT
) -> SignedDocument:
    body, version = document.body, version or document.version
    return SignedDocument.seal(terminal.key, terminal.fleet, name, version, body)


def frame(document: SignedDocument) -> DocumentFrame:
    return DocumentFrame(document.encode())


async def view(depot: Depot) -> dict[str, Any]:
    shown: dict[str, Any] = await depot.ask("GET", f"/terminals/settings?terminal={quote(NAME)}")
    return shown


def given(events: list[Event]) -> list[SignedDocument]:
    found = [SignedDocument.decode(event.raw) for event in events if isinstance(event, DocumentFrame)]
    return [document for document in found if document.name == TERMINAL_DOCUMENT]


async def test_a_terminal_gets_its_document_when_its_own_is_another(depot: Depot) -> None:
    """Sent when the numbers differ, signed by the hub; and to a terminal that does not ask for it never."""
    terminal = await depot.pair(NAME)
    empty = own(terminal)
    assert given(await terminal.exchange(Pull(documents={TERMINAL_DOCUMENT: empty.version}))) == []
    body = {"terminal": NAME, "changes": {"route": "12"}}
    assert (await depot.ask("POST", "/terminals/settings", body))["waiting"] == ["route"]
    (document,) = given(await terminal.exchange(Pull(documents={TERMINAL_DOCUMENT: empty.version})))
    held = TerminalDocument.of(document.verify(terminal.hub_certificate), terminal.certificate.terminal)
    assert held.text("route") == "12"
    assert (await view(depot))["waiting"] == ["route"], "given is not yet fetched: the answer may be lost"
    assert given(await terminal.exchange(Pull(documents={TERMINAL_DOCUMENT: held.version}))) == []
    assert (await view(depot))["waiting"] == []
    assert given(await terminal.exchange(Pull())) == []


def lies(terminal: Terminal) -> dict[str, tuple[RefusalCode, bytes]]:
    """What a terminal may send that is not its own document."""
    good, key = own(terminal, route="99"), terminal.key
    other = TerminalDocument.new(OTHER).edited(TERMINAL_EDITS, {"route": "99"})
    stranger = SigningKey(os.urandom(32))

    def sealed(by: SigningKey, fleet: FleetId, body: bytes, version: int = good.version) -> bytes:
        return SignedDocument.seal(by, fleet, TERMINAL_DOCUMENT, version, body).encode()

    fleet = terminal.fleet
    raw = sealed(key, fleet, good.body)
    return {
        "another terminal's": (RefusalCode.MALFORMED, sealed(key, fleet, other.body, other.version)),
        "fares": (RefusalCode.NOT_PERMITTED, signed(terminal, good, name=FLEET_DOCUMENT).encode()),
        "a stranger's": (RefusalCode.UNKNOWN_AUTHOR, sealed(stranger, fleet, good.body)),
        "another fleet's": (RefusalCode.FOREIGN_FLEET, sealed(key, FleetId(b"?" * 16), good.body)),
        "forged": (RefusalCode.BAD_SIGNATURE, raw[:-1] + bytes([raw[-1] ^ 1])),
        "under a wrong number": (RefusalCode.MALFORMED, sealed(key, fleet, good.body, 7)),
        "unreadable": (RefusalCode.MALFORMED, sealed(key, fleet, os.urandom(300))),
        "too large": (RefusalCode.TOO_LARGE, sealed(key, fleet, good.body + bytes(300_000))),
        "empty": (RefusalCode.MALFORMED, b""),
    }


async def test_what_is_not_its_own_changes_nothing_and_the_rest_of_the_exchange_goes_on(
    depot: Depot,
) -> None:
    """Invariant 8: a typed refusal beside the `Ack` of the block that came along."""
    terminal = await depot.pair(NAME)
    await depot.ask("POST", "/terminals/settings", {"terminal": NAME, "changes": {"door": "rear"}})
    before = await view(depot)
    for name, (code, raw) in lies(terminal).items():
        block = terminal.taps(-250)
        certificate = CertificateFrame(terminal.certificate.encode())
        events = await terminal.exchange(certificate, BlockFrame(block), DocumentFrame(raw), Pull())
        assert first(events, "Refusal").code is code, name
        assert first(events, "Ack").frontier == {terminal.key.replica: terminal.head}, name
        assert first(events, "PageFrame"), name
        assert await view(depot) == before, name
    two = [frame(signed(terminal, own(terminal, route=route))) for route in ("1", "2")]
    assert first(await terminal.exchange(*two), "Refusal").code is RefusalCode.NOT_PERMITTED
    assert await view(depot) == before
    events = await terminal.exchange(frame(signed(terminal, own(terminal, route="7"))))
    assert [type(event).__name__ for event in events] == ["Hello", "Ended"]
    assert (await view(depot))["values"] == before["values"] | {"route": "7"}


async def test_an_earlier_identity_of_the_terminal_may_not_speak_for_it(depot: Depot) -> None:
    """Signed by the terminal that is there now: paired anew, it sends the document under its new key."""
    before = await depot.pair(NAME)
    now = await depot.pair(NAME)
    assert now.certificate.terminal == before.certificate.terminal
    old = frame(signed(before, own(before, route="1")))
    assert first(await now.exchange(old), "Refusal").code is RefusalCode.UNKNOWN_AUTHOR
    await now.exchange(frame(signed(now, own(before, route="2"))))
    assert (await view(depot))["values"]["route"] == "2"


async def test_what_does_not_fit_is_refused_with_a_sentence(depot: Depot) -> None:
    await depot.pair(NAME)
    for changes, says in [
        ({"rout": "12"}, "there is no 'rout'. What can be set of a terminal is route, door"),
        ({"route": "x" * 65}, "route must be at most 64 bytes"),
        ({"route": "7", "notes": "n" * (MAX_NOTES_BYTES + 1)}, "notes must be at most 1000 bytes"),
    ]:
        with pytest.raises(Exception, match=says):
            await depot.ask("POST", "/terminals/settings", {"terminal": NAME, "changes": changes})
    with pytest.raises(Exception, match="There is no terminal 'Bus 9'"):
        await depot.ask("POST", "/terminals/settings", {"terminal": "Bus 9", "changes": {}})
    bodies: list[dict[str, Any]]
    bodies = [{"terminal": NAME}, {"terminal": NAME, "changes": {"route": 12}}, {"changes": {}}]
    for body in bodies:
        with pytest.raises(Exception, match="The request needs"):
            await depot.ask("POST", "/terminals/settings", body)
    assert set((await view(depot))["values"].values()) == {""}


# ---- On every database ----


@pytest.fixture
def store(server: Server | None, tmp_path: Path) -> Iterator[Store]:
    with store_opener(server, tmp_path)() as opened:
        yield opened


@pytest.fixture
def documents(store: Store) -> TerminalDocuments:
    store.create(tables.metadata)
    return TerminalDocuments(store, FleetId(b"F" * 16), SigningKey(b"h" * 32), asyncio.wrap_future)


async def test_edits_at_the_same_time_are_all_kept(documents: TerminalDocuments) -> None:
    """Two operators, or two hub processes on one server: who comes second adds to what the first wrote."""
    terminal = TerminalId(os.urandom(16))
    changes = [{"route": "12"}, {"door": "rear"}, {"vehicle": "bus 12"}, {"notes": "ünï 🚌"}]
    await asyncio.gather(*(documents.edit(terminal, each) for each in changes))
    kept = await documents.kept(terminal)
    assert kept.texts == {"route": "12", "door": "rear", "vehicle": "bus 12", "reader": "", "notes": "ünï 🚌"}
    assert set(kept.waiting) == {"route", "door", "vehicle", "notes"}


async def test_a_long_history_is_dropped_before_it_grows(documents: TerminalDocuments) -> None:
    """Rebased by its bytes; what was set long ago stays."""
    terminal = TerminalId(os.urandom(16))
    await documents.edit(terminal, {"route": "12"})
    for number in range(160):
        await documents.edit(terminal, {"notes": f"{number} {os.urandom(480).hex()}"})
    kept = await documents.kept(terminal)
    assert kept.document.epoch > 0
    assert len(kept.document.body) < 80 * 1024
    assert (kept.texts["route"], kept.texts["notes"][:4]) == ("12", "159 ")
