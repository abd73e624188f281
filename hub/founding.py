"""Founding a fleet (`farebox-hub init`), and opening what was founded.

Everything secret is made here, once: the database's key, the fleet's keys, the operator's password hash.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from sqlalchemy import select

from crdt.documents import FLEET_DOCUMENT, FleetDocument, SignedDocument
from crdt.errors import LedgerBusy
from crdt.revocations import REVOKED_DOCUMENT
from crdt.store.database import Database
from crdt.store.hub import HubLedger, wall_clock_ms
from crdt.store.lock import ProcessLock
from crdt.store.marks import Marks
from crdt.store.server import ServerDatabase
from crdt.store.store import Store
from hub import published, restoring, tables
from hub import settings as hub_settings
from hub.authority import Authority, Secrets, new_secrets
from hub.errors import SetupError
from hub.keyfile import create_key, read_key
from hub.ledger_place import ledger_place
from hub.operators import OPERATOR, check_new_password, set_password
from hub.places import Places
from hub.settings import HubSettings

READERS = 3  # verifying merges, adding up the books and answering pages do not wait for one another
ROOT_FILE = "fleet-root.pem"
SECRET_PREFIX = "hub."  # noqa: S105  (of the names in the secret table)


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
        if settings.store_url or not settings.database.exists():
            create_key(settings.key_file, settings.state_directory)
    except OSError as error:
        raise SetupError(
            f"{error.filename} cannot be made: {error.strerror}. Run as root, or choose other places."
        ) from error
    with open_store(settings, environment) as database:
        database.create(tables.metadata)
        if is_founded(database):
            raise SetupError(
                f"There is a fleet in {ledger_place(settings)} already; nothing was changed. "
                "Start it with `farebox-hub run`. For another fleet choose another "
                "state_directory or store.url."
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
def opened(settings: HubSettings, environment: Mapping[str, str]) -> Iterator[tuple[Store, Secrets]]:
    """The founded database, open; HubError or StoreError with a sentence when it is not.

    One process at a time has it with these settings. LedgerBusy when another one does.
    """
    if not settings.store_url and not _is_there(settings.database):
        raise _not_founded(settings)
    # The marks are let go of after the database: its last writes still count this process's row up.
    with ExitStack() as held, open_store(settings, environment) as database:
        database.create(tables.metadata)
        secrets = load_secrets(database)
        if secrets is None or not is_founded(database):
            raise _not_founded(settings)
        if settings.store_url:  # a file has a lock of its own
            held.callback(_lock_marks(settings).release)
        yield database, secrets


def _is_there(database: Path) -> bool:
    try:
        return database.exists()
    except OSError as error:
        raise SetupError(
            f"The ledger {database} cannot be reached: {error.strerror}. Run the hub as the user who made it "
            "or as root; as a service: sudo systemctl start farebox-hub."
        ) from error


def open_store(settings: HubSettings, environment: Mapping[str, str]) -> Store:
    """The database where the settings say, open, founded or not. Raises SetupError, StoreError."""
    key = read_key(settings.key_file, environment)
    if settings.store_url:
        return ServerDatabase.open(settings.store_url, key, readers=READERS)
    return Database.open(settings.database, key, readers=READERS)


@contextmanager
def open_ledger(
    settings: HubSettings, database: Store, secrets: Secrets
) -> Iterator[tuple[Authority, HubLedger]]:
    """The hub's ledger with its documents in it, and who signs; waits for the disk, at the end too.

    A hub that was put back from a backup gets a new key here, before it can book anything.
    """
    authority = Authority(secrets)
    ledger = _ledger(settings, database, authority)
    try:
        if ledger.restored:
            put_key = partial(_put_ledger_key, database, secrets.ledger_key)
            seed = restoring.take_new_key(database, ledger.replica, put_key, wall_clock_ms())
            ledger.close()
            authority = Authority(replace(secrets, ledger_key=seed))
            ledger = _ledger(settings, database, authority)
        _sign_documents(database, ledger, authority)
        _follow_fares(database, ledger)
        yield authority, ledger
    finally:
        ledger.close()


def _lock_marks(settings: HubSettings) -> ProcessLock:
    """Else a second process would begin in the place of the first, to whom the server would seem put back."""
    try:
        return ProcessLock.take(settings.marks_file)
    except LedgerBusy as error:
        raise LedgerBusy(
            f"A hub process with the marks {settings.marks_file} runs already; it goes on unharmed, and this "
            "one was not started. Stop that one first, or give this one settings with a state directory of "
            "its own (state_directory, and store.marks_file where that is set): each process on a database "
            "server needs one."
        ) from error


def _ledger(settings: HubSettings, database: Store, authority: Authority) -> HubLedger:
    return HubLedger(
        database,
        authority.fleet_key.public_key,
        authority.ledger_key,
        authority.hub_certificate,
        marks=Marks.open(settings.marks_file),
        sharing=True,
    )


def _put_ledger_key(database: Store, former: bytes, seed: bytes) -> bytes:
    """Several processes of a hub may find its database put back at once: they go on with the same key."""
    return database.swap_secret(SECRET_PREFIX + "ledger_key", former, seed)


def _sign_documents(database: Store, ledger: HubLedger, authority: Authority) -> None:
    """See to it that the hub's documents are there and by its present key, which every terminal is told of.

    Fares go on from the floor, for they are what the dashboard shows. The list of revocations gets the least
    that is newer: a terminal with a later one, which this hub has lost, had better keep it.
    """
    fares = ledger.document(FLEET_DOCUMENT).result()
    floor = database.read_and_wait(restoring.version_floor)
    if fares is None:
        _seal(ledger, authority, FLEET_DOCUMENT, 1, FleetDocument.new().body)
    elif fares.signer != ledger.replica:
        _seal(ledger, authority, FLEET_DOCUMENT, max(fares.version + 1, floor), fares.body)
    revoked = ledger.document(REVOKED_DOCUMENT).result()
    if revoked is not None and revoked.signer != ledger.replica:
        _seal(ledger, authority, REVOKED_DOCUMENT, revoked.version + 1, revoked.body)


def _follow_fares(database: Store, ledger: HubLedger) -> None:
    """Which cards owe more than the rules let them depends on the fares, and what terminals may let them."""
    fares = ledger.document(FLEET_DOCUMENT).result()
    if fares is not None:
        settings = FleetDocument.load(fares.body).settings
        ledger.set_floor(settings.floor_minor).result()
        database.write(lambda connection: published.note(connection, fares.version, settings)).result()


def _seal(ledger: HubLedger, authority: Authority, name: str, version: int, body: bytes) -> None:
    document = SignedDocument.seal(authority.ledger_key, authority.fleet, name, version, body)
    ledger.put_document(document).result()


def is_founded(database: Store) -> bool:
    """Whether `init` came to its end: the operator's password is its last step."""
    query = select(tables.operator.c.name).where(tables.operator.c.name == OPERATOR)
    return database.read(lambda connection: connection.execute(query).first()).result() is not None


def load_secrets(database: Store) -> Secrets | None:
    """The private keys; None when not all are there."""
    names = [field.name for field in fields(Secrets)]
    found_values = {name: database.get_secret(SECRET_PREFIX + name) for name in names}
    values = {name: value for name, value in found_values.items() if value is not None}
    return Secrets(**values) if len(values) == len(names) else None


def store_secrets(database: Store, secrets: Secrets) -> None:
    """Keep the private keys; durable on return."""
    for field in fields(Secrets):
        database.put_secret(SECRET_PREFIX + field.name, getattr(secrets, field.name))


def _not_founded(settings: HubSettings) -> SetupError:
    return SetupError(
        f"There is no fleet in {ledger_place(settings)} yet. "
        "Run `farebox-hub init` with these settings first."
    )


def _quoted(path: Path) -> str:
    return '"' + os.fspath(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
