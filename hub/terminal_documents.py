"""The hub's side of every terminal's document: kept here, merged with what a terminal sends, signed for it.

Loading and merging are done where the database is read, and what comes out is stored only if nobody else
has stored anything meanwhile: the operator, another exchange, another hub process.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from crdt.documents import TERMINAL_DOCUMENT, SignedDocument
from crdt.errors import InputRefused, NotPermitted, UnknownAuthor
from crdt.facts import FleetId, ReplicaId, TerminalId
from crdt.signing import SigningKey
from crdt.store.blocks import authors_of
from crdt.store.store import Store
from crdt.terminal_document import HUB_EDITS, TERMINAL_SETTING_NAMES, TerminalDocument
from hub.errors import RequestRefused
from hub.remembered import Remembered
from hub.tables import terminal_document
from hub.waiting import Wait

TRIES = 8  # how often somebody else may come first

Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Kept:
    """One terminal's document as it stands here."""

    document: TerminalDocument
    stored: int | None  # the version in the database; None: nobody has written anything yet
    fetched: int  # the version that the terminal was last known to have; 0: never heard
    fetched_texts: Texts  # and what it said

    @property
    def texts(self) -> Texts:
        """By field."""
        return _texts(self.document)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The fields whose text the terminal is not known to have."""
        return tuple(name for name, text in self.texts.items() if text != self.fetched_texts.get(name, ""))


Merge = Callable[[Connection, Kept], tuple[TerminalDocument, TerminalDocument | None]]
"""What is to be kept, and what the terminal is now known to have, None for no news."""


class TerminalDocuments:
    """The documents of all terminals. The coroutines never block the event loop."""

    def __init__(self, database: Store, fleet: FleetId, key: SigningKey, wait: Wait) -> None:
        """`key`: the hub's, which signs what goes to a terminal."""
        self._database = database
        self._fleet = fleet
        self._key = key
        self._wait = wait
        self._fetched: Remembered[TerminalId, int] = Remembered(database)

    async def kept(self, terminal: TerminalId) -> Kept:
        """The document of a terminal; an empty one when nobody has written any."""
        return await self._wait(self._database.read(lambda connection: _kept(connection, terminal)))

    async def other(self, terminal: TerminalId, version: int) -> SignedDocument | None:
        """For a terminal that has this version: the document, unless it is the same."""
        if self._fetched.get(terminal) == version:
            return None
        keep = self._fetched.asking(terminal)
        if await self._wait(self._database.read(lambda sql: _is_known(sql, terminal, version))):
            keep(version)
            return None
        kept = await self.kept(terminal)
        document = kept.document
        if document.version == version:
            await self._change(terminal, lambda _, now: (now.document, document))
            return None
        return SignedDocument.seal(self._key, self._fleet, TERMINAL_DOCUMENT, document.version, document.body)

    async def take(self, terminal: TerminalId, replica: ReplicaId, raw: bytes) -> None:
        """Merge what a terminal sent, as this replica. Raises InputRefused, and nothing has changed."""

        def merge(connection: Connection, kept: Kept) -> tuple[TerminalDocument, TerminalDocument]:
            theirs = _verified(connection, raw, terminal, replica)
            return kept.document.merged(theirs, HUB_EDITS), theirs

        await self._change(terminal, merge)

    async def edit(self, terminal: TerminalId, changes: Texts) -> Kept:
        """Set fields in the operator's name. Raises SettingRefused, and nothing has changed."""
        await self._change(terminal, lambda _, kept: (kept.document.edited(HUB_EDITS, changes), None))
        return await self.kept(terminal)

    async def _change(self, terminal: TerminalId, merge: Merge) -> None:
        def read(connection: Connection) -> tuple[Kept, TerminalDocument, TerminalDocument | None]:
            kept = _kept(connection, terminal)
            return kept, *merge(connection, kept)

        for _ in range(TRIES):
            before, document, fetched = await self._wait(self._database.read(read))
            values = _values(before, document, fetched)
            if not values or await self._write(terminal, _swap(terminal, before, values)):
                return
        raise RequestRefused("busy", "The terminal's settings are being changed; try again.", 503)

    async def _write(self, terminal: TerminalId, work: Callable[[Connection], bool]) -> bool:
        forget = self._fetched.forget
        return await self._wait(self._database.write(work, after=lambda _result: forget([terminal])))


def _kept(connection: Connection, terminal: TerminalId) -> Kept:
    row = _row(connection, terminal)
    if row is None:
        return Kept(TerminalDocument.new(terminal), None, 0, {})
    try:
        document = TerminalDocument.load(row.body, terminal)
    except InputRefused:  # an older program's, that this one cannot read: the terminal sends its own
        document = TerminalDocument.new(terminal)
    return Kept(document, row.version, row.fetched, json.loads(row.fetched_texts))


def _row(connection: Connection, terminal: TerminalId) -> Row[Any] | None:
    table = terminal_document
    return connection.execute(select(table).where(table.c.terminal == terminal)).first()


def _is_known(connection: Connection, terminal: TerminalId, version: int) -> bool:
    """Whether the terminal has what is here, and that is noted: so mostly, and quick."""
    table = terminal_document
    query = select(table.c.version, table.c.fetched).where(table.c.terminal == terminal)
    row = connection.execute(query).first()
    return row is not None and (row.version, row.fetched) == (version, version)


def _verified(
    connection: Connection, raw: bytes, terminal: TerminalId, replica: ReplicaId
) -> TerminalDocument:
    """The document that came, when it is the sender's own and of its own terminal. Raises InputRefused."""
    signed = SignedDocument.decode(raw)
    author = authors_of(connection, [replica]).get(replica)
    if author is None:
        raise UnknownAuthor("the document's author is not known here")
    if signed.name != TERMINAL_DOCUMENT:
        raise NotPermitted("a terminal may send its own settings only")
    return TerminalDocument.of(signed.verify(author), terminal)


def _texts(document: TerminalDocument) -> dict[str, str]:
    return {name: document.text(name) for name in TERMINAL_SETTING_NAMES}


def _values(before: Kept, document: TerminalDocument, fetched: TerminalDocument | None) -> dict[str, Any]:
    """What changes in the row."""
    values: dict[str, Any] = {}
    if document.version != before.stored:
        values |= {"version": document.version, "body": document.body}
    if fetched is not None and fetched.version != before.fetched:
        values |= {"fetched": fetched.version, "fetched_texts": json.dumps(_texts(fetched))}
    return values


def _swap(terminal: TerminalId, before: Kept, values: dict[str, Any]) -> Callable[[Connection], bool]:
    """Writes the values unless somebody else has written since `before`; whether it has."""
    table = terminal_document

    def work(connection: Connection) -> bool:
        row = _row(connection, terminal)
        if (None if row is None else row.version) != before.stored:
            return False
        if row is None:
            connection.execute(table.insert().values(terminal=terminal, **values))
        else:
            connection.execute(table.update().where(table.c.terminal == terminal).values(values))
        return True

    return work
