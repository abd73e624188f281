"""The database's key: 32 bytes, as 64 hex digits in a file for its owner only, or a systemd credential."""

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from hub.errors import SetupError

CREDENTIAL = "farebox-ledger-key"
KEY_BYTES = 32


def read_key(file: Path, environment: Mapping[str, str]) -> bytes:
    """The key; the credential `farebox-ledger-key` wins over the file. SetupError when there is none."""
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if directory and (credential := Path(directory) / CREDENTIAL).exists():
        return _parse(credential)
    if not file.exists():
        raise SetupError(
            f"The database key {file} is missing. Without it the ledger cannot be opened: "
            "restore it from its backup, or run `farebox-hub init` for a new hub."
        )
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise SetupError(
            f"The database key {file} may be read by others (mode {mode:o}). Run `chmod 600 {file}`."
        )
    return _parse(file)


def create_key(file: Path, state_directory: Path) -> None:
    """Write a fresh key, mode 0600; a key that is there stays. SetupError if it would lie with the data."""
    if file.resolve().is_relative_to(state_directory.resolve()):
        raise SetupError(
            f"The key file {file} would lie inside the state directory {state_directory}, so that a copied "
            "directory would open itself. Choose another place for store.key_file."
        )
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="ascii") as out:
        out.write(secrets.token_hex(KEY_BYTES) + "\n")
        out.flush()
        os.fsync(out.fileno())


def _parse(file: Path) -> bytes:
    try:
        key = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except (ValueError, OSError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SetupError(f"The database key {file} must be {2 * KEY_BYTES} hex digits and is not.")
    return key
