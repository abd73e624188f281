"""The registry of terminals: who is paired, with which TLS certificate, when last heard of, revoked or not.

A certificate is good while the registry says so. It is asked on every request, because TLS looks at a
certificate only when a connection is made.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, select, update

from crdt.errors import Revoked
from crdt.facts import ID_BYTES, ReplicaId, TerminalId
from crdt.store.store import Store
from hub import tables
from hub.authority import ClientCertificate
from hub.errors import RequestRefused
from hub.remembered import Remembered
from hub.sightings import Sighting, Sightings

T = TypeVar("T")

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
    seen_ms: int | None
    address: str
    status: dict[str, Any]
    restored_ms: int | None  # when its storage was found to be older than what it had sealed
    renewed_ms: int | None  # when it took its last new identity without being paired
    settled_ms: int | None  # when it was last given the settlement to its end
    settled_fact: int  # the last fact of the history that was in it

    def disproved(self, sound_ms: int | None) -> bool:
        """Whether a storage that was sound then shows that its being an old copy was a mistake.

        What a new identity has mended stays told; a request may also reach the hub after a later one.
        """
        if sound_ms is None or self.restored_ms is None or sound_ms < self.restored_ms:
            return False
        return self.renewed_ms is None or self.renewed_ms < self.restored_ms


class Identities(NamedTuple):
    """A terminal's name, and the replicas that it was, the oldest first."""

    name: str
    replicas: list[ReplicaId]


class Registry:
    """The terminals in the database. The coroutines never block the event loop."""

    def __init__(self, database: Store) -> None:
        self._database = database
        self.sightings = Sightings(database)
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
            return None
        client = Client(TerminalId(row.terminal), ReplicaId(row.replica), row.name, row.stopped)
        if row.used or row.stopped:
            return keep(client)
        await self._write(lambda connection: _first_use(connection, row))
        return client

    async def saw(
        self,
        terminal: TerminalId,
        now_ms: int,
        address: str,
        status: Mapping[str, Any] | None,
        *,
        restored: bool | None = None,
        settled_fact: int | None = None,
    ) -> None:
        """Note that a terminal was heard of and, unless None, what it said of itself.

        `restored`: whether its storage is an old copy, None where that was no question; True is durable on
        return, everything else in a moment (`sightings.py`). `settled_fact`: it was given the settlement to
        its end, with the history up to this fact in it; so it knows now what everybody did.
        """
        sound_ms = now_ms if restored is False else None
        settled_ms = None if settled_fact is None else now_ms
        self.sightings.note(
            terminal, Sighting(now_ms, address, status, sound_ms, settled_ms, settled_fact or 0)
        )
        if restored:
            self.sightings.doubt(terminal)
            values = {"restored_ms": _found_restored(now_ms)}
            change = update(tables.terminal).where(tables.terminal.c.terminal == terminal).values(values)
            await self._write(lambda connection: connection.execute(change) and None)

    async def terminals(self) -> list[Terminal]:
        """Every terminal, by name, as it was last heard of."""
        unwritten = self.sightings.unwritten()
        query = select(tables.terminal).order_by(tables.terminal.c.name)
        rows = await asyncio.wrap_future(
            self._database.read(lambda connection: connection.execute(query).all())
        )
        found = map(_terminal, rows)
        return [_with(terminal, unwritten.get(terminal.terminal)) for terminal in found]

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

    async def revoke(self, name_or_id: str, now_ms: int) -> str:
        """Stop a terminal and all its certificates; its name. RequestRefused when there is none such."""
        return await self._write(lambda connection: _revoke(connection, name_or_id, now_ms))

    async def _write(self, work: Callable[[Connection], T]) -> T:
        """Change the registry; from the commit on nobody is let in by what memory had."""
        forget = self._clients.forget
        return await asyncio.wrap_future(self._database.write(work, after=lambda _result: forget()))


def _found_restored(now_ms: int) -> ColumnElement[Any]:
    """When it was first found so, under its present identity."""
    table = tables.terminal
    since_last = table.c.restored_ms.is_(None) | (table.c.renewed_ms >= table.c.restored_ms)
    return case((since_last, now_ms), else_=table.c.restored_ms)


def enrol(
    connection: Connection,
    name: str,
    claimed: bytes,
    fresh: TerminalId,
    issue: Callable[[TerminalId], tuple[ReplicaId, ClientCertificate]],
    now_ms: int,
) -> TerminalId:
    """Enter a newly paired terminal, within the caller's transaction; returns its id.

    The name decides who it is: a known name is that terminal, paired anew. An id that the terminal brings
    along (`claimed`) is kept only when nobody here has it, for two bus computers started from one SD image
    both claim the same. Otherwise the id is `fresh`. `issue` makes the certificates for the id.
    """
    table = tables.terminal
    by_name = connection.execute(select(table.c.terminal).where(table.c.name == name)).scalar_one_or_none()
    terminal = TerminalId(by_name) if by_name is not None else _new_id(connection, claimed, fresh)
    replica, certificate = issue(terminal)
    _refuse_known_replica(connection, replica)
    connection.execute(
        tables.client_certificate.insert().values(
            serial=certificate.serial,
            terminal=terminal,
            replica=replica,
            paired_as=replica,
            number=_next_number(connection, terminal),
            issued_ms=now_ms,
        )
    )
    values = {
        "name": name,
        "replica": replica,
        "paired_ms": now_ms,
        "revoked_ms": None,
        "restored_ms": None,
        "renewed_ms": None,
    }
    if by_name is None:
        connection.execute(table.insert().values(terminal=terminal, **values))
    else:
        connection.execute(table.update().where(table.c.terminal == terminal).values(values))
    return terminal


