"""Which quarantined blocks a terminal says it has written again under its new identity, in a renewal.

The word may come before the blocks do: the terminal hands them over as evidence afterwards. So it is kept
until they are here. It counts for blocks of the same terminal only, and decides nothing: the ledger looks
whether it has what they say, for a terminal may lose what it has not brought yet.
"""

import asyncio
from collections.abc import Collection, Iterable

from sqlalchemy import Connection, select

from crdt.block import parse
from crdt.errors import ForkDetected, InputRefused, Revoked
from crdt.facts import TerminalId
from crdt.ledger import RefusedInput
from crdt.store import blocks, quarantine
from crdt.store.hub import HubLedger
from crdt.store.store import Store
from hub import tables

MAX_KEPT = 4096  # of one terminal, of blocks that are not here yet


def note(connection: Connection, terminal: TerminalId, hashes: Collection[bytes]) -> None:
    """The terminal says that it has written these again; `here` tells which of them are in quarantine."""
    table = tables.reissued
    mine = table.c.terminal == terminal
    known = set(connection.execute(select(table.c.hash).where(mine)).scalars())
    new = [each for each in dict.fromkeys(hashes) if each not in known][: MAX_KEPT - len(known)]
    taken = set(connection.execute(select(table.c.hash).where(table.c.hash.in_(new))).scalars())
    rows = [{"hash": each, "terminal": terminal} for each in new if each not in taken]
    if rows:
        connection.execute(table.insert(), rows)


def here(connection: Connection, hashes: Collection[bytes]) -> list[bytes]:
    """Those of these blocks in quarantine that their own terminal has written again, by its word so far."""
    table = tables.reissued
    said = {
        row.hash: row.terminal
        for row in connection.execute(select(table).where(table.c.hash.in_(list(hashes))))
    }
    entries = quarantine.find(connection, list(said))
    authors = blocks.authors_of(connection, list({entry.replica for entry in entries}))
    return [entry.hash for entry in entries if authors[entry.replica].terminal == said[entry.hash]]


async def settle(database: Store, ledger: HubLedger, hashes: Collection[bytes]) -> None:
    """See to it that the ledger looks for what those of these blocks say that were written again."""
    if not hashes:
        return
    found = await asyncio.wrap_future(database.read(lambda connection: here(connection, hashes)))
    if found:
        await asyncio.wrap_future(ledger.note_said(found))


def quarantined(refused: Iterable[RefusedInput]) -> list[bytes]:
    """The hashes of those of the refused blocks that lie in quarantine now, unless there was no room."""
    hashes = []
    for one in refused:
        if isinstance(one.error, ForkDetected | Revoked):
            try:
                hashes.append(parse(one.raw).hash)
            except InputRefused:
                continue
    return hashes
