"""The ledger's key: made once, for its owner only, never replaced (issue: wrong database key, a sentence)."""

from pathlib import Path

import pytest

from edge.errors import KeyFileError
from edge.keyfile import CREDENTIAL, load_key

KEY = bytes(range(32))


def entropy(length: int) -> bytes:
    return KEY[:length]


def test_a_first_start_makes_a_key_for_the_owner_only_and_a_second_reads_it(tmp_path: Path) -> None:
    file, ledger = tmp_path / "etc" / "edge.key", tmp_path / "ledger.db"
    assert load_key(file, ledger, {}, entropy) == KEY
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]
    assert load_key(file, ledger, {}) == KEY


def test_a_systemd_credential_wins_and_no_file_is_made(tmp_path: Path) -> None:
    (tmp_path / CREDENTIAL).write_text(KEY.hex())
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load_key(tmp_path / "edge.key", tmp_path / "ledger.db", environment) == KEY
    assert not (tmp_path / "edge.key").exists()


def test_no_new_key_is_made_for_a_ledger_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    with pytest.raises(KeyFileError, match="Put the key file back"):
        load_key(tmp_path / "edge.key", tmp_path / "ledger.db", {})
    assert not (tmp_path / "edge.key").exists()


def test_a_key_open_to_others_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    file = tmp_path / "edge.key"
    file.write_text(KEY.hex())
    file.chmod(0o640)
    with pytest.raises(KeyFileError, match=f"chmod 600 {file}"):
        load_key(file, tmp_path / "ledger.db", {})


@pytest.mark.parametrize("content", ["", "abc", KEY.hex()[:-2], KEY.hex() * 9, "é" * 64])
def test_a_damaged_key_is_a_sentence(tmp_path: Path, content: str) -> None:
    file = tmp_path / "edge.key"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(KeyFileError, match="must hold 64 hex digits and nothing else"):
        load_key(file, tmp_path / "ledger.db", {})


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match="cannot be used"):
        load_key(tmp_path / "file" / "edge.key", tmp_path / "ledger.db", {})


def test_the_remains_of_a_power_cut_do_not_stop_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "edge.key"
    (tmp_path / ".edge.key.new").write_text("half")
    assert load_key(file, tmp_path / "ledger.db", {}, entropy) == KEY
