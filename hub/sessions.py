"""Operators' sessions in the database: a random token in the browser, its hash here, two ends."""

import asyncio
import hashlib
from collections.abc import Callable

from sqlalchemy import Connection, select

from crdt.store.store import Store
from hub import tables

MAX_SESSIONS = 200  # at a time; the longest silent ones end first
TOUCH_MS = 60_000  # how exactly idleness is measured: a page load seldom costs a write
TOKEN_BYTES = 32


class Sessions:
    """Begins, checks and ends sessions. The coroutines never block the event loop."""

    def __init__(
        self,
        database: Store,
        idle_s: int,
        longest_s: int,
        now_ms: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._idle_ms = idle_s * 1000
        self._longest_ms = longest_s * 1000
        self._now_ms = now_ms
        self._entropy = entropy

    async def begin(self) -> str:
        """A new session; its token, 64 hex digits."""
        token = self._entropy(TOKEN_BYTES).hex()
        now_ms = self._now_ms()

        def work(connection: Connection) -> None:
            self._prune(connection, now_ms)
            row = {"token_hash": _hash(token), "begun_ms": now_ms, "seen_ms": now_ms}
            connection.execute(tables.session.insert().values(row))

        await asyncio.wrap_future(self._database.write(work))
        return token

    async def stands(self, token: str, *, touch: bool) -> bool:
        """Whether the token is of a session that has not ended; `touch` counts this as being used."""
        query = select(tables.session).where(tables.session.c.token_hash == _hash(token))
        row = await asyncio.wrap_future(self._database.read(lambda sql: sql.execute(query).first()))
        now_ms = self._now_ms()
        if row is None or now_ms - row.seen_ms > self._idle_ms or now_ms - row.begun_ms > self._longest_ms:
            return False
        if touch and now_ms - row.seen_ms > min(TOUCH_MS, self._idle_ms // 4):
            change = tables.session.update().where(tables.session.c.token_hash == row.token_hash)
            touched = change.values(seen_ms=now_ms)
            await asyncio.wrap_future(self._database.write(lambda sql: sql.execute(touched) and None))
        return True

    async def end(self, token: str) -> None:
        """End the token's session, if it is one."""
        gone = tables.session.delete().where(tables.session.c.token_hash == _hash(token))
        await asyncio.wrap_future(self._database.write(lambda sql: sql.execute(gone) and None))

    def _prune(self, connection: Connection, now_ms: int) -> None:
        table = tables.session
        stale = (table.c.seen_ms < now_ms - self._idle_ms) | (table.c.begun_ms < now_ms - self._longest_ms)
        connection.execute(table.delete().where(stale))
        newest = (
            select(table.c.token_hash).order_by(table.c.seen_ms.desc()).limit(MAX_SESSIONS - 1).subquery()
        )
        # From a table of its own, because MariaDB and MySQL take no limit directly within an IN.
        connection.execute(table.delete().where(table.c.token_hash.not_in(select(newest.c.token_hash))))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
