"""A terminal's own document (issue 3, "Settings documents"): set on the bus, in effect at once."""

import asyncio
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.documents import FLEET_DOCUMENT, TERMINAL_DOCUMENT, SignedDocument
from crdt.errors import InputRefused
from crdt.facts import CardId, TerminalId
from crdt.store.database import Database
from crdt.terminal_document import HUB_EDITS, MAX_NOTES_BYTES, TerminalDocument
from edge import tech
from edge.errors import SettingNotTaken
from edge.peers import Pacing
from edge.terminal import Enrolment, Terminal
from edge.terminal_settings import OwnSettings
from hardware.emulator.pty_line import EmulatedReader
from hardware.feedback import Signal
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, Passenger, pair
from tests.edge.doors import Door, doors
from tests.edge.program import Bus
from tests.edge.test_peering import CARD, NEVER_S, online, peering, running, until
from tests.edge.test_taps import UID, taking_taps, tap


def enrolled(terminal: Terminal) -> Enrolment:
    assert terminal.enrolment is not None
    return terminal.enrolment


def own(terminal: Terminal) -> TerminalId:
    return enrolled(terminal).identity.certificate.terminal


def by_hub(fleet: Fleet, document: TerminalDocument) -> SignedDocument:
    return SignedDocument.seal(fleet.hub_key, fleet.id, TERMINAL_DOCUMENT, document.version, document.body)


def test_what_is_set_is_there_after_a_new_start_and_under_a_new_identity(
    paired: Terminal, database: Database, fleet: Fleet
) -> None:
    """A terminal that is paired again or renewed keeps its document; another terminal begins its own."""
    paired.edit({"route": "12", "notes": "second reader\nsince May"})
    again = Terminal(database)
    assert again.text("notes", "") == "second reader\nsince May"
    assert enrolled(again).document == enrolled(paired).document
    again.enrol(fleet.enrol(terminal=own(paired)))
    assert again.text("route", "7") == "12"
    again.enrol(fleet.enrol())
    assert (again.text("route", "7"), own(again) == own(paired)) == ("7", False)


def test_each_edit_is_kept_whatever_its_number(paired: Terminal, database: Database) -> None:
    """The numbers of this document do not grow: one that is smaller replaces a larger one too."""
    numbers = []
    for route in map(str, range(12)):
        paired.edit({"route": route})
        numbers.append(enrolled(paired).document.version)
        stored = enrolled(paired).ledger.document(TERMINAL_DOCUMENT)
        assert stored is not None
        assert stored.version == numbers[-1]
    assert numbers != sorted(numbers)
    assert Terminal(database).text("route", "") == "11"


def test_the_route_that_is_set_decides_the_next_fare_without_a_new_start(
    terminal: Terminal, fleet: Fleet, passenger: Passenger
) -> None:
    """Fare choice and the tap's context; the settings file's route counts while the document has none."""
    pair(terminal, fleet, dataclasses.replace(FARES, route_fares={"7": 180}))
    with EmulatedReader() as line, taking_taps(terminal, line, passenger):
        assert "2.50 EUR paid" in tap(line, passenger, Signal.ACCEPTED)
        terminal.edit({"route": "7"})
        assert "1.80 EUR paid" in tap(line, passenger, Signal.ACCEPTED, "04000000000001")
        terminal.edit({"route": ""})
        assert "2.50 EUR paid" in tap(line, passenger, Signal.ACCEPTED, "04000000000002")
    cards = [CardId(bytes.fromhex(uid)) for uid in (UID, "04000000000001", "04000000000002")]
    ledger = enrolled(terminal).ledger
    assert [ledger.history(card, 1)[0].context.route for card in cards] == ["12", "7", "12"]


@pytest.fixture
def two(tmp_path: Path, fleet: Fleet) -> Iterator[list[Door]]:
    with doors(tmp_path, fleet) as found:
        yield found


async def test_the_vehicle_that_is_set_groups_doors_at_once(two: list[Door]) -> None:
    """Companions by the document's vehicle, and none any more when it is another."""
    front, rear = two
    parts = [peering(door, Pacing("", NEVER_S, NEVER_S)) for door in two]
    async with running(*parts):
        await until(lambda: all(part.peers.status() for part in parts))
        assert [status.companion for part in parts for status in part.peers.status()] == [False, False]
        for door in two:
            await asyncio.to_thread(door.terminal.edit, {"vehicle": "bus 12"})
        await until(lambda: all(map(online, parts)))
        await asyncio.to_thread(front.ride, CARD)
        parts[0].tapped()
        await until(lambda: rear.balance(CARD) == 750)
        await asyncio.to_thread(rear.terminal.edit, {"vehicle": "bus 13"})
        await until(lambda: not any(one.companion for part in parts for one in part.peers.status()))
        parts[0].tapped()
        await until(lambda: not parts[0].peers.accompanied)


def hostile(fleet: Fleet, terminal: TerminalId) -> dict[str, SignedDocument]:
    """What a hub may send that is not this terminal's document, though rightly signed."""
    good = TerminalDocument.new(terminal).edited(HUB_EDITS, {"route": "99"})
    other = TerminalDocument.new(TerminalId(b"?" * 16)).edited(HUB_EDITS, {"route": "99"})

    def sealed(name: str, version: int, body: bytes) -> SignedDocument:
        return SignedDocument.seal(fleet.hub_key, fleet.id, name, version, body)

    return {
        "another terminal's": sealed(TERMINAL_DOCUMENT, other.version, other.body),
        "a wrong number": sealed(TERMINAL_DOCUMENT, good.version + 1, good.body),
        "a wrong name": sealed(FLEET_DOCUMENT, good.version, good.body),
        "a broken body": sealed(TERMINAL_DOCUMENT, good.version, good.body[:-1]),
        "no body": sealed(TERMINAL_DOCUMENT, good.version, b""),
        "a large body": sealed(TERMINAL_DOCUMENT, good.version, os.urandom(300_000)),
    }


