"""The registry of terminals: who is paired, with which TLS certificate, when last heard of, revoked or not.

A certificate is good while the registry says so. It is asked on every request, because TLS looks at a
certificate only when a connection is made.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, bindparam, case, select, update

from crdt.facts import ReplicaId, TerminalId
from crdt.store.editions import Installed
from crdt.store.statement import Statement
from crdt.store.store import Store
from hub import tables
from hub.errors import RequestRefused
from hub.remembered import Remembered
from hub.sightings import LATE_MS, Sighting, Sightings

REVOKED = "revoked"
REPLACED = "replaced"
MAX_TERMINALS = 20_000


@dataclass(frozen=True, slots=True)
class Client:
    """Who is behind a TLS certificate. `stopped`: "" if it may go on, else "revoked" or "replaced"."""

    terminal: TerminalId
    replica: ReplicaId
    name: str
    stopped: str


@dataclass(frozen=True, slots=True)
class Terminal:
    """One row of the registry; see `hub.tables.terminal`."""

    terminal: TerminalId
    name: str
    replica: ReplicaId
    paired_ms: int
    revoked_ms: int | None
    recalled: bool  # by a list that the hub had lost: `revoked_ms` is when that came back
    seen_ms: int | None
    address: str
    restored_ms: int | None  # when its storage was found to be older than what it had sealed
    renewed_ms: int | None  # when it took its last new identity without being paired
    settled_ms: int | None  # of when the settlement is that it has installed
    settled_fact: int  # the last fact of the history that was in it
    status: dict[str, Any]

    def disproved(self, sound_ms: int | None) -> bool:
        """Whether a storage that was sound then shows that its being an old copy was a mistake.

        What a new identity has mended stays told; a request may also reach the hub after a later one.
        """
        if sound_ms is None or self.restored_ms is None or sound_ms < self.restored_ms:
            return False
        return self.renewed_ms is None or self.renewed_ms < self.restored_ms


_ROW: Final = [tables.terminal.c[field.name] for field in fields(Terminal)]
_EVERY: Final = select(*_ROW).order_by(tables.terminal.c.name)
_TERMINALS: Final = Statement(_EVERY)
_TERMINAL: Final = Statement(_EVERY.where(tables.terminal.c.terminal == bindparam("terminal")))
_ONCE_PUT_BACK: Final = Statement(_EVERY.where(tables.terminal.c.restored_ms.is_not(None)))
_SEEN: Final = Statement(
    select(tables.terminal.c.terminal, tables.terminal.c.seen_ms).where(
        tables.terminal.c.revoked_ms.is_(None)
    )
)


class Identities(NamedTuple):
    """A terminal's name, and the replicas that it was, the oldest first."""

    name: str
    replicas: list[ReplicaId]


class Registry:
    """The terminals in the database. The coroutines never block the event loop."""

    def __init__(self, database: Store) -> None:
        self._database = database
        self.sightings = Sightings(database)
        self.turned_away: dict[TerminalId, int] = {}
        """When somebody last came with a certificate of a terminal that a newer one has replaced, in ms;
        since this process began."""
        self._clients: Remembered[str, Client] = Remembered(database)

    async def client(self, serial: str) -> Client | None:
        """Who has the TLS certificate with this serial number (hex); None if it was never issued here.

        The first use of a newer certificate stops the terminal's older ones: not its issue, so that a
        terminal whose pairing broke off at the last moment still has the old one.
        """
        known = self._clients.get(serial)
        if known is not None:
            return known
        keep = self._clients.asking(serial)
        row = await asyncio.wrap_future(self._database.read(lambda connection: _client(connection, serial)))
        if row is None:
            self._clients.forget([serial])
            return None
        client = Client(TerminalId(row.terminal), ReplicaId(row.replica), row.name, row.stopped)
        if row.used or row.stopped:
            return keep(client)
        first = self._database.write(lambda sql: _first_use(sql, row), after=self._clients.forget)
        await asyncio.wrap_future(first)
        return keep(client)

    async def saw(
        self,
        terminal: TerminalId,
        now_ms: int,
        address: str,
        status: Mapping[str, Any] | None,
        *,
        restored: bool | None = None,
        installed: Installed | None = None,
    ) -> None:
        """Note that a terminal was heard of and, unless None, what it said of itself.

        `restored`: whether its storage is an old copy, None where that was no question; True is durable on
        return, everything else in a moment (`sightings.py`). `installed`: the settlement that it has, which
        is what it knows of everybody; what it is only given now may not arrive.
        """
        sound_ms = now_ms if restored is False else None
        settled_ms = None if installed is None else now_ms - int(installed.age_s * 1000)
        settled_fact = 0 if installed is None else installed.last_fact
        self.sightings.note(terminal, Sighting(now_ms, address, status, sound_ms, settled_ms, settled_fact))
        if restored:
            self.sightings.doubt(terminal)
            values = {"restored_ms": _found_restored(now_ms)}
            change = update(tables.terminal).where(tables.terminal.c.terminal == terminal).values(values)
            await asyncio.wrap_future(self._database.write(lambda sql: sql.execute(change) and None))

    async def terminals(self) -> list[Terminal]:
        """Every terminal, by name, as it was last heard of."""
        return await self._read(_TERMINALS)

    async def terminal(self, terminal: TerminalId) -> Terminal | None:
        """One of them; None where there is none such."""
        found = await self._read(_TERMINAL, terminal=terminal)
        return found[0] if found else None

    async def find(self, name_or_id: str) -> Terminal:
        """The one of this name, or with this id in hex. RequestRefused when there is none such."""
        unwritten = self.sightings.unwritten()
        found = await asyncio.wrap_future(self._database.read(lambda sql: find(sql, name_or_id)))
        return _with(found, unwritten.get(found.terminal))

    async def once_put_back(self) -> list[Terminal]:
        """Those whose storage was found to be an old copy since they were paired."""
        return await self._read(_ONCE_PUT_BACK)

    async def seen(self) -> list[int | None]:
        """When each terminal that is not revoked was last heard of, in ms; None: never."""
        unwritten = self.sightings.unwritten()

        def read(connection: Connection) -> list[int | None]:
            return [_seen_ms(at_ms, unwritten.get(terminal)) for terminal, at_ms in _SEEN.rows(connection)]

        return await asyncio.wrap_future(self._database.read(read))

    async def identities(self) -> list[Identities]:
        """Every terminal's name, and the replicas that it was, the oldest first."""
        certificates = tables.client_certificate
        query = select(tables.terminal.c.name, certificates.c.terminal, certificates.c.replica)
        query = query.join_from(
            certificates, tables.terminal, certificates.c.terminal == tables.terminal.c.terminal
        ).order_by(certificates.c.number)
        rows = await asyncio.wrap_future(
            self._database.read(lambda connection: connection.execute(query).all())
        )
        found: dict[bytes, Identities] = {}
        for name, terminal, replica in rows:
            replicas = found.setdefault(terminal, Identities(name, [])).replicas
            if replica not in replicas:
                replicas.append(ReplicaId(replica))
        return list(found.values())

    async def _read(self, statement: Statement, **values: object) -> list[Terminal]:
        unwritten = self.sightings.unwritten()

        def read(connection: Connection) -> list[Terminal]:
            found = _terminals(statement.rows(connection, **values))
            return [_with(terminal, unwritten.get(terminal.terminal)) for terminal in found]

        return await asyncio.wrap_future(self._database.read(read))

    def forget(self) -> None:
        """Somebody was stopped; said before anybody hears of it, so that memory lets nobody in."""
        self._clients.forget()


