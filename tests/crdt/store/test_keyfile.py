"""The key's file: whole or not there after a power cut, for its owner only, never replaced."""

import os
from pathlib import Path

import pytest

from crdt.errors import KeyUnusable
from crdt.store.keyfile import CREDENTIAL, create_key, find_key, load_key

KEY = bytes(range(32))


def entropy(length: int) -> bytes:
    return KEY[:length]


def test_a_first_start_makes_a_key_for_the_owner_only_and_a_second_reads_it(tmp_path: Path) -> None:
    file, ledger = tmp_path / "etc" / "a.key", tmp_path / "ledger.db"
    assert find_key(file, {}) is None
    assert load_key(file, ledger, {}, entropy) == KEY
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]
    assert load_key(file, ledger, {}) == find_key(file, {}) == KEY


def test_a_key_that_is_there_stays(tmp_path: Path) -> None:
    create_key(tmp_path / "a.key", entropy)
    create_key(tmp_path / "a.key")
    assert find_key(tmp_path / "a.key", {}) == KEY
    assert list(tmp_path.iterdir()) == [tmp_path / "a.key"]


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_a_crash_while_it_is_made_leaves_no_key_and_the_next_start_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """An empty or half key would lock out the ledger that is made next, for ever."""

    def crash(*_arguments: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(os, step, crash)
        create_key(tmp_path / "a.key")
    assert find_key(tmp_path / "a.key", {}) is None
    create_key(tmp_path / "a.key", entropy)
    assert find_key(tmp_path / "a.key", {}) == KEY


def test_the_key_and_each_directory_on_its_way_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not leave a ledger without its key: the names are synced after the link."""
    synced: list[Path] = []
    sync = os.fsync

    def recording(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    file = tmp_path / "new" / "newer" / "a.key"
    create_key(file)
    assert synced[0].parent == file.parent
    assert synced[1:] == [file.parent, file.parent.parent, tmp_path]


def test_no_key_is_made_for_a_ledger_that_has_lost_its_own(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    with pytest.raises(KeyUnusable, match="Put the key file back"):
        load_key(tmp_path / "a.key", tmp_path / "ledger.db", {})
    assert not (tmp_path / "a.key").exists()


def test_a_systemd_credential_wins(tmp_path: Path) -> None:
    (tmp_path / CREDENTIAL).write_text(KEY.hex())
    create_key(tmp_path / "a.key")
    assert find_key(tmp_path / "a.key", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == KEY


def test_a_key_open_to_others_is_refused(tmp_path: Path) -> None:
    create_key(tmp_path / "a.key")
    (tmp_path / "a.key").chmod(0o640)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        find_key(tmp_path / "a.key", {})


@pytest.mark.parametrize("content", [b"", b"00" * 31, b"00" * 33, b"zz" * 32, b"\xff" * 64])
def test_a_damaged_key_is_refused(tmp_path: Path, content: bytes) -> None:
    create_key(tmp_path / "a.key")
    (tmp_path / "a.key").write_bytes(content)
    with pytest.raises(KeyUnusable, match="64 hex digits"):
        find_key(tmp_path / "a.key", {})


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeyUnusable, match="store.key_file has to be a place"):
        create_key(tmp_path / "file" / "a.key")
