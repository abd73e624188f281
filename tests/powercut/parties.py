"""Who takes part, and how the real programs' ledgers are opened: one place for workloads and checks.

A small log, small chunks and few rows make a short run reach what a month on a bus reaches.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final
from unittest import mock

from crdt.facts import CardId, Draft, Kind
from crdt.store import connection, database, installer, tidying
from crdt.store.connection import HUB_LAYOUT, Layout
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from crdt.store.keyfile import load_key
from crdt.store.marks import Marks
from crdt.store.terminal import TerminalLedger
from tests.crdt import world

LEDGER: Final = "ledger.db"
KEY_FILE: Final = "ledger.key"
MARKS: Final = "marks"
ME: Final = world.terminal(1)
OTHERS: Final = [world.terminal(number) for number in (2, 3)]
CARDS: Final = [CardId(b"\x04" + number.to_bytes(6, "big")) for number in range(12)]
OPENING_MINOR: Final = 500
FARE: Final = Draft(Kind.FARE, -250)

_CHECKPOINT_PAGES: Final = 14
_WAL_KEPT_BYTES: Final = 24 * 1024
_SMALL: Final = (
    (database, "CHECKPOINT_PAGES", _CHECKPOINT_PAGES),  # so the log is moved and begun anew all the time
    (connection, "WAL_KEPT_BYTES", _WAL_KEPT_BYTES),  # and cut back
    (installer, "SMALL_ROWS", 2),
    (installer, "CHUNK_ROWS", 3),
    (tidying, "CHUNK_ROWS", 3),
    (tidying, "SINK_ROWS", 2),
)


@contextlib.contextmanager
def small() -> Iterator[None]:
    """The store with small limits."""
    with contextlib.ExitStack() as stack:
        for module, name, value in _SMALL:
            stack.enter_context(mock.patch.object(module, name, value))
        yield


def key_of(directory: Path, chance: Random) -> bytes:
    """The ledger's key, made when there is neither key nor ledger."""
    return load_key(directory / KEY_FILE, directory / LEDGER, {}, chance.randbytes)


def open_database(directory: Path, key: bytes, layout: Layout, readers: int = 1) -> Database:
    """The database as the programs open it."""
    return Database.open(directory / LEDGER, key, layout=layout, readers=readers)


def open_terminal(opened: Database, directory: Path, chance: Random) -> TerminalLedger:
    """The terminal's ledger on its database, with the marks beside it."""
    marks = Marks.open(directory / MARKS, chance.randbytes)
    return TerminalLedger(opened, world.FLEET_KEY.public_key, ME.key, ME.certificate, marks)


@contextlib.contextmanager
def open_hub(directory: Path, key: bytes, chance: Random) -> Iterator[tuple[Database, HubLedger]]:
    """The hub's ledger, with its database and the marks beside it."""
    with open_database(directory, key, HUB_LAYOUT, readers=2) as opened:
        marks = Marks.open(directory / MARKS, chance.randbytes)
        whose = (world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB)
        ledger = HubLedger(opened, *whose, entropy=chance.randbytes, marks=marks)
        try:
            yield opened, ledger
        finally:
            ledger.close()
