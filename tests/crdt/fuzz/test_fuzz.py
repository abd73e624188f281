"""Invariant 8: whatever bytes come, signed and framed right or not, every decoder refuses or means them."""

from collections.abc import Callable
from typing import Any

import pytest

from crdt.errors import Malformed
from crdt.wire import Reader
from tests.crdt.fuzz.campaign import CRASHERS, TARGETS, Campaign, Finding

MUTANTS = {"pairing-message": 40}  # SPAKE2 takes 15 ms


@pytest.mark.parametrize("name", TARGETS)
def test_mutants_with_right_signatures_are_refused_or_mean_what_they_say(name: str) -> None:
    """The first mutants of seed 1; `tests/crdt/fuzz/run` tries any number of any seed."""
    campaign = Campaign(1, [TARGETS[name]])
    tried = MUTANTS.get(name, 300)
    for _ in campaign.run(iter(range(tried))):
        pass
    tally = campaign.tallies[name]
    assert tally.executed == tried
    assert tally.accepted, "all mutants are refused: the fuzzer does not get past the checks"
    assert tally.accepted < tried, "no mutant is refused: the fuzzer changes nothing that matters"


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_kept_is_judged_as_it_was(name: str) -> None:
    """What was found once, or shows a rule by itself: TARGET/refused/NAME.hex, TARGET/accepted/NAME.hex."""
    target, kept = TARGETS[name], sorted((CRASHERS / name).rglob("*.hex"))
    assert kept, f"nothing is kept for {name}"
    campaign = Campaign(1, [target])
    for path in kept:
        accepted = campaign.judge(target, 0, bytes.fromhex(path.read_text()))
        assert path.parent.name == ("accepted" if accepted else "refused"), path
    assert {path.name for path in CRASHERS.iterdir()} == TARGETS.keys()


def lenient_varint(reader: Reader, low: int = 0, high: int = 2**64 - 1) -> int:
    """Takes superfluous bytes."""
    value = shift = 0
    while True:
        byte = reader.uint(1)
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if not low <= value <= high:
                raise Malformed("a number is out of range")
            return value


def no_dictionary_order(index: Any, size: int) -> bool:
    """Takes entries in any order, and unused ones."""
    return bool(max(index) < size)


NOTHING: Callable[..., None] = lambda *_: None  # noqa: E731
PLANTED = {  # target, from which mutant on it is looked for, and the bug
    "superfluous bytes in a block": ("block", 207, "crdt.wire.Reader.varint", lenient_varint),
    "superfluous bytes in a page": ("page", 70, "crdt.wire.Reader.varint", lenient_varint),
    "bytes after the end": ("frame-body", 3, "crdt.wire.Reader.end", NOTHING),
    "a dictionary in disorder": ("block", 4, "crdt.planes._in_order_of_appearance", no_dictionary_order),
    "runs that could be longer": ("block", 140, "crdt.planes.eq", lambda *_: False),
    "times not in the largest unit": ("block", 103, "crdt.time_column._check_shortest", NOTHING),
    "times beyond the range": ("block", 200, "crdt.time_column._check_range", NOTHING),
    "an amount that does not suit": ("block", 208, "crdt.columns.amount_fits", lambda *_: True),
    "ids lost on the way": ("block", 11, "crdt.numbering.ids_section", lambda _: b""),
    "texts of any length": ("terminal-document", 245, "crdt.terminal_document._check", NOTHING),
}


@pytest.mark.parametrize(("target", "first", "where", "planted"), PLANTED.values(), ids=PLANTED)
def test_a_planted_bug_is_found(
    target: str, first: int, where: str, planted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle sees what it is for: each bug within 3,000 mutants in a row, and in what is kept."""
    monkeypatch.setattr(where, planted)
    with pytest.raises(AssertionError):  # as it is judged, or how
        test_what_is_kept_is_judged_as_it_was(target)
    with pytest.raises(Finding):
        for _ in Campaign(1, [TARGETS[target]]).run(iter(range(first, first + 3000))):
            pass


def test_a_decoder_that_takes_too_much_memory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is one that unpacks whatever it is given."""
    hoard = Campaign(1, [TARGETS["revocations"]])
    monkeypatch.setattr(
        "tests.crdt.fuzz.sealed.Revocations.decode", lambda _: bytes(2 * TARGETS["revocations"].peak_bytes)
    )
    with pytest.raises(Finding):
        for _ in hoard.run(iter(range(30))):
            pass
