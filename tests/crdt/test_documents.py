"""The fleet's settings as a document: what the hub signed is what a terminal reads (invariant 8)."""

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from automerge.core import ROOT, Document, ObjType, ScalarType
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.documents import (
    ACTOR,
    MAX_CHANGES,
    MAX_DOCUMENT_BYTES,
    MAX_SIGNED_DOCUMENT_BYTES,
    TERMINAL_DOCUMENT,
    FleetDocument,
    SignedDocument,
)
from crdt.errors import (
    BadSignature,
    ForeignFleet,
    InputRefused,
    Malformed,
    MisuseError,
    NotPermitted,
    TooLarge,
    UnknownAuthor,
    Unsupported,
)
from crdt.facts import FleetId
from crdt.fleet import FleetSettings, SettingRefused
from tests.crdt.saved_bytes import swelling
from tests.crdt.world import FLEET, HUB, HUB_KEY, TERMINALS, texts

SETTINGS = FleetSettings(route_fares={"110": 300, "N1": 0}, flat_fare_minor=275, unknown_card="refuse")
DOCUMENT = FleetDocument.new(SETTINGS)
SIGNED = SignedDocument.seal(HUB_KEY, FLEET, "fleet", 7, DOCUMENT.body)

fleet_settings = st.builds(
    FleetSettings,
    currency=st.sampled_from(["EUR", "JPY"]),
    exponent=st.integers(0, 4),
    flat_fare_minor=st.integers(0, 2**40),
    route_fares=st.dictionaries(texts.filter(bool), st.integers(0, 1000), max_size=4),
    unknown_card=st.sampled_from(["register", "refuse"]),
    opening_balance_minor=st.integers(0, 1000),
    low_balance_minor=st.integers(0, 1000),
    negative_ride=st.booleans(),
    passback_window_s=st.integers(0, 86_400),
)


@given(fleet_settings)
def test_settings_read_as_written(written: FleetSettings) -> None:
    document = FleetDocument.new(written)
    assert FleetDocument.load(document.body).settings == written
    assert FleetDocument.new(written).body == document.body


def test_a_change_keeps_the_rest_and_the_history() -> None:
    changed = DOCUMENT.with_changes({"flat_fare_minor": 300, "route_fares": {"111": 200}})
    loaded = FleetDocument.load(changed.body).settings
    assert loaded == replace(SETTINGS, flat_fare_minor=300, route_fares={"111": 200})
    assert (loaded.fare_minor("111"), loaded.fare_minor("110")) == (200, 300)
    assert len(Document.load(changed.body).get_changes([])) == 2
    assert {change.actor_id for change in Document.load(changed.body).get_changes([])} == {ACTOR}
    assert DOCUMENT.settings == SETTINGS


def test_a_long_history_is_dropped() -> None:
    """A document stays small and quick to load however often fares change."""
    document = Document(ACTOR)
    for amount in range(MAX_CHANGES):
        with document.transaction() as transaction:
            transaction.put(ROOT, "flat_fare_minor", ScalarType.Int, amount)
    long = FleetDocument.load(document.save())
    fresh = long.with_changes({"exponent": 3})
    assert fresh.settings == FleetSettings(flat_fare_minor=MAX_CHANGES - 1, exponent=3)
    assert len(Document.load(fresh.body).get_changes([])) == 1


def test_a_history_of_many_routes_is_dropped_before_it_is_too_large_to_sign() -> None:
    """A few changes of two thousand fares are a long history too, in operations and in bytes."""
    document = DOCUMENT
    for at in range(30):
        document = document.with_changes(
            {"route_fares": {f"{sha256(b'%d' % n).hexdigest()}": at for n in range(2000)}}
        )
        assert len(document.body) < MAX_DOCUMENT_BYTES
    assert FleetDocument.load(document.body) == document