def renew(
    connection: Connection,
    client: Client,
    replica: ReplicaId,
    certificate: ClientCertificate,
    now_ms: int,
) -> None:
    """Enter another identity of a terminal, within the caller's transaction; again for the same one is fine.

    RequestRefused when the key is of another terminal or this one's present one, Revoked when it was revoked.
    """
    table = tables.client_certificate
    mine = tables.terminal.c.terminal == client.terminal
    paired_as = connection.execute(_paired_as(client.replica)).scalars().first()
    if connection.execute(select(tables.terminal.c.revoked_ms).where(mine)).scalar_one() is not None:
        raise Revoked(f"The terminal {client.name} was revoked.")
    known = connection.execute(select(table.c.terminal).where(table.c.replica == replica)).scalars().first()
    if known is not None and (known != client.terminal or replica == client.replica):
        raise key_in_use()
    connection.execute(
        table.insert().values(
            serial=certificate.serial,
            terminal=client.terminal,
            replica=replica,
            paired_as=paired_as,
            number=_next_number(connection, client.terminal),
            issued_ms=now_ms,
        )
    )
    connection.execute(tables.terminal.update().where(mine).values(replica=replica, renewed_ms=now_ms))


def since_pairing(connection: Connection, replica: ReplicaId) -> set[ReplicaId]:
    """The identities that a terminal was given in the pairing that this one is from, and since."""
    table = tables.client_certificate
    query = select(table.c.replica).where(table.c.paired_as.in_(_paired_as(replica)))
    return {ReplicaId(found) for found in connection.execute(query).scalars()}


def _next_number(connection: Connection, terminal: TerminalId) -> int:
    """Of the terminal's next certificate: the newer has the larger, however the clock was set."""
    table = tables.client_certificate
    last = select(func.coalesce(func.max(table.c.number), 0)).where(table.c.terminal == terminal)
    return int(connection.execute(last).scalar_one()) + 1


def _paired_as(replica: ReplicaId) -> Select[tuple[bytes]]:
    table = tables.client_certificate
    return select(table.c.paired_as).where(table.c.replica == replica)


def _new_id(connection: Connection, claimed: bytes, fresh: TerminalId) -> TerminalId:
    table = tables.terminal
    if len(connection.execute(select(table.c.terminal).limit(MAX_TERMINALS)).all()) == MAX_TERMINALS:
        raise RequestRefused("full", f"This hub has {MAX_TERMINALS} terminals and takes no more.")
    if len(claimed) != ID_BYTES:
        return fresh
    taken = connection.execute(select(table.c.name).where(table.c.terminal == claimed)).first()
    return fresh if taken else TerminalId(claimed)


def _refuse_known_replica(connection: Connection, replica: ReplicaId) -> None:
    """A key is certified once: pairing makes a new replica, or two terminals would write as one."""
    table = tables.client_certificate
    if connection.execute(select(table.c.serial).where(table.c.replica == replica)).first():
        raise key_in_use()


def key_in_use() -> RequestRefused:
    """The refusal of a key that somebody has: each identity has a key of its own."""
    return RequestRefused("key_in_use", "A terminal was paired with this key before. Pair with a new key.")


def _client(connection: Connection, serial: str) -> Row[Any] | None:
    certificates = tables.client_certificate
    query = select(certificates, tables.terminal.c.name).join_from(
        certificates, tables.terminal, certificates.c.terminal == tables.terminal.c.terminal
    )
    return connection.execute(query.where(certificates.c.serial == serial)).first()


def _first_use(connection: Connection, row: Row[Any]) -> None:
    table = tables.client_certificate
    mine = table.c.serial == row.serial
    connection.execute(table.update().where(mine).values(used=True))
    older = (table.c.terminal == row.terminal) & (table.c.number < row.number)
    connection.execute(table.update().where(older, table.c.stopped == "").values(stopped=REPLACED))


def _revoke(connection: Connection, name_or_id: str, now_ms: int) -> str:
    table = tables.terminal
    rows = connection.execute(select(table.c.terminal, table.c.name)).all()
    found = [row for row in rows if name_or_id in (row.name, row.terminal.hex())]
    if not found:
        raise RequestRefused("no_terminal", f"There is no terminal {name_or_id!r}.", status=404)
    terminal, name = found[0]
    connection.execute(table.update().where(table.c.terminal == terminal).values(revoked_ms=now_ms))
    certificates = tables.client_certificate
    change = certificates.update().where(certificates.c.terminal == terminal).values(stopped=REVOKED)
    connection.execute(change)
    return str(name)


def _with(terminal: Terminal, sighting: Sighting | None) -> Terminal:
    """The terminal as it was last heard of."""
    if sighting is None or sighting.seen_ms < (terminal.seen_ms or 0):
        return terminal
    seen = replace(terminal, seen_ms=sighting.seen_ms, address=sighting.address)
    if sighting.status is not None:
        seen = replace(seen, status=dict(sighting.status))
    if sighting.settled_ms is not None:
        seen = replace(seen, settled_ms=sighting.settled_ms, settled_fact=sighting.settled_fact)
    if terminal.disproved(sighting.sound_ms):
        seen = replace(seen, restored_ms=None)
    return seen


def _terminal(row: Row[Any]) -> Terminal:
    return Terminal(
        terminal=TerminalId(row.terminal),
        name=row.name,
        replica=ReplicaId(row.replica),
        paired_ms=row.paired_ms,
        revoked_ms=row.revoked_ms,
        seen_ms=row.seen_ms,
        address=row.address,
        status=json.loads(row.status),
        restored_ms=row.restored_ms,
        renewed_ms=row.renewed_ms,
        settled_ms=row.settled_ms,
        settled_fact=row.settled_fact,
    )
