"""Automerge bodies: bytes with right checksums, columns rewritten, and documents that automerge made."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from automerge.core import ROOT, Document, ObjType, ScalarType, Transaction

from crdt.documents import ACTOR, FleetDocument
from crdt.errors import InputRefused
from crdt.facts import TerminalId
from crdt.fleet import SETTING_NAMES, FleetSettings, SettingRefused
from crdt.terminal_document import HUB_EDITS, TERMINAL_EDITS, TERMINAL_SETTING_NAMES, TerminalDocument
from tests.crdt.fuzz.mutate import Mutator
from tests.crdt.fuzz.target import Target
from tests.crdt.saved_bytes import Column, Parts, chunk, deflated, parts, run, signed

BUS: Final = TerminalId(b"bus 12, front...")
_HEADER_BYTES: Final = 8  # magic and checksum
_FLEET: Final = FleetDocument.new(FleetSettings(route_fares={"110": 300, "N1": 0}))
_NEW: Final = TerminalDocument.new(BUS)
_EDITED: Final = _NEW.edited(HUB_EDITS, {"route": "110", "notes": "two\nlines"}).merged(
    _NEW.edited(TERMINAL_EDITS, {"door": "front", "route": "11"}), TERMINAL_EDITS
)
_LONG: Final = _EDITED.edited(TERMINAL_EDITS, {"notes": "x y " * 250})
FLEET_BODIES: Final = [_FLEET.body, _FLEET.with_changes({"route_fares": {"7": 1}, "exponent": 0}).body]
TERMINAL_BODIES: Final = [_NEW.body, _EDITED.body, _LONG.body]
_TEXTS: Final = (
    "",
    "0:",
    "1:front",
    "999999999999999:z",
    "7:" + "y" * 64,
    "8:" + "y" * 65,
    "9:" + "x" * 1000,
    "10:" + "x" * 1001,
    "register",
    "EUR",
    BUS.hex(),
    "\n",
    "\x00",
)
_NAMES: Final = (*SETTING_NAMES, *TERMINAL_SETTING_NAMES, "epoch", "terminal", "other", "x" * 300)


def mutant_body(mutator: Mutator, bodies: Sequence[bytes], actors: Sequence[bytes]) -> bytes:
    """A saved document of one of several makes."""
    body = mutator.pick(bodies)
    match mutator.source.randrange(4):
        case 0:
            return with_checksum(mutator.mutated(body[_HEADER_BYTES:]))
        case 1:
            return chunk(mutator.mutated(body[_HEADER_BYTES + 2 :]), mutator.pick((0, 0, 0, 1, 2)))
        case 2:
            return rewritten(mutator, body)
        case _:
            return written(mutator, body, actors)


def with_checksum(rest: bytes) -> bytes:
    """Any bytes after a magic and a checksum that is right for them."""
    return b"\x85\x6f\x4a\x83" + sha256(rest).digest()[:4] + rest


def rewritten(mutator: Mutator, body: bytes) -> bytes:
    """The document with a few of its columns, writers or heads replaced."""
    whole = parts(body)
    for _ in range(mutator.source.choice((1, 1, 2, 3))):
        whole = changed(mutator, whole)
    return whole.saved()


def changed(mutator: Mutator, whole: Parts) -> Parts:
    """One part of the document replaced."""
    match mutator.source.randrange(8):
        case 0:
            return whole._replace(actors=[mutator.mutated(actor) for actor in whole.actors])
        case 1:
            return whole._replace(heads=mutator.pick(([], whole.heads * 2, [bytes(32)])))
        case 2:
            return whole._replace(suffix=mutator.mutated(whole.suffix))
        case 3 | 4:
            return whole._replace(changes=columns(mutator, whole.changes))
        case _:
            return whole._replace(operations=columns(mutator, whole.operations))


def columns(mutator: Mutator, old: Sequence[Column]) -> list[Column]:
    """The columns with one changed, compressed, added or left out."""
    made = list(old)
    at = mutator.source.randrange(len(made))
    column = made[at]
    match mutator.source.randrange(6):
        case 0:
            made[at] = deflated(column)
        case 1:
            made[at] = deflated(Column(column.specification, mutator.mutated(column.data)))
        case 2:
            made[at] = Column(mutator.number(2**32 - 1), column.data)
        case 3:
            count = mutator.number(2**62)
            made[at] = Column(
                column.specification, run(count, mutator.pick((b"\0", b"\1", signed(-1), b"\1a")))
            )
        case 4:
            del made[at]
        case _:
            made[at] = Column(column.specification, mutator.mutated(column.data))
    return made


def written(mutator: Mutator, body: bytes, actors: Sequence[bytes]) -> bytes:
    """What automerge saves after somebody wrote anything into the document."""
    document = Document.load(body) if not mutator.chance(5) else Document(mutator.pick(actors))
    document.set_actor(mutator.pick(actors))
    for _ in range(mutator.source.choice((1, 2, 5))):
        with document.transaction() as transaction:
            for _ in range(mutator.source.choice((1, 3, 9))):
                write(mutator, transaction)
    return document.save()


def write(mutator: Mutator, transaction: Transaction) -> None:
    """Put one value at the root, or in something put there; half the time a text where one belongs."""
    if mutator.chance(2):
        transaction.put(ROOT, mutator.pick(TERMINAL_SETTING_NAMES), ScalarType.Str, mutator.pick(_TEXTS))
        return
    place = ROOT
    name = mutator.pick(_NAMES)
    if mutator.chance(4):
        for _ in range(mutator.pick((1, 1, 2, 60))):
            place = transaction.put_object(place, name, ObjType.Map)
            name = mutator.pick(("110", "N1", "x"))
    elif mutator.chance(12):
        place = transaction.put_object(ROOT, name, mutator.pick((ObjType.List, ObjType.Text)))
        transaction.insert(place, 0, ScalarType.Str, "x")
        return
    elif mutator.chance(8) and transaction.get(ROOT, name) is not None:
        transaction.delete(ROOT, name)
        return
    kind = mutator.pick(
        (
            ScalarType.Str,
            ScalarType.Int,
            ScalarType.Boolean,
            ScalarType.Bytes,
            ScalarType.Null,
            ScalarType.F64,
        )
    )
    transaction.put(place, name, kind, value(mutator, kind))


def value(mutator: Mutator, kind: ScalarType) -> str | int | bool | bytes | float | None:
    """A value of a type, often at a border."""
    if kind == ScalarType.Str:
        return mutator.pick(_TEXTS)
    if kind == ScalarType.Int:
        return mutator.number(2**63 - 1) * mutator.pick((1, 1, -1))
    if kind == ScalarType.Boolean:
        return mutator.chance(2)
    if kind == ScalarType.Bytes:
        return mutator.source.randbytes(5)
    return mutator.pick((0.0, -1.5, float("inf"), float("nan"))) if kind == ScalarType.F64 else None


def check_fleet(body: bytes) -> bool:
    """Refused, or settings that can be read, changed and read again."""
    try:
        document = FleetDocument.load(body)
    except InputRefused:
        return False
    assert isinstance(document.settings, FleetSettings)
    changed_fare = document.settings.flat_fare_minor ^ 1
    try:
        later = document.with_changes({"flat_fare_minor": changed_fare})
    except SettingRefused:
        return True  # the fare was the largest one
    assert FleetDocument.load(later.body) == later
    assert later.settings.flat_fare_minor == changed_fare
    return True


def check_terminal(body: bytes) -> bool:
    """Refused, or a document that merges with the honest ones, the same on both sides, and can be edited."""
    try:
        document = TerminalDocument.load(body, BUS)
    except InputRefused:
        return False
    for name, (_, text) in document.editions.items():
        assert len(text.encode()) <= (1000 if name == "notes" else 64)
    for honest in (_NEW, _EDITED):
        at_hub, at_bus = honest.merged(document, HUB_EDITS), document.merged(honest, TERMINAL_EDITS)
        assert at_hub.merged(at_bus, HUB_EDITS).version == at_bus.merged(at_hub, TERMINAL_EDITS).version
        assert TerminalDocument.load(at_hub.body, BUS) == at_hub
    edited = document.edited(HUB_EDITS, {"route": "fuzzed", "notes": ""})
    assert TerminalDocument.load(edited.body, BUS).settings.route == "fuzzed"
    return True


_FLEET_ACTORS: Final = (ACTOR, ACTOR, ACTOR, HUB_EDITS)
_TERMINAL_ACTORS: Final = (HUB_EDITS, TERMINAL_EDITS, b"farebox-term-new", ACTOR)
TARGETS: Final = [
    Target(
        "fleet-document", lambda each: mutant_body(each, FLEET_BODIES, _FLEET_ACTORS), check_fleet, weight=8
    ),
    Target(
        "terminal-document",
        lambda each: mutant_body(each, TERMINAL_BODIES, _TERMINAL_ACTORS),
        check_terminal,
        weight=12,
    ),
]
