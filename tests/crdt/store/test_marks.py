"""High-water marks beside a ledger: a database put back from an old copy is noticed (invariant 5)."""

import itertools
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from crdt.errors import StoreFailed
from crdt.facts import ReplicaId
from crdt.frontier import Head
from crdt.store.marks import NONCE_BYTES, Marks

ONE, OTHER = ReplicaId(b"1" * 16), ReplicaId(b"2" * 16)


def head(seq: int, mark: bytes = b"h") -> Head:
    return Head(seq, mark * 32)


@pytest.fixture
def entropy() -> Callable[[int], bytes]:
    numbers = itertools.count(1)
    return lambda length: next(numbers).to_bytes(length, "big")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "marks"


class Kept:
    """A database, as far as marks are concerned: a nonce and heads, changed only when a start succeeds."""

    def __init__(self) -> None:
        self.nonce: bytes | None = None
        self.heads: dict[ReplicaId, Head] = {}

    def start(self, marks: Marks, stop_after: int = 9) -> bool:
        """A start that the power cuts off after so many steps; whether the database was put back."""
        restored = marks.check_start(self.nonce, self.heads)
        steps = [marks.save, lambda: setattr(self, "nonce", marks.nonce), marks.started]
        for step in steps[:stop_after]:
            step()
        return restored


def test_a_database_that_was_here_last_is_not_put_back(file: Path, entropy: Callable[[int], bytes]) -> None:
    kept = Kept()
    assert Marks.open(file, entropy).fresh
    for _ in range(3):
        marks = Marks.open(file, entropy)
        assert not kept.start(marks)
        assert kept.nonce == marks.nonce
        assert len(marks.nonce) == NONCE_BYTES
    assert not Marks.open(file, entropy).fresh
    assert [each.name for each in file.parent.iterdir()] == ["marks"]


def test_a_copy_of_before_any_start_is_noticed(file: Path, entropy: Callable[[int], bytes]) -> None:
    """Also one that has sealed nothing since: its open taps may be sealed elsewhere."""
    kept = Kept()
    kept.start(Marks.open(file, entropy))
    old = kept.nonce
    kept.start(Marks.open(file, entropy))
    kept.nonce = old
    assert kept.start(Marks.open(file, entropy))


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("second", range(4))
def test_power_cut_in_the_middle_of_starts_is_not_mistaken_for_a_copy(
    file: Path, entropy: Callable[[int], bytes], first: int, second: int
) -> None:
    kept = Kept()
    kept.start(Marks.open(file, entropy))
    for stop_after in (first, second):
        assert not kept.start(Marks.open(file, entropy), stop_after)
    assert not kept.start(Marks.open(file, entropy))


@pytest.mark.parametrize("stop_after", range(4))
def test_a_copy_is_noticed_again_until_the_database_knows(
    file: Path, entropy: Callable[[int], bytes], stop_after: int
) -> None:
    """A start that found it and was cut off before it was written down finds it again."""
    kept = Kept()
    kept.start(Marks.open(file, entropy))
    old = kept.nonce
    kept.start(Marks.open(file, entropy))
    kept.nonce = old
    assert kept.start(Marks.open(file, entropy), stop_after)
    assert kept.start(Marks.open(file, entropy)) == (stop_after < 2)


def test_a_mark_beyond_or_beside_the_database_tells_as_well(
    file: Path, entropy: Callable[[int], bytes]
) -> None:
    kept = Kept()
    marks = Marks.open(file, entropy)
    kept.start(marks)
    marks.advance({ONE: head(5), OTHER: head(3)})
    marks.advance({ONE: head(4)})
    marks.save()
    again = Marks.open(file, entropy)
    assert again.heads == {ONE: head(5), OTHER: head(3)}
    for heads, put_back in (
        ({ONE: head(5), OTHER: head(3)}, False),
        ({ONE: head(6), OTHER: head(9)}, False),
        ({ONE: head(4), OTHER: head(3)}, True),
        ({ONE: head(5, b"?"), OTHER: head(3)}, True),
        ({ONE: head(5)}, True),
    ):
        assert again.check_start(kept.nonce, heads) == put_back
    assert not again.check_start(kept.nonce, {ONE: head(5)}, [ONE])


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"?" + data[1:]])
def test_a_file_that_is_lost_or_damaged_makes_the_database_suspect(
    file: Path,
    entropy: Callable[[int], bytes],
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """To be safe: a new identity costs a handshake, a number used twice costs money."""
    kept = Kept()
    kept.start(Marks.open(file, entropy))
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.ERROR):
        marks = Marks.open(file, entropy)
    assert marks.fresh == (not damage(b"some bytes"))
    assert kept.start(marks)
    assert ("is damaged" in caplog.text) == bool(damage(b"some bytes"))
    assert not kept.start(Marks.open(file, entropy))


def test_a_disk_that_does_not_take_the_file_is_told_in_a_sentence(
    tmp_path: Path, entropy: Callable[[int], bytes]
) -> None:
    marks = Marks.open(tmp_path / "absent" / "marks", entropy)
    with pytest.raises(StoreFailed, match="nobody notices when the ledger is put back"):
        marks.save()
    with pytest.raises(StoreFailed, match="cannot be used"):
        Marks.open(tmp_path, entropy)