def find(connection: Connection, name_or_id: str) -> Terminal:
    """The terminal of this name, or with this id in hex. RequestRefused when there is none such."""
    for row in _TERMINALS.rows(connection):
        terminal, name = row[:2]
        if name_or_id in (name, terminal.hex()):
            return next(_terminals([row]))
    raise RequestRefused("no_terminal", f"There is no terminal {name_or_id[:80]!r}.", HTTPStatus.NOT_FOUND)


def stop(connection: Connection, terminal: TerminalId, now_ms: int) -> None:
    """Within a write, after which the registry has to `forget`: let in none of a terminal's certificates."""
    mine = tables.terminal.c.terminal == terminal
    connection.execute(tables.terminal.update().where(mine).values(revoked_ms=now_ms, recalled=False))
    certificates = tables.client_certificate
    theirs = certificates.c.terminal == terminal
    connection.execute(certificates.update().where(theirs).values(stopped=REVOKED))


def _found_restored(now_ms: int) -> ColumnElement[Any]:
    """When it was first found so, under its present identity."""
    table = tables.terminal
    since_last = table.c.restored_ms.is_(None) | (table.c.renewed_ms >= table.c.restored_ms)
    return case((since_last, now_ms), else_=table.c.restored_ms)


def _client(connection: Connection, serial: str) -> Row[Any] | None:
    certificates = tables.client_certificate
    query = select(certificates, tables.terminal.c.name).join_from(
        certificates, tables.terminal, certificates.c.terminal == tables.terminal.c.terminal
    )
    return connection.execute(query.where(certificates.c.serial == serial)).first()


def _first_use(connection: Connection, row: Row[Any]) -> list[str]:
    """Stop the terminal's older certificates; their serial numbers."""
    table = tables.client_certificate
    mine = table.c.serial == row.serial
    connection.execute(table.update().where(mine).values(used=True))
    older = (table.c.terminal == row.terminal) & (table.c.number < row.number)
    connection.execute(table.update().where(older, table.c.stopped == "").values(stopped=REPLACED))
    return list(connection.execute(select(table.c.serial).where(older)).scalars())


def _with(terminal: Terminal, sighting: Sighting | None) -> Terminal:
    """The terminal as it was last heard of."""
    if sighting is None or _is_late(sighting, terminal.seen_ms):
        return terminal
    seen = replace(terminal, seen_ms=sighting.seen_ms, address=sighting.address)
    if sighting.status is not None:
        seen = replace(seen, status=dict(sighting.status))
    if sighting.settled_ms is not None:
        seen = replace(seen, settled_ms=sighting.settled_ms, settled_fact=sighting.settled_fact)
    if terminal.disproved(sighting.sound_ms):
        seen = replace(seen, restored_ms=None)
    return seen


def _seen_ms(written_ms: int | None, sighting: Sighting | None) -> int | None:
    """When a terminal was heard of last, by what is written and what is not yet."""
    return written_ms if sighting is None or _is_late(sighting, written_ms) else sighting.seen_ms


def _is_late(sighting: Sighting, written_ms: int | None) -> bool:
    """Whether what is written was heard after it."""
    return 0 < (written_ms or 0) - sighting.seen_ms <= LATE_MS


def _terminals(rows: Sequence[Sequence[Any]]) -> Iterator[Terminal]:
    """From rows of `_TERMINALS`. What they say is read at once: of thousands, in a third of the time."""
    said = json.loads(f"[{','.join(row[-1] for row in rows)}]")
    return (Terminal(*[*row[:-1], status]) for row, status in zip(rows, said, strict=True))
