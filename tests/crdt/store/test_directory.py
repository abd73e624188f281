"""A file's name is durable too: a power cut that takes it takes the file."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from crdt.frontier import Head
from crdt.store.backup import back_up
from crdt.store.database import Database
from crdt.store.marks import Marks
from crdt.store.new_file import new_file
from tests.crdt import world
from tests.crdt.store.conftest import KEY


def ledger(directory: Path) -> None:
    Database.open(directory / "ledger.db", KEY).close()


def copy(directory: Path) -> None:
    elsewhere = directory.parent / "ledger.db"
    with Database.open(elsewhere, KEY):
        back_up(elsewhere, KEY, directory / "copy.db")


def marks(directory: Path) -> None:
    kept = Marks.open(directory / "marks")
    kept.advance({world.HUB.replica: Head(1, bytes(32))})
    kept.save()


def export(directory: Path) -> None:
    with new_file(directory / "stick") as file:
        file.write(b"blocks")


@pytest.mark.parametrize("make", [ledger, copy, marks, export])
def test_whoever_makes_a_file_syncs_its_directory_last(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 4: what was acknowledged is in a file that is still there after a power cut."""
    directory = tmp_path / "in"
    directory.mkdir()
    synced: list[Path] = []
    sync = os.fsync

    def recording(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    make(directory)
    assert synced[-1] == directory