@pytest.mark.parametrize("name", [*hostile(Fleet(1), TerminalId(bytes(16)))])
def test_a_document_that_is_not_its_own_changes_nothing(name: str, paired: Terminal, fleet: Fleet) -> None:
    """Invariant 8; the same document, left alone, is merged."""
    paired.edit({"door": "rear"})
    before = enrolled(paired), enrolled(paired).ledger.document(TERMINAL_DOCUMENT)
    with pytest.raises(InputRefused):
        paired.merge(hostile(fleet, own(paired))[name])
    assert (enrolled(paired), enrolled(paired).ledger.document(TERMINAL_DOCUMENT)) == before
    good = TerminalDocument.new(own(paired)).edited(HUB_EDITS, {"route": "99"})
    assert paired.merge(by_hub(fleet, good)), "the hub lacks the door"
    assert (paired.text("route", ""), paired.text("door", "")) == ("99", "rear")


def test_what_the_hub_has_already_is_not_given_back(paired: Terminal, fleet: Fleet) -> None:
    paired.edit({"door": "rear"})
    theirs = enrolled(paired).document.edited(HUB_EDITS, {"route": "99"})
    assert not paired.merge(by_hub(fleet, theirs))
    assert enrolled(paired).document.version == theirs.version


@pytest.fixture
def bus(tmp_path: Path) -> Bus:
    bus = Bus(tmp_path)
    bus.configure()
    return bus


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rout": "12"}, "there is no 'rout'. What can be set is route, door, vehicle, reader, notes"),
        ({"route": "ü" * 33}, "route must be at most 64 bytes on one line"),
        ({"door": "a\nb"}, "door must be at most 64 bytes on one line"),
        ({"notes": "n" * (MAX_NOTES_BYTES + 1)}, "notes must be at most 1000 bytes"),
        ({"vehicle": 12}, "vehicle must be text"),
        ({"reader": "usb"}, "usb"),
        ({"route": "7", "reader": 5}, "names no card reader"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence_and_changes_nothing(
    changes: dict[str, object], sentence: str, paired: Terminal, bus: Bus
) -> None:
    settings = OwnSettings(bus.settings, paired)
    before = settings.say()
    with pytest.raises(SettingNotTaken, match="Nothing was changed") as refusal:
        settings.change(changes)
    assert sentence in str(refusal.value)
    assert settings.say() == before


def test_a_reader_that_the_hub_sets_and_nobody_can_use_leaves_the_bus_its_own(
    paired: Terminal, bus: Bus, fleet: Fleet
) -> None:
    """The reader takes effect at the next start, and one that is none does not."""
    settings = OwnSettings(bus.settings, paired)
    file = bus.settings.reader_device
    theirs = TerminalDocument.new(own(paired)).edited(HUB_EDITS, {"reader": "a new one"})
    paired.merge(by_hub(fleet, theirs))
    assert OwnSettings(bus.settings, paired).reader_device == file
    settings.change({"reader": "i2c"})
    assert settings.say()["in_use"]["reader"] == file
    assert settings.say()["after_start"]["reader"] == "i2c"
    assert OwnSettings(bus.settings, paired).reader_device == "i2c"


def told(bus: Bus, *words: str) -> int:
    return tech.main(["--settings", str(bus.settings_file), *words])


def test_a_technician_sets_and_sees_it_on_a_bus_without_a_hub(
    bus: Bus, fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real program: `farebox-tech show` and `set`; errors are sentences; kept over a new start."""
    with bus.terminal() as unpaired:
        unpaired.line_with("the card reader does not answer")
        assert told(bus, "show") == 0
        assert "not paired yet" in capsys.readouterr().out
        assert told(bus, "set", "route=7") == 1
        assert "not paired yet" in capsys.readouterr().err
        assert unpaired.stop() == 0
    bus.enrol(fleet)
    with bus.reader(), bus.terminal() as terminal:
        terminal.line_with("ready")
        assert told(bus, "set", "door=rear", "notes=new reader\nsince May", "reader=i2c") == 0
        out = capsys.readouterr().out
        assert "route:   12  (settings file)\n" in out
        assert "door:    rear\n" in out
        assert "notes:   new reader\n         since May\n" in out
        assert "(i2c from the next start on)" in out
        assert told(bus, "set", "bell=loud") == 1
        assert "there is no 'bell'" in capsys.readouterr().err
        assert told(bus, "set", "door") == 1
        assert "NAME=TEXT" in capsys.readouterr().err
        assert terminal.stop() == 0
    with bus.terminal() as terminal:
        terminal.line_with("the card reader does not answer")  # there is no I2C here
        assert told(bus, "show") == 0
        out = capsys.readouterr().out
        assert "door:    rear\n" in out
        assert "reader:  i2c\n" in out
        assert told(bus, "status") == 0
        assert "(route 12, door rear)" in capsys.readouterr().out
        assert terminal.stop() == 0
