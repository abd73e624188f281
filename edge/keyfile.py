"""The ledger's key: 32 random bytes, as 64 hex digits in a file of its own, or as a systemd credential."""

import contextlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from edge.errors import KeyFileError

CREDENTIAL = "farebox-ledger-key"
KEY_BYTES = 32


def load_key(
    file: Path, ledger: Path, environment: Mapping[str, str], entropy: Callable[[int], bytes] = os.urandom
) -> bytes:
    """The key of `ledger`: the credential where systemd passes one, else `file`, made now for a first start.

    Raises KeyFileError. No key is made where a ledger is there already: it could not open it.
    """
    directory = environment.get("CREDENTIALS_DIRECTORY")
    credential = Path(directory) / CREDENTIAL if directory else None
    try:
        if credential is not None and credential.exists():
            return _parse(credential)
        if not file.exists():
            _check_first_start(file, ledger)
            _create(file, entropy(KEY_BYTES))
        _check_owner_only(file)
        return _parse(file)
    except OSError as error:
        raise KeyFileError(
            f"The ledger's key {error.filename} cannot be used ({error.strerror});"
            " store.key_file has to be a place that this user may read, and write at the first start."
        ) from error


def _parse(file: Path) -> bytes:
    with file.open("rb") as opened:
        raw = opened.read(4 * KEY_BYTES)
    try:
        key = bytes.fromhex(raw.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise KeyFileError(f"The ledger's key {file} must hold {2 * KEY_BYTES} hex digits and nothing else.")
    return key


def _check_first_start(file: Path, ledger: Path) -> None:
    if ledger.exists():
        raise KeyFileError(
            f"The ledger {ledger} is there, but its key {file} is missing."
            " Put the key file back; without it nobody can read the ledger."
        )


def _check_owner_only(file: Path) -> None:
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise KeyFileError(
            f"The ledger's key {file} is open to others (mode {mode:o}); run: chmod 600 {file}"
        )


def _create(file: Path, key: bytes) -> None:
    """Write beside and rename, so that a power cut leaves either no key or a whole one."""
    draft = file.with_name(f".{file.name}.new")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(f"{key.hex()}\n")
        out.flush()
        os.fsync(out.fileno())
    with contextlib.suppress(FileExistsError):  # another first start was faster: its key is the key
        os.link(draft, file)
    draft.unlink()
    _sync_directory(file.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
