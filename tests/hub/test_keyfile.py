"""The database's key is for its owner only and never lies beside the data; each mistake has its sentence."""

import re
from pathlib import Path

import pytest

from crdt.errors import KeyUnusable
from hub.errors import SetupError
from hub.keyfile import create_key, read_key


def test_a_created_key_is_private_random_and_read_back(tmp_path: Path) -> None:
    first, second = tmp_path / "a.key", tmp_path / "b.key"
    create_key(first, tmp_path / "state")
    create_key(second, tmp_path / "state")
    assert first.stat().st_mode & 0o777 == 0o600
    assert len(read_key(first, {})) == 32
    assert read_key(first, {}) != read_key(second, {})


def test_a_key_that_is_there_stays(tmp_path: Path) -> None:
    create_key(tmp_path / "hub.key", tmp_path / "state")
    before = read_key(tmp_path / "hub.key", {})
    create_key(tmp_path / "hub.key", tmp_path / "state")
    assert read_key(tmp_path / "hub.key", {}) == before


def test_a_key_inside_the_state_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="inside the state directory"):
        create_key(tmp_path / "state" / "hub.key", tmp_path / "state")


def test_a_missing_key_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="restore it from its backup, or run `farebox-hub init`"):
        read_key(tmp_path / "hub.key", {})


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    create_key(tmp_path / "hub.key", tmp_path / "state")
    (tmp_path / "hub.key").chmod(0o644)
    with pytest.raises(KeyUnusable, match=re.escape(f"chmod 600 {tmp_path / 'hub.key'}")):
        read_key(tmp_path / "hub.key", {})


@pytest.mark.parametrize("content", ["", "00" * 31, "zz" * 32, "\x80"])
def test_a_damaged_key_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "hub.key").touch(mode=0o600)
    (tmp_path / "hub.key").write_text(content, encoding="latin-1")
    with pytest.raises(KeyUnusable, match="must hold 64 hex digits"):
        read_key(tmp_path / "hub.key", {})


def test_the_credential_of_systemd_wins(tmp_path: Path) -> None:
    create_key(tmp_path / "hub.key", tmp_path / "state")
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "farebox-ledger-key").write_text("ab" * 32)
    assert (
        read_key(tmp_path / "hub.key", {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")})
        == b"\xab" * 32
    )
