"""The database's key: 32 random bytes, as 64 hex digits in a file of its own, or as a systemd credential."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from crdt.errors import KeyUnusable
from crdt.store.directory import sync_directory

CREDENTIAL: Final = "farebox-ledger-key"
KEY_BYTES: Final = 32


def load_key(
    file: Path, ledger: Path, environment: Mapping[str, str], entropy: Callable[[int], bytes] = os.urandom
) -> bytes:
    """The key of `ledger`, made now for a first start. Raises KeyUnusable.

    No key is made where a ledger is there already: it could not open it.
    """
    key = find_key(file, environment)
    if key is not None:
        return key
    if ledger.exists():
        raise KeyUnusable(
            f"The ledger {ledger} is there, but its key {file} is missing."
            " Put the key file back; without it nobody can read the ledger."
        )
    create_key(file, entropy)
    with _explained(file):
        return _read(file)


def find_key(file: Path, environment: Mapping[str, str]) -> bytes | None:
    """The key: the credential where systemd passes one, else the file's; None when neither is there.

    Raises KeyUnusable for a key that is damaged, or open to others than its owner.
    """
    directory = environment.get("CREDENTIALS_DIRECTORY")
    credential = Path(directory) / CREDENTIAL if directory else None
    with _explained(file):
        if credential is not None and credential.exists():
            return _parse(credential)
        return _read(file) if file.exists() else None


def create_key(file: Path, entropy: Callable[[int], bytes] = os.urandom) -> None:
    """Make a key file, mode 0600, durable on return; one that is there stays. Raises KeyUnusable.

    Written beside and linked, so that a power cut leaves either no key or a whole one.
    """
    with _explained(file):
        directory = file.parent
        made = [each for each in (directory, *directory.parents) if not each.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        draft = _draft(file, entropy(KEY_BYTES))
        try:
            with contextlib.suppress(FileExistsError):  # the key that is there is the key
                os.link(draft, file)
        finally:
            draft.unlink()
        for changed in (directory, *(each.parent for each in made)):
            sync_directory(changed)


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise KeyUnusable(
            f"The ledger's key {err.filename or file} cannot be used ({err.strerror});"
            " store.key_file has to be a place that this user may read, and write at the first start."
        ) from err


def _read(file: Path) -> bytes:
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise KeyUnusable(f"The ledger's key {file} is open to others (mode {mode:o}); run: chmod 600 {file}")
    return _parse(file)


def _parse(file: Path) -> bytes:
    with file.open("rb") as opened:
        raw = opened.read(4 * KEY_BYTES)
    try:
        key = bytes.fromhex(raw.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise KeyUnusable(f"The ledger's key {file} must hold {2 * KEY_BYTES} hex digits and nothing else.")
    return key


def _draft(file: Path, key: bytes) -> Path:
    """A whole key, on the disk, under a name that no other process uses."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # mode 0600
    with os.fdopen(descriptor, "w", encoding="ascii") as out:
        out.write(f"{key.hex()}\n")
        out.flush()
        os.fsync(out.fileno())
    return Path(name)
