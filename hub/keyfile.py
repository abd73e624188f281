"""Where the hub's database key may lie; the file itself is crdt.store.keyfile's."""

from collections.abc import Mapping
from pathlib import Path

from crdt.store import keyfile
from hub.errors import SetupError


def read_key(file: Path, environment: Mapping[str, str]) -> bytes:
    """The key; the credential `farebox-ledger-key` wins over the file.

    SetupError when there is none, KeyUnusable when it is damaged or open to others.
    """
    key = keyfile.find_key(file, environment)
    if key is None:
        raise SetupError(
            f"The database key {file} is missing. Without it the ledger cannot be opened: "
            "restore it from its backup, or run `farebox-hub init` for a new hub."
        )
    return key


def create_key(file: Path, state_directory: Path) -> None:
    """Make a key file, see crdt.store.keyfile. SetupError if it would lie with the data."""
    if file.resolve().is_relative_to(state_directory.resolve()):
        raise SetupError(
            f"The key file {file} would lie inside the state directory {state_directory}, so that a copied "
            "directory would open itself. Choose another place for store.key_file."
        )
    keyfile.create_key(file)
