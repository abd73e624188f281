"""How a terminal's ledger begins on a database: for the first time, after a restart, as a new identity."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from crdt.certificate import AuthorCertificate
from crdt.errors import ForeignFleet, MisuseError, StoreFailed
from crdt.facts import ReplicaId
from crdt.store import blocks, papers, segment
from crdt.store.authors import Authors
from crdt.store.identities import kept_of_former
from crdt.store.local import LocalStore
from crdt.store.marks import Marks
from crdt.store.memory import Memory
from crdt.store.reissue import check_permitted
from crdt.store.settled import STANDING_COLUMNS, Standing
from crdt.store.sql import Bulk
from crdt.store.statement import Statement
from crdt.store.terminal_schema import IDENTITY, NO_PLACE, TERMINAL, TERMINAL_METADATA

_BEFORE: Final = Statement(select(TERMINAL.c.nonce, TERMINAL.c.replica))
_WHO: Final = Statement(select(TERMINAL.c.fleet, TERMINAL.c.replica, TERMINAL.c.suspended))
_BEGIN: Final = Bulk(TERMINAL, ("fleet", "replica", "suspended", "again_from", *STANDING_COLUMNS))
_KEEP_IDENTITY: Final = Bulk(IDENTITY, ("replica",))
_KEEP_NONCE: Final = Statement(update(TERMINAL).values(nonce=bindparam("nonce")))
_KNOWN: Final = Statement(select(IDENTITY.c.replica).where(IDENTITY.c.replica == bindparam("replica")))


class _Loaded(NamedTuple):
    """What a ledger begins with."""

    memory: Memory
    authors: Authors
    former: Memory | None  # that of the identity it takes over from, which is up to date after the commit

    def complete(self) -> None:
        """Succeed the former: to read a month of taps would hold up the next one."""
        if self.former is not None:
            self.memory.succeed(self.former)


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

    def load(connection: Connection) -> _Loaded:
        begins = begin(connection, certificate, nonce, restored)
        for name, value in secrets.items():
            database.secrets.put(connection, name, value)
        former = database.owner()
        if begins or not isinstance(former, Memory) or former.held.left_out:  # it counts from now on
            former, memory = None, Memory.load(connection, certificate.replica)
        else:
            memory = Memory.begin_succession(connection, certificate.replica)
        authors = Authors(fleet_public_key, blocks.authors_of(connection).values())
        database.own(memory)  # last: where anything above raises, the ledger before goes on
        return _Loaded(memory, authors, former)

    loaded = database.write_and_wait(load, after=_Loaded.complete)
    if marks is not None:
        with suppress(StoreFailed):  # what `save` wrote will do; only a copy of just before goes unnoticed
            marks.started()
    return loaded.memory, loaded.authors


def was_put_back(connection: Connection, marks: Marks) -> bool:
    """Whether this database is an older copy of the one that was here last."""
    row = _BEFORE.row(connection)
    if row is None:
        return marks.check_start(None, {}, ())
    nonce, replica = row
    return marks.check_start(nonce, blocks.heads_of(connection), [ReplicaId(replica)])


def begin(
    connection: Connection, certificate: AuthorCertificate, nonce: bytes | None, restored: bool
) -> bool:
    """Make this author the one who writes here; False where it takes over from another one, True else.

    `nonce`: of the marks; `restored`: what they told.
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
    return replica in (None, certificate.replica)


def _first(connection: Connection, certificate: AuthorCertificate, restored: bool) -> None:
    row = (certificate.fleet, certificate.replica, int(restored), NO_PLACE, *astuple(Standing()))
    _BEGIN.run(connection, [row])


def _take_over(connection: Connection, certificate: AuthorCertificate, suspended: bool) -> None:
    """What a suspended identity could not seal any more becomes the new one's.

    It is suspended as well where it has ended, or where blocks of it are here: another copy of this storage
    has taken it up before, and may have sealed more. So it is where one before it has ended, and left what
    has to be written again.
    """
    if suspended:
        check_permitted(connection, certificate)
    elif not segment.is_empty(connection):
        raise MisuseError("seal the open taps with the old key before a new one takes the ledger over")
    replica = certificate.replica
    listed = papers.revocations(connection)
    used = replica in blocks.heads_of(connection, [replica])
    compares = replica in listed.cut_offs or used or bool(kept_of_former(connection, listed, replica))
    connection.execute(update(TERMINAL).values(replica=replica, suspended=int(compares)))
