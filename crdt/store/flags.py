"""Authors of whom an operator should know something, once for each thing: forked, exceeded, wrote revoked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from crdt.store.admission import Suspicion
from crdt.store.hub_schema import FLAG
from crdt.store.sql import Bulk
from crdt.store.statement import Statement

FlagKey = tuple[ReplicaId, RefusalCode]

MAX_SENTENCE_CHARS: Final = 255

_INSERT: Final = Bulk(FLAG)
_KEYS: Final = Statement(select(FLAG.c.replica, FLAG.c.code))


@dataclass(frozen=True, slots=True)
class Flag:
    """What an author did, the first time it was seen."""

    replica: ReplicaId
    code: RefusalCode  # FORK_DETECTED, NOT_PERMITTED, REVOKED (it wrote after that) or RESTORED (by a copy)
    at_ms: int  # by the hub's clock
    seq: int  # of the first fact that it is about
    sentence: str


def put(connection: Connection, suspicions: Iterable[Suspicion], at_ms: int) -> set[FlagKey]:
    """Flag these authors; returns the new flags. One author has at most one flag a code."""
    given: dict[tuple[bytes, int], Suspicion] = {}
    for one in suspicions:
        given.setdefault((one.replica, int(one.code)), one)
    if not given:
        return set()
    query = select(FLAG.c.replica, FLAG.c.code).where(FLAG.c.replica.in_({key[0] for key in given}))
    known = {(replica, code) for replica, code in connection.execute(query)}
    new = {key: one for key, one in given.items() if key not in known}
    rows = [(*key, at_ms, one.seq, one.sentence[:MAX_SENTENCE_CHARS]) for key, one in new.items()]
    _INSERT.run(connection, rows)
    return {(one.replica, one.code) for one in new.values()}


def keys(connection: Connection) -> frozenset[FlagKey]:
    """Which flags there are."""
    return frozenset((ReplicaId(replica), RefusalCode(code)) for replica, code in _KEYS.rows(connection))


def read(connection: Connection) -> list[Flag]:
    """All flags, the newest first."""
    query = select(FLAG).order_by(FLAG.c.at_ms.desc(), FLAG.c.replica, FLAG.c.code)
    return [
        Flag(ReplicaId(replica), RefusalCode(code), at_ms, seq, sentence)
        for replica, code, at_ms, seq, sentence in connection.execute(query)
    ]


def dismiss(connection: Connection, replica: ReplicaId, code: RefusalCode) -> bool:
    """Take a flag off, because somebody has seen to it; whether there was one. It comes back if it recurs."""
    here = (FLAG.c.replica == replica) & (FLAG.c.code == int(code))
    return bool(connection.execute(FLAG.delete().where(here)).rowcount)
