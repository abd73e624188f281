"""When each terminal was last heard of and what it said of itself: in memory at once, on disk a moment later.

Every exchange brings such news and the next one replaces it, so a commit for each would cost more than it is
worth. A hub that is killed forgets the last WRITE_EVERY_S seconds of it, and nothing else; the terminals'
next exchanges say it again.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Text, and_, bindparam, case, func, null, or_

from crdt.errors import StoreError
from crdt.facts import TerminalId
from crdt.store.statement import Statement
from crdt.store.store import Store
from hub import tables

log = logging.getLogger(__name__)

WRITE_EVERY_S: Final = 2.0  # so other hub processes on the same database see it that late
LATE_MS: Final = 60_000  # a sighting so much older is not late: the hub's clock was set back


@dataclass(frozen=True, slots=True)
class Sighting:
    """What an exchange showed of a terminal. Times by the hub's clock."""

    seen_ms: int
    address: str
    status: Mapping[str, Any] | None = None  # what it said of itself; None: nothing
    sound_ms: int | None = None  # when its storage was found to be no old copy
    settled_ms: int | None = None  # of when the settlement is that it has installed
    settled_fact: int = 0  # the last fact of the history that was in it

    def after(self, earlier: "Sighting | None") -> "Sighting":
        """This one, with what only the one before it said."""
        if earlier is None:
            return self
        both = self
        if self.status is None:
            both = replace(both, status=earlier.status)
        if self.sound_ms is None:
            both = replace(both, sound_ms=earlier.sound_ms)
        if self.settled_ms is None:
            both = replace(both, settled_ms=earlier.settled_ms, settled_fact=earlier.settled_fact)
        return both


def _sound() -> Any:
    """What was mended by a new identity stays told, and what was found later; what is disproved does not."""
    table, sound_ms = tables.terminal.c, bindparam("sound", type_=BigInteger)
    mended = table.renewed_ms >= table.restored_ms
    disproved = and_(sound_ms >= table.restored_ms, or_(table.renewed_ms.is_(None), ~mended))
    return case((disproved, null()), else_=table.restored_ms)


def _update() -> Any:
    table = tables.terminal
    seen_ms, settled_ms = bindparam("seen", type_=BigInteger), bindparam("settled", type_=BigInteger)
    status, fact = bindparam("said", type_=Text), bindparam("fact", type_=BigInteger)
    newer = or_(table.c.seen_ms <= seen_ms, table.c.seen_ms > seen_ms + LATE_MS)
    return (
        table.update()
        .where(table.c.terminal == bindparam("whose", type_=table.c.terminal.type))
        .where(or_(table.c.seen_ms.is_(None), newer))
        .values(
            seen_ms=seen_ms,
            address=bindparam("place", type_=table.c.address.type),
            status=func.coalesce(status, table.c.status),
            settled_ms=func.coalesce(settled_ms, table.c.settled_ms),
            settled_fact=func.coalesce(fact, table.c.settled_fact),
            restored_ms=_sound(),
        )
    )


_UPDATE: Final = Statement(_update())


class Sightings:
    """The sightings that are not on disk yet. For the event loop's thread."""

    def __init__(self, database: Store) -> None:
        self._database = database
        self._waiting: dict[TerminalId, Sighting] = {}
        self._writing: dict[TerminalId, Sighting] = {}

    def note(self, terminal: TerminalId, sighting: Sighting) -> None:
        """A terminal was heard of."""
        self._waiting[terminal] = sighting.after(self._waiting.get(terminal))

    def doubt(self, terminal: TerminalId) -> None:
        """Its storage is an old copy after all: what was heard before does not say otherwise."""
        waiting = self._waiting.get(terminal)
        if waiting is not None:
            self._waiting[terminal] = replace(waiting, sound_ms=None)

    def unwritten(self) -> dict[TerminalId, Sighting]:
        """What a reader of the tables has to know beside them; ask before reading."""
        unwritten = dict(self._writing)
        for terminal, sighting in self._waiting.items():
            unwritten[terminal] = sighting.after(unwritten.get(terminal))
        return unwritten

    async def write(self) -> None:
        """Write down what waits; on failure it goes on waiting. Raises StoreError."""
        if not self._waiting or self._writing:
            return
        some = self._writing = self._waiting
        self._waiting = {}
        try:
            await asyncio.wrap_future(self._database.write(lambda connection: _put(connection, some)))
        except BaseException:
            self._waiting = self.unwritten()
            raise
        finally:
            self._writing = {}

    async def keep_writing(self) -> None:
        """Write every WRITE_EVERY_S."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await self._try_to_write()

    async def close(self) -> None:
        """Write the last ones."""
        await self._try_to_write()

    async def _try_to_write(self) -> None:
        try:
            await self.write()
        except StoreError as error:
            log.warning("when terminals were last heard of is not written down yet: %s", error)


def _put(connection: Connection, some: Mapping[TerminalId, Sighting]) -> None:
    for terminal, one in some.items():
        _UPDATE.run(
            connection,
            whose=terminal,
            seen=one.seen_ms,
            place=one.address,
            said=None if one.status is None else json.dumps(one.status),
            sound=one.sound_ms,
            settled=one.settled_ms,
            fact=None if one.settled_ms is None else one.settled_fact,
        )
