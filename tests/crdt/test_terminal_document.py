"""A terminal's document: hub and technician write it apart, nothing typed is lost, and both read the same."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from automerge.core import ROOT, Document, ObjType, ScalarType
from hypothesis import given
from hypothesis import strategies as st

from crdt.documents import MAX_CHANGES, MAX_VERSION, TERMINAL_DOCUMENT, SignedDocument
from crdt.errors import InputRefused, Malformed, TooLarge
from crdt.facts import TerminalId
from crdt.fleet import SettingRefused
from crdt.terminal_document import (
    HUB_EDITS,
    MAX_EDITION,
    MAX_EPOCH,
    MAX_NOTES_BYTES,
    TERMINAL_EDITS,
    TERMINAL_SETTING_NAMES,
    TerminalDocument,
    TerminalSettings,
)
from tests.crdt.saved_bytes import swelling
from tests.crdt.world import FLEET, TERMINALS, texts

BUS = TerminalId(b"bus 12, front...")
NEW = TerminalDocument.new(BUS)

names = st.sampled_from(TERMINAL_SETTING_NAMES)
edits = st.dictionaries(names, texts, min_size=1, max_size=3)


class Sides:
    """A hub and a technician who exchange documents when they meet."""

    def __init__(self, document: TerminalDocument = NEW) -> None:
        self.documents = {HUB_EDITS: document, TERMINAL_EDITS: document}

    def edit(self, actor: bytes, changes: dict[str, str]) -> None:
        self.documents[actor] = self.documents[actor].edited(actor, changes)

    def send(self, sender: bytes) -> None:
        """One way, as signed bytes; the answer may get lost."""
        receiver = TERMINAL_EDITS if sender == HUB_EDITS else HUB_EDITS
        theirs = TerminalDocument.load(self.documents[sender].body, BUS)
        self.documents[receiver] = self.documents[receiver].merged(theirs, receiver)

    def meet(self) -> TerminalDocument:
        """An exchange both ways, after which both are alike."""
        self.send(TERMINAL_EDITS)
        self.send(HUB_EDITS)
        hub, bus = self.documents.values()
        assert (hub.version, hub.epoch, hub.settings) == (bus.version, bus.epoch, bus.settings)
        return hub


def begun_anew(document: TerminalDocument) -> TerminalDocument:
    """The document as it is once its history has been dropped."""
    return document._rebased()


ROUTE, DOOR = {"route": "110"}, {"door": "front"}


def test_a_new_document_is_empty_and_the_same_wherever_it_is_made() -> None:
    assert NEW.settings == TerminalSettings()
    assert TerminalDocument.new(BUS) == NEW
    assert TerminalDocument.load(NEW.body, BUS) == NEW
    assert TerminalDocument.new(TerminalId(bytes(16))).version != NEW.version


@given(edits, st.sampled_from([HUB_EDITS, TERMINAL_EDITS]))
def test_an_edit_reads_as_typed_and_keeps_the_rest(changes: dict[str, str], actor: bytes) -> None:
    before = NEW.edited(HUB_EDITS, {"notes": "two\nlines", "door": "rear"})
    after = before.edited(actor, changes)
    loaded = TerminalDocument.load(after.body, BUS)
    assert loaded == after
    for name in TERMINAL_SETTING_NAMES:
        assert getattr(after.settings, name) == changes.get(name, getattr(before.settings, name))
    assert (after == before) is all(
        getattr(before.settings, name) == text for name, text in changes.items()
    ), "typing what is there already is no change"
    assert 1 <= after.version <= MAX_VERSION


@given(edits, edits)
def test_two_who_edit_apart_keep_each_others_fields_and_agree_on_the_same_one(
    hubs: dict[str, str], technicians: dict[str, str]
) -> None:
    sides = Sides()
    sides.edit(HUB_EDITS, hubs)
    sides.edit(TERMINAL_EDITS, technicians)
    both = sides.meet().settings
    for name in TERMINAL_SETTING_NAMES:
        # Leaving a field empty that is empty is no edit.
        typed = {text for text in (hubs.get(name), technicians.get(name)) if text}
        assert getattr(both, name) in (typed or {""})


steps = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.sampled_from([HUB_EDITS, TERMINAL_EDITS]), edits),
        st.tuples(st.just("send"), st.sampled_from([HUB_EDITS, TERMINAL_EDITS]), st.just({})),
        st.tuples(st.just("begin anew"), st.sampled_from([HUB_EDITS, TERMINAL_EDITS]), st.just({})),
        st.tuples(st.just("restore"), st.sampled_from([HUB_EDITS, TERMINAL_EDITS]), st.just({})),
    ),
    max_size=14,
)


@given(steps)
def test_whatever_happens_both_agree_after_they_meet_and_the_last_word_stands(
    history: Sequence[tuple[str, bytes, dict[str, str]]],
) -> None:
    """Histories are dropped, answers are lost, storage is put back to an old copy, on either side."""
    sides = Sides()
    old = dict(sides.documents)
    for action, actor, changes in history:
        if action == "edit":
            sides.edit(actor, changes)
        elif action == "send":
            sides.send(actor)
        elif action == "begin anew":
            sides.documents[actor] = begun_anew(sides.documents[actor])
        else:
            sides.documents[actor], old[actor] = old[actor], sides.documents[actor]
    sides.meet()
    last = dict.fromkeys(TERMINAL_SETTING_NAMES, "last word")
    sides.edit(TERMINAL_EDITS, last)
    assert sides.meet().settings == TerminalSettings(**last)


@given(st.permutations([*TERMINAL_SETTING_NAMES]), st.integers(0, 5), st.booleans(), st.booleans())
def test_nothing_typed_is_lost_when_a_history_is_dropped_meanwhile(
    order: list[str], mine: int, hub_drops: bool, technician_drops: bool
) -> None:
    """Each side edits its own fields, before and after the histories are dropped, without having met."""
    sides = Sides(NEW.edited(HUB_EDITS, dict.fromkeys(order, "before")))
    for when in ("meanwhile", "at last"):
        sides.edit(HUB_EDITS, dict.fromkeys(order[:mine], f"hub {when}"))
        sides.edit(TERMINAL_EDITS, dict.fromkeys(order[mine:], f"bus {when}"))
        for drops, actor in ((hub_drops, HUB_EDITS), (technician_drops, TERMINAL_EDITS)):
            if drops:
                sides.documents[actor] = begun_anew(sides.documents[actor])
    found = sides.meet().settings
    assert {name: getattr(found, name) for name in order} == {
        **dict.fromkeys(order[:mine], "hub at last"),
        **dict.fromkeys(order[mine:], "bus at last"),
    }


def test_merging_again_changes_nothing_and_equal_documents_have_equal_versions() -> None:
    hub, bus = NEW.edited(HUB_EDITS, ROUTE), NEW.edited(TERMINAL_EDITS, DOOR)
    both = hub.merged(bus, HUB_EDITS)
    assert both.merged(bus, HUB_EDITS) == both.merged(NEW, HUB_EDITS) == both
    assert bus.merged(hub, TERMINAL_EDITS).version == both.version
    assert len({NEW.version, hub.version, bus.version, both.version}) == 4


def test_a_long_history_is_dropped_and_the_other_side_follows() -> None:
    """However often a technician types, the document stays quick to load."""
    sides = Sides()
    sides.edit(HUB_EDITS, DOOR)
    for count in range(MAX_CHANGES + 5):
        sides.edit(TERMINAL_EDITS, {"notes": f"{count}"})
    assert sides.documents[TERMINAL_EDITS].epoch == 1
    both = sides.meet()
    assert both.settings == TerminalSettings(door="front", notes=f"{MAX_CHANGES + 4}")
    assert len(Document.load(both.body).get_changes([])) < 20


def test_two_long_histories_that_meet_begin_anew_alike() -> None:
    sides = Sides()
    for count in range(MAX_CHANGES - 2):
        sides.edit(TERMINAL_EDITS, {"notes": f"{count}"})
        if count % 3 == 0:
            sides.edit(HUB_EDITS, {"route": f"{count}"})
    both = sides.meet()
    assert (both.epoch, len(Document.load(both.body).get_changes([]))) == (1, 1)
    assert both.settings == TerminalSettings(
        route=f"{(MAX_CHANGES - 3) // 3 * 3}", notes=f"{MAX_CHANGES - 3}"
    )


def test_a_history_of_long_notes_is_dropped_by_its_bytes() -> None:
    document = NEW
    source = random.Random(1)  # noqa: S311  # a fixed seed, no secret
    for _ in range(150):
        document = document.edited(TERMINAL_EDITS, {"notes": source.randbytes(500).hex()})
        assert len(document.body) < 70_000
    assert document.epoch > 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rout": "1"}, "a terminal has no setting 'rout'"),
        ({"terminal": "1"}, "a terminal has no setting 'terminal'"),
        ({"route": "x" * 65}, "a terminal's route must be at most 64 bytes"),
        ({"door": "a\nb"}, "a terminal's door must be at most 64 bytes"),
        ({"vehicle": "\ud800"}, "a terminal's vehicle must be"),
        ({"reader": 3}, "a terminal's reader must be text"),
        ({"notes": "ü" * 501}, "a terminal's notes must be at most 1000 bytes"),
        ({"notes": "a\tb"}, "a terminal's notes must be"),
        ({"notes": "\ud800"}, "a terminal's notes must be"),
    ],
)
def test_a_text_that_does_not_fit_is_refused_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingRefused, match="^" + sentence):
        NEW.edited(HUB_EDITS, changes)
    assert NEW.edited(HUB_EDITS, {"notes": "ü\n" * (MAX_NOTES_BYTES // 3)}).settings.notes


def saved(actor: bytes = TERMINAL_EDITS, base: bytes = NEW.body, **values: tuple[ScalarType, Any]) -> bytes:
    document = Document.load(base)
    document.set_actor(actor)
    with document.transaction() as transaction:
        for name, (kind, value) in values.items():
            transaction.put(ROOT, name, kind, value)
    return document.save()


def nested() -> bytes:
    document = Document.load(NEW.body)
    document.set_actor(TERMINAL_EDITS)
    with document.transaction() as transaction:
        transaction.put(transaction.put_object(ROOT, "notes", ObjType.Map), "0", ScalarType.Str, "1:x")
    return document.save()


STR, INT = ScalarType.Str, ScalarType.Int


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(b"", Malformed, id="nothing"),
        pytest.param(NEW.body[:-3], Malformed, id="cut short"),
        pytest.param(Document(TERMINAL_EDITS).save(), Malformed, id="an empty document"),
        pytest.param(saved(door=(INT, 3)), Malformed, id="a number for a text"),
        pytest.param(saved(door=(STR, "front")), Malformed, id="a text without its edition"),
        pytest.param(saved(door=(STR, "01:front")), Malformed, id="an edition written otherwise"),
        pytest.param(saved(door=(STR, "٣:front")), Malformed, id="an edition in other digits"),
        pytest.param(saved(door=(STR, f"{MAX_EDITION + 1}:x")), Malformed, id="an edition out of range"),
        pytest.param(saved(door=(STR, "1:" + "x" * 65)), Malformed, id="a long text"),
        pytest.param(saved(notes=(STR, "1:" + "x" * 1001)), Malformed, id="long notes"),
        pytest.param(saved(notes=(STR, "1:\x1b[2J")), Malformed, id="notes that clear a screen"),
        pytest.param(saved(epoch=(STR, "1")), Malformed, id="an epoch that is no number"),
        pytest.param(saved(epoch=(INT, -1)), Malformed, id="an epoch below the first"),
        pytest.param(saved(epoch=(INT, MAX_EPOCH + 1)), Malformed, id="an epoch out of range"),
        pytest.param(saved(epoch=(ScalarType.Boolean, True)), Malformed, id="an epoch that is true"),
        pytest.param(saved(other=(STR, "1:x")), Malformed, id="another field"),
        pytest.param(nested(), Malformed, id="a map for a text"),
        pytest.param(saved(terminal=(STR, "00" * 16)), Malformed, id="another terminal"),
        pytest.param(TerminalDocument.new(TerminalId(bytes(16))).body, Malformed, id="another terminal's"),
        pytest.param(saved(b"somebody else..."), Malformed, id="another writer"),
        pytest.param(swelling(NEW.body, 10**9), TooLarge, id="a billion operations"),
        pytest.param(bytes(300_000), TooLarge, id="too many bytes"),
    ],
)
def test_a_document_that_is_not_this_terminals_is_refused(body: bytes, error: type[InputRefused]) -> None:
    with pytest.raises(error):
        TerminalDocument.load(body, BUS)


def test_a_signed_document_of_another_terminal_is_not_merged() -> None:
    with pytest.raises(Malformed):
        NEW.merged(TerminalDocument.new(TerminalId(bytes(16))), HUB_EDITS)


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(saved(door=(STR, f"{MAX_EDITION}:x")), id="the last edition"),
        pytest.param(saved(epoch=(INT, MAX_EPOCH)), id="the last epoch"),
        pytest.param(saved(HUB_EDITS, door=(STR, "9:forged")), id="in the hub's name"),
        pytest.param(
            saved(b"farebox-term-new", Document(b"farebox-term-new").save(),
                  terminal=(STR, BUS.hex()), epoch=(INT, MAX_EPOCH),
                  **dict.fromkeys(TERMINAL_SETTING_NAMES, (STR, f"{MAX_EDITION}:~"))),
            id="all at once",
        ),
    ],
)  # fmt: skip
def test_a_terminal_that_lies_about_its_document_does_not_stop_the_hub_from_writing_it(
    hostile: bytes,
) -> None:
    """It can spoil what it may write anyway; merging and editing go on, and an honest technician is heard."""
    sides = Sides(NEW.edited(HUB_EDITS, ROUTE))
    sides.documents[TERMINAL_EDITS] = TerminalDocument.load(hostile, BUS)
    sides.meet()
    for actor, text in ((HUB_EDITS, "hub"), (TERMINAL_EDITS, "bus"), (HUB_EDITS, "zzz")):
        sides.edit(actor, {"door": text})
        assert sides.documents[actor].settings.door == text
        assert sides.meet().settings.door == text


def test_a_document_travels_signed_by_either_side() -> None:
    author = TERMINALS[0]
    edited = NEW.edited(TERMINAL_EDITS, DOOR)
    signed = SignedDocument.seal(author.key, FLEET, TERMINAL_DOCUMENT, edited.version, edited.body)
    found = SignedDocument.decode(signed.encode()).verify(author.certificate)
    assert TerminalDocument.load(found.body, BUS).version == found.version