def test_a_small_document_of_many_operations_is_refused_unloaded() -> None:
    """Also when the hub signed it."""
    with pytest.raises(TooLarge):
        FleetDocument.load(swelling(saved("flat_fare_minor", ScalarType.Int, 3), 10**9))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"flat_fare_minor": -1}, "flat_fare_minor must be a whole number"),
        ({"flat_fare_minor": 2.5}, "flat_fare_minor must be a whole number"),
        ({"low_balance_minor": True}, "low_balance_minor must be a whole number"),
        ({"currency": "euro"}, "currency must be three capital letters"),
        ({"exponent": 5}, "exponent must be"),
        ({"unknown_card": "ask"}, 'unknown_card must be "register" or "refuse"'),
        ({"negative_ride": 1}, "negative_ride must be true or false"),
        ({"passback_window_s": 90_000}, "passback_window_s must be"),
        ({"route_fares": {"": 1}}, "a route in route_fares"),
        ({"route_fares": {"1": "x"}}, "route_fares['1'] must be a whole number"),
        ({"route_fares": 3}, "route_fares must map"),
        ({"route_fares": {str(at): 1 for at in range(2001)}}, "route_fares must name at most"),
        ({"fare": 1}, "there is no fleet setting 'fare'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_a_sentence(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SettingRefused, match="^" + sentence.replace("[", r"\[")):
        DOCUMENT.with_changes(changes)


def saved(name: str, kind: ScalarType, value: Any) -> bytes:
    document = Document(ACTOR)
    with document.transaction() as transaction:
        transaction.put(ROOT, name, kind, value)
        transaction.put(transaction.put_object(ROOT, "extra", ObjType.Map), "later", ScalarType.Int, 1)
    return document.save()


def test_a_document_of_another_hub_version_is_read_as_far_as_it_is_known() -> None:
    """Missing settings have their defaults, unknown names are left alone."""
    loaded = FleetDocument.load(saved("flat_fare_minor", ScalarType.Int, 123))
    assert loaded.settings == FleetSettings(flat_fare_minor=123)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        saved("flat_fare_minor", ScalarType.Str, "250"),
        saved("flat_fare_minor", ScalarType.F64, 2.5),
        saved("route_fares", ScalarType.Int, 3),
    ],
)
def test_a_document_with_settings_of_the_wrong_type_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        FleetDocument.load(body)


def test_every_truncation_and_flipped_bit_of_a_document_is_refused() -> None:
    """Also where automerge panics, which is a BaseException."""
    body = DOCUMENT.body
    changed = [body[:end] for end in range(len(body))]
    changed += [
        bytes(byte ^ (1 << bit % 8) if at == bit // 8 else byte for at, byte in enumerate(body))
        for bit in range(len(body) * 8)
    ]
    for each in changed:
        with pytest.raises(InputRefused):
            FleetDocument.load(each)


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_random_documents_are_refused(data: bytes) -> None:
    with pytest.raises(InputRefused):
        FleetDocument.load(data)
    with pytest.raises(InputRefused):
        SignedDocument.decode(b"\x01" + FLEET + data).verify(HUB)


def test_a_signed_document_reads_as_sealed() -> None:
    found = SignedDocument.decode(SIGNED.encode()).verify(HUB)
    assert found == SIGNED
    assert (found.name, found.version, found.body) == ("fleet", 7, DOCUMENT.body)


def test_every_truncation_and_flipped_bit_of_a_signed_document_is_refused() -> None:
    raw = SignedDocument.seal(HUB_KEY, FLEET, "fleet", 1, b"body").encode()
    changed = [raw[:end] for end in range(len(raw))] + [raw + b"\0"]
    changed += [
        bytes(byte ^ (1 << bit % 8) if at == bit // 8 else byte for at, byte in enumerate(raw))
        for bit in range(len(raw) * 8)
    ]
    for each in changed:
        with pytest.raises(InputRefused):
            SignedDocument.decode(each).verify(HUB)


def test_only_the_fleets_hub_writes_documents() -> None:
    with pytest.raises(UnknownAuthor):
        SIGNED.verify(TERMINALS[0].certificate)
    with pytest.raises(ForeignFleet):
        replace(SIGNED, fleet=FleetId(bytes(16))).verify(HUB)
    with pytest.raises(BadSignature):
        replace(SIGNED, version=8).verify(HUB)
    for name in ("fleet", "revoked", "", "terminals"):
        own = SignedDocument.seal(TERMINALS[0].key, FLEET, name, 9, b"x")
        with pytest.raises(NotPermitted):
            own.verify(TERMINALS[0].certificate)


def test_a_terminal_signs_its_own_document_and_nothing_else() -> None:
    """Invariant 10: what a technician typed on the bus is the terminal's word; fares are not."""
    author = TERMINALS[0]
    own = SignedDocument.seal(author.key, FLEET, TERMINAL_DOCUMENT, 9, b"x")
    assert own.verify(author.certificate) == own
    with pytest.raises(UnknownAuthor):
        own.verify(TERMINALS[1].certificate)
    with pytest.raises(BadSignature):
        replace(own, body=b"y").verify(author.certificate)
    assert SignedDocument.seal(HUB_KEY, FLEET, TERMINAL_DOCUMENT, 9, b"x").verify(HUB)


def test_sizes_are_bounded() -> None:
    with pytest.raises(TooLarge):
        FleetDocument.load(bytes(MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(TooLarge):
        SignedDocument.decode(bytes(MAX_SIGNED_DOCUMENT_BYTES + 1))
    with pytest.raises(Unsupported):
        SignedDocument.decode(b"\x02" + SIGNED.encode()[1:])
    with pytest.raises(MisuseError):
        SignedDocument.seal(HUB_KEY, FLEET, "fleet", 1, bytes(MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(MisuseError):
        SignedDocument.seal(HUB_KEY, FLEET, "fleet", 0, b"")
    largest = SignedDocument.seal(HUB_KEY, FLEET, "x" * 64, 2**62, bytes(MAX_DOCUMENT_BYTES))
    assert len(largest.encode()) <= MAX_SIGNED_DOCUMENT_BYTES


class Panic(BaseException):
    """What a Rust panic looks like from Python; a real one may leave the library unusable for other tests."""

    __module__ = "pyo3_runtime"


@pytest.mark.parametrize(("raised", "seen"), [(Panic, Malformed), (KeyboardInterrupt, KeyboardInterrupt)])
def test_a_panic_of_the_library_is_contained_and_an_interrupt_is_not(
    raised: type[BaseException], seen: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        @staticmethod
        def load(_: bytes) -> Document:
            raise raised

    monkeypatch.setattr("crdt.automerge_guard.Document", Failing)
    with pytest.raises(seen):
        FleetDocument.load(DOCUMENT.body)
