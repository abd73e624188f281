"""The heads of settlement pages on a terminal: staged in runs as they come; of a replica the last run counts.

They are installed as rows are, see `settled`: few of them where they show, many as a generation of their
own, which begins as a copy of the one that shows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select

from crdt.facts import ReplicaId
from crdt.frontier import Frontier, Head
from crdt.settlement import GONE
from crdt.store.connection import driver_connection
from crdt.store.schema import HEAD
from crdt.store.sql import Lookup
from crdt.store.statement import Statement
from crdt.store.terminal_schema import SETTLED_HEAD, STAGED_HEAD, inserting

_STAGE: Final = inserting(STAGED_HEAD)
_PUT: Final = inserting(SETTLED_HEAD, or_replace=True)
_DROP: Final = "DELETE FROM settled_head WHERE generation = ? AND replica = ?"
_COPY: Final = (
    "INSERT OR REPLACE INTO settled_head (generation, replica, seq, hash) "
    "SELECT ?, replica, seq, hash FROM settled_head "
    "WHERE generation = ? AND replica > ? AND replica <= ? ORDER BY replica"
)
_COLUMNS: Final = (STAGED_HEAD.c.run, STAGED_HEAD.c.replica, STAGED_HEAD.c.seq, STAGED_HEAD.c.hash)
_SINCE: Final = STAGED_HEAD.c.run >= bindparam("since")
_ALL: Final = Statement(select(*_COLUMNS).where(_SINCE).order_by(STAGED_HEAD.c.run))
_COUNT: Final = Statement(select(func.count()).select_from(STAGED_HEAD).where(_SINCE))
_HELD: Final = Statement(
    select(*_COLUMNS)
    .join(HEAD, HEAD.c.replica == STAGED_HEAD.c.replica)
    .where(_SINCE)
    .order_by(STAGED_HEAD.c.run)
)
_LAST_RUN: Final = Statement(select(func.max(STAGED_HEAD.c.run)))
_RUN: Final = Statement(select(*_COLUMNS).where(STAGED_HEAD.c.run == bindparam("run")))
_NEXT_RUN: Final = Statement(select(func.min(STAGED_HEAD.c.run)).where(_SINCE))
_OF: Final = Lookup(STAGED_HEAD, "replica", [column.name for column in _COLUMNS])
_END: Final = (
    "SELECT max(replica) FROM (SELECT replica FROM settled_head "
    "WHERE generation = ? AND replica > ? ORDER BY replica LIMIT ?)"
)


def stage_heads(connection: Connection, run: int, heads: Frontier) -> None:
    """Add heads to a run."""
    if heads:
        rows = [(run, replica, head.seq, head.hash) for replica, head in sorted(heads.items())]
        driver_connection(connection).executemany(_STAGE, rows)


def last_head_run(connection: Connection) -> int:
    """The highest number of a run that has heads; 0 where none has."""
    last: int | None = _LAST_RUN.value(connection)
    return last or 0


def count_staged_heads(connection: Connection, since: int) -> int:
    """How many heads are staged from this run on."""
    return int(_COUNT.value(connection, since=since))


def staged_heads(connection: Connection, since: int) -> dict[ReplicaId, Head]:
    """All heads staged from this run on."""
    return _heads(_ALL.rows(connection, since=since))


def staged_heads_held(connection: Connection, since: int) -> dict[ReplicaId, Head]:
    """Those of them that are of chains which this ledger holds."""
    return _heads(_HELD.rows(connection, since=since))


def staged_heads_of(
    connection: Connection, since: int, replicas: Collection[ReplicaId]
) -> dict[ReplicaId, Head]:
    """Those of them that are of these replicas."""
    return _heads(sorted(row for row in _OF.run(connection, replicas) if row[0] >= since))


def next_head_run(connection: Connection, since: int) -> tuple[int, dict[ReplicaId, Head]] | None:
    """The first run from this one on that has heads, and these; None where there is none."""
    run: int | None = _NEXT_RUN.value(connection, since=since)
    return None if run is None else (run, _heads(_RUN.rows(connection, run=run)))


def put_settled_heads(connection: Connection, generation: int, heads: Frontier) -> None:
    """Write heads into a generation; those of which nothing is left go."""
    rows = [(generation, replica, head.seq, head.hash) for replica, head in heads.items() if head != GONE]
    gone = [(generation, replica) for replica, head in heads.items() if head == GONE]
    driver = driver_connection(connection)
    driver.executemany(_PUT, rows)
    driver.executemany(_DROP, gone)


def copy_some_heads(
    connection: Connection, generation: int, into: int, after: bytes, count: int
) -> bytes | None:
    """Copy the next `count` heads after a replica into another generation; the last one, None for none."""
    driver = driver_connection(connection)
    until: bytes | None = driver.execute(_END, (generation, after, count)).fetchone()[0]
    if until is not None:
        driver.execute(_COPY, (into, generation, after, until))
    return until


def _heads(rows: Collection[tuple[Any, ...]]) -> dict[ReplicaId, Head]:
    """The heads in rows by run: of each replica the last one."""
    found: Mapping[bytes, tuple[Any, ...]] = {row[1]: row for row in rows}
    return {ReplicaId(replica): Head(row[2], row[3]) for replica, row in found.items()}
