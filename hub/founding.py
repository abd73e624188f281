"""Founding a fleet (`farebox-hub init`), and opening what was founded.

Everything secret is made here, once: the database's key, the fleet's keys, the operator's password hash.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from sqlalchemy import select

from crdt.documents import FLEET_DOCUMENT, FleetDocument, SignedDocument
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from hub import settings as hub_settings
from hub import tables
from hub.authority import Authority, Secrets, new_secrets
from hub.errors import SetupError
from hub.keyfile import create_key, read_key
from hub.operators import OPERATOR, check_new_password, set_password
from hub.settings import HubSettings

READERS = 3  # verifying merges, adding up the books and answering pages do not wait for one another
ROOT_FILE = "fleet-root.pem"
SECRET_PREFIX = "hub."  # noqa: S105  (of the names in the secret table)


@dataclass(frozen=True, slots=True)
class Places:
    """Where `init` puts what it makes."""

    settings: Path
    state_directory: Path
    key_file: Path


def default_places(user_id: int, home: Path) -> Places:
    """The system's places for root, the user's own otherwise."""
    if user_id == 0:
        defaults = HubSettings()
        return Places(Path("/etc/farebox/hub.toml"), defaults.state_directory, defaults.key_file)
    return Places(
        home / ".config/farebox/hub.toml",
        home / ".local/state/farebox-hub",
        home / ".config/farebox/hub.key",
    )


def write_settings(places: Places, port: int | None) -> HubSettings:
    """Make the settings file if there is none, with the two paths in it; the settings that count."""
    if not places.settings.exists():
        lines = [
            "# The hub's settings; hub/README.md lists all of them.",
            f"state_directory = {_quoted(places.state_directory.absolute())}",
            "",
            "[store]",
            f"key_file = {_quoted(places.key_file.absolute())}",
        ]
        if port is not None:
            lines += ["", "[server]", f"port = {port}"]
        try:
            places.settings.parent.mkdir(parents=True, exist_ok=True)
            places.settings.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except OSError as error:
            raise SetupError(
                f"The settings file {places.settings} cannot be written: {error.strerror}. "
                "Run as root, or name another place with --settings."
            ) from error
    return hub_settings.load(places.settings)


def found(settings: HubSettings, password: str, environment: Mapping[str, str]) -> Authority:
    """Make key, database, fleet keys and operator. SetupError when a fleet is there already.

    Each step is taken only where it is missing, so an `init` that was interrupted can be run again.
    """
    check_new_password(password)
    try:
        settings.state_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not settings.database.exists():
            create_key(settings.key_file, settings.state_directory)
    except OSError as error:
        raise SetupError(
            f"{error.filename} cannot be made: {error.strerror}. Run as root, or choose other places."
        ) from error
    with Database.open(settings.database, read_key(settings.key_file, environment)) as database:
        database.create(tables.metadata)
        if is_founded(database):
            raise SetupError(
                f"There is a fleet in {settings.state_directory} already; nothing was changed. "
                "Start it with `farebox-hub run`. For another fleet choose another state_directory."
            )
        secrets = load_secrets(database)
        if secrets is None:
            secrets = new_secrets()
            store_secrets(database, secrets)
        set_password(database, password)
        return Authority(secrets)


def write_root(places: Places, authority: Authority) -> Path:
    """Put the fleet's TLS root, which is public, beside the settings; the file. Raises SetupError."""
    file = places.settings.with_name(ROOT_FILE)
    try:
        file.write_text(authority.root_pem, encoding="ascii")
    except OSError as error:
        raise SetupError(
            f"The fleet is founded and `farebox-hub run` can serve it, but its TLS root {file}, for "
            f"browsers, cannot be written: {error.strerror}. Without it they warn before they show the hub."
        ) from error
    return file


@contextmanager
def opened(settings: HubSettings, environment: Mapping[str, str]) -> Iterator[tuple[Database, Secrets]]:
    """The founded database, open; HubError or StoreError with a sentence when it is not."""
    if not settings.database.exists():
        raise _not_founded(settings)
    key = read_key(settings.key_file, environment)
    with Database.open(settings.database, key, readers=READERS) as database:
        database.create(tables.metadata)
        secrets = load_secrets(database)
        if secrets is None or not is_founded(database):
            raise _not_founded(settings)
        yield database, secrets


def open_ledger(database: Database, authority: Authority) -> HubLedger:
    """The hub's ledger, with the fleet's settings document in it; waits for the disk."""
    ledger = HubLedger(
        database, authority.fleet_key.public_key, authority.ledger_key, authority.hub_certificate
    )
    if ledger.document(FLEET_DOCUMENT).result() is None:
        body = FleetDocument.new().body
        first = SignedDocument.seal(authority.ledger_key, authority.fleet, FLEET_DOCUMENT, 1, body)
        ledger.put_document(first).result()
    return ledger


def is_founded(database: Database) -> bool:
    """Whether `init` came to its end: the operator's password is its last step."""
    query = select(tables.operator.c.name).where(tables.operator.c.name == OPERATOR)
    return database.read(lambda connection: connection.execute(query).first()).result() is not None


def load_secrets(database: Database) -> Secrets | None:
    """The private keys; None when not all are there."""
    names = [field.name for field in fields(Secrets)]
    found_values = {name: database.get_secret(SECRET_PREFIX + name) for name in names}
    values = {name: value for name, value in found_values.items() if value is not None}
    return Secrets(**values) if len(values) == len(names) else None


def store_secrets(database: Database, secrets: Secrets) -> None:
    """Keep the private keys; durable on return."""
    for field in fields(Secrets):
        database.put_secret(SECRET_PREFIX + field.name, getattr(secrets, field.name))


def _not_founded(settings: HubSettings) -> SetupError:
    return SetupError(
        f"There is no fleet in {settings.state_directory} yet. "
        "Run `farebox-hub init` with these settings first."
    )


def _quoted(path: Path) -> str:
    return '"' + os.fspath(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
