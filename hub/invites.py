"""Invites: one-time codes that pair one terminal each, kept until they expire, burn or are used."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from crdt.store.store import Store
from hub import tables
from hub.errors import RequestRefused

MAX_INVITES = 100  # open at a time; also the highest nameplate


@dataclass(frozen=True, slots=True)
class Invite:
    """A one-time code that pairs one terminal."""

    code: str  # what the technician types: nameplate and secret
    expires_at_ms: int


class Invites:
    """The open invites. The coroutines never block the event loop."""

    def __init__(self, database: Store, expiry_s: int, tries: int) -> None:
        self._database = database
        self._expiry_s = expiry_s
        self._tries = tries

    async def create(self, make_code: Callable[[str], str], now_ms: int) -> Invite:
        """A fresh invite; `make_code` makes a code of a nameplate. RequestRefused when too many are open."""
        expires_ms = now_ms + self._expiry_s * 1000

        def work(connection: Connection) -> Invite:
            nameplate = _free_nameplate(connection, now_ms)
            code = make_code(nameplate)
            row = {"nameplate": nameplate, "code": code, "expires_ms": expires_ms, "tries_left": self._tries}
            connection.execute(tables.invite.insert().values(row))
            return Invite(code, expires_ms)

        return await asyncio.wrap_future(self._database.write(work))

    async def open(self, now_ms: int) -> list[Invite]:
        """The invites that are still good, newest first."""
        table = tables.invite
        query = select(table.c.code, table.c.expires_ms).where(table.c.expires_ms > now_ms)
        newest = query.order_by(table.c.expires_ms.desc())
        rows = await asyncio.wrap_future(self._database.read(lambda sql: sql.execute(newest).all()))
        return [Invite(code, expires_ms) for code, expires_ms in rows]

    async def code(self, nameplate: str, now_ms: int) -> str | None:
        """The code of an open invite; None when there is none (unknown, used, burned or expired)."""

        def work(connection: Connection) -> str | None:
            row = _open(connection, nameplate, now_ms)
            return None if row is None else row.code

        return await asyncio.wrap_future(self._database.read(work))

    async def wrong_try(self, nameplate: str, code: str) -> int:
        """Count a wrong try against an invite; how many are left. At 0 it is gone."""

        def work(connection: Connection) -> int:
            table = tables.invite
            mine = (table.c.nameplate == nameplate) & (table.c.code == code)
            connection.execute(table.update().where(mine).values(tries_left=table.c.tries_left - 1))
            connection.execute(table.delete().where(table.c.tries_left <= 0))
            left = connection.execute(select(table.c.tries_left).where(mine)).scalar_one_or_none()
            return left or 0

        return await asyncio.wrap_future(self._database.write(work))


def use(connection: Connection, nameplate: str, code: str, now_ms: int) -> None:
    """Use an invite up, within the caller's transaction; RequestRefused when it is no longer open."""
    row = _open(connection, nameplate, now_ms)
    if row is None or row.code != code:
        raise RequestRefused(
            "code_gone", "This pairing code was used, burned or has expired. Ask for a new one."
        )
    connection.execute(tables.invite.delete().where(tables.invite.c.nameplate == nameplate))


def _open(connection: Connection, nameplate: str, now_ms: int) -> Row[Any] | None:
    table = tables.invite
    query = select(table).where(table.c.nameplate == nameplate, table.c.expires_ms > now_ms)
    return connection.execute(query.where(table.c.tries_left > 0)).first()


def _free_nameplate(connection: Connection, now_ms: int) -> str:
    table = tables.invite
    connection.execute(table.delete().where(table.c.expires_ms <= now_ms))
    taken = set(connection.execute(select(table.c.nameplate)).scalars())
    for number in range(1, MAX_INVITES + 1):
        if str(number) not in taken:
            return str(number)
    raise RequestRefused(
        "too_many", f"{MAX_INVITES} pairing codes are open. Use one, or wait until they expire."
    )
