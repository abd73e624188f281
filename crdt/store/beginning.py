"""How a terminal's ledger begins on a database: for the first time, after a restart, as a new identity."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from crdt.certificate import AuthorCertificate
from crdt.errors import ForeignFleet, MisuseError, StoreFailed
from crdt.facts import ReplicaId
from crdt.store import blocks
from crdt.store.authors import Authors
from crdt.store.local import LocalStore
from crdt.store.marks import Marks
from crdt.store.memory import Memory
from crdt.store.reissue import renumber
from crdt.store.settled import STANDING_COLUMNS, Standing
from crdt.store.sql import Bulk
from crdt.store.statement import Statement
from crdt.store.terminal_schema import IDENTITY, OPEN_DELTA, TERMINAL, TERMINAL_METADATA

_BEFORE: Final = Statement(select(TERMINAL.c.nonce, TERMINAL.c.replica))
_WHO: Final = Statement(select(TERMINAL.c.fleet, TERMINAL.c.replica, TERMINAL.c.suspended))
_BEGIN: Final = Bulk(TERMINAL, ("fleet", "replica", "suspended", *STANDING_COLUMNS))
_KEEP_IDENTITY: Final = Bulk(IDENTITY, ("replica",))
_KEEP_NONCE: Final = Statement(update(TERMINAL).values(nonce=bindparam("nonce")))
_KNOWN: Final = Statement(select(IDENTITY.c.replica).where(IDENTITY.c.replica == bindparam("replica")))


def start(
    database: LocalStore,
    fleet_public_key: bytes,
    certificate: AuthorCertificate,
    marks: Marks | None,
    secrets: Mapping[str, bytes],
) -> tuple[Memory, Authors]:
    """Make this author the one who writes here; what the database holds, and whose blocks it knows.

    Raises ForeignFleet, MisuseError, NotPermitted or StoreFailed; see TerminalLedger.
    """
    database.create(TERMINAL_METADATA)
    restored = False
    if marks is not None:
        restored = database.read_and_wait(lambda connection: was_put_back(connection, marks))
        marks.save()
    nonce = None if marks is None else marks.nonce

    def load(connection: Connection) -> tuple[Memory, Authors]:
        begin(connection, certificate, nonce, restored)
        for name, value in secrets.items():
            database.secrets.put(connection, name, value)
        memory = Memory.load(connection, certificate.replica)
        authors = Authors(fleet_public_key, blocks.authors_of(connection).values())
        database.own(memory)  # last: where anything above raises, the ledger before goes on
        return memory, authors

    loaded = database.write_and_wait(load)
    if marks is not None:
        with suppress(StoreFailed):  # what `save` wrote will do; only a copy of just before goes unnoticed
            marks.started()
    return loaded


def was_put_back(connection: Connection, marks: Marks) -> bool:
    """Whether this database is an older copy of the one that was here last."""
    row = _BEFORE.row(connection)
    if row is None:
        return marks.check_start(None, {}, ())
    nonce, replica = row
    return marks.check_start(nonce, blocks.heads_of(connection), [ReplicaId(replica)])


def begin(
    connection: Connection, certificate: AuthorCertificate, nonce: bytes | None, restored: bool
) -> None:
    """Make this author the one who writes here. `nonce`: of the marks; `restored`: what they told.

    Raises ForeignFleet, MisuseError or NotPermitted; see TerminalLedger.
    """
    fleet, replica, suspended = _WHO.row(connection) or (None, None, 0)
    if fleet is None:
        _first(connection, certificate, restored)
    elif fleet != certificate.fleet:
        raise ForeignFleet("this ledger belongs to another fleet; give the terminal a new ledger file")
    elif replica != certificate.replica:
        _take_over(connection, certificate, bool(suspended) or restored)
    elif restored:
        connection.execute(update(TERMINAL).values(suspended=1))
    if nonce is not None:
        _KEEP_NONCE.run(connection, nonce=nonce)
    if _KNOWN.row(connection, replica=certificate.replica) is None:
        _KEEP_IDENTITY.run(connection, [(certificate.replica,)])
    if blocks.enrol(connection, [certificate])[1]:
        raise MisuseError("this key has another certificate in this ledger already")


def _first(connection: Connection, certificate: AuthorCertificate, restored: bool) -> None:
    row = (certificate.fleet, certificate.replica, int(restored), *astuple(Standing()))
    _BEGIN.run(connection, [row])


def _take_over(connection: Connection, certificate: AuthorCertificate, suspended: bool) -> None:
    """What a suspended identity could not seal any more becomes the new one's."""
    if suspended:
        renumber(connection, certificate)
    elif connection.execute(select(OPEN_DELTA.c.seq).limit(1)).first() is not None:
        raise MisuseError("seal the open taps with the old key before a new one takes the ledger over")
    connection.execute(update(TERMINAL).values(replica=certificate.replica, suspended=0))
