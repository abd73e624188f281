"""Which quarantined blocks a terminal has written again under its new identity, by its own word in a renewal.

The word may come before the blocks do: the terminal hands them over as evidence afterwards. So it is kept
until they are here. It counts for blocks of the same terminal only.
"""

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, select

from crdt.block import parse
from crdt.errors import ForkDetected, InputRefused
from crdt.facts import TerminalId
from crdt.ledger import RefusedInput
from crdt.store import blocks, quarantine
from hub import tables

MAX_KEPT = 4096  # of one terminal, of blocks that are not here yet


def note(connection: Connection, terminal: TerminalId, hashes: Collection[bytes]) -> None:
    """The terminal says that it has written these again."""
    table = tables.reissued
    mine = table.c.terminal == terminal
    known = set(connection.execute(select(table.c.hash).where(mine)).scalars())
    new = [each for each in dict.fromkeys(hashes) if each not in known][: MAX_KEPT - len(known)]
    taken = set(connection.execute(select(table.c.hash).where(table.c.hash.in_(new))).scalars())
    rows = [{"hash": each, "terminal": terminal} for each in new if each not in taken]
    if rows:
        connection.execute(table.insert(), rows)
    settle(connection, hashes)


def settle(connection: Connection, hashes: Collection[bytes]) -> None:
    """Note in the quarantine that the facts of those of these blocks are in the ledger otherwise."""
    table = tables.reissued
    said = {
        row.hash: row.terminal
        for row in connection.execute(select(table).where(table.c.hash.in_(list(hashes))))
    }
    entries = quarantine.find(connection, list(said))
    authors = blocks.authors_of(connection, list({entry.replica for entry in entries}))
    own = [entry.hash for entry in entries if authors[entry.replica].terminal == said[entry.hash]]
    quarantine.resolve(connection, own, quarantine.REISSUED)
    connection.execute(table.delete().where(table.c.hash.in_([entry.hash for entry in entries])))


def forked(refused: Iterable[RefusedInput]) -> list[bytes]:
    """The hashes of those of the refused blocks that are on a branch that does not count."""
    hashes = []
    for one in refused:
        if isinstance(one.error, ForkDetected):
            try:
                hashes.append(parse(one.raw).hash)
            except InputRefused:
                continue
    return hashes
