"""How a terminal's ledger begins on a database: for the first time, after a restart, as a new identity."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, insert, select, update

from crdt.certificate import AuthorCertificate
from crdt.errors import ForeignFleet, MisuseError
from crdt.facts import ReplicaId
from crdt.store import blocks
from crdt.store.concession import renumber
from crdt.store.marks import Marks
from crdt.store.schema import IDENTITY, OPEN_DELTA, TERMINAL
from crdt.store.settled import Standing


def was_put_back(connection: Connection, marks: Marks) -> bool:
    """Whether this database is an older copy of the one that was here last."""
    row = connection.execute(select(TERMINAL.c.nonce, TERMINAL.c.replica)).one_or_none()
    if row is None:
        return marks.check_start(None, {}, ())
    return marks.check_start(row.nonce, blocks.heads_of(connection), [ReplicaId(row.replica)])


def begin(
    connection: Connection, certificate: AuthorCertificate, nonce: bytes | None, restored: bool
) -> None:
    """Make this author the one who writes here. `nonce`: of the marks; `restored`: what they told.

    Raises ForeignFleet, MisuseError or NotPermitted; see TerminalLedger.
    """
    columns = (TERMINAL.c.fleet, TERMINAL.c.replica, TERMINAL.c.suspended)
    row = connection.execute(select(*columns)).one_or_none()
    if row is None:
        _first(connection, certificate, restored)
    elif row.fleet != certificate.fleet:
        raise ForeignFleet("this ledger belongs to another fleet; give the terminal a new ledger file")
    elif row.replica != certificate.replica:
        _take_over(connection, certificate, bool(row.suspended) or restored)
    elif restored:
        connection.execute(update(TERMINAL).values(suspended=1))
    if nonce is not None:
        connection.execute(update(TERMINAL).values(nonce=nonce))
    if connection.execute(select(IDENTITY).where(IDENTITY.c.replica == certificate.replica)).first() is None:
        connection.execute(insert(IDENTITY).values(replica=certificate.replica))
    if blocks.enrol(connection, [certificate])[1]:
        raise MisuseError("this key has another certificate in this ledger already")


def _first(connection: Connection, certificate: AuthorCertificate, restored: bool) -> None:
    who = {"fleet": certificate.fleet, "replica": certificate.replica, "suspended": int(restored)}
    connection.execute(insert(TERMINAL).values(**who, **asdict(Standing())))


def _take_over(connection: Connection, certificate: AuthorCertificate, suspended: bool) -> None:
    """What a suspended identity could not seal any more becomes the new one's."""
    if suspended:
        renumber(connection, certificate)
    elif connection.execute(select(OPEN_DELTA.c.seq).limit(1)).first() is not None:
        raise MisuseError("seal the open taps with the old key before a new one takes the ledger over")
    connection.execute(update(TERMINAL).values(replica=certificate.replica, suspended=0))
