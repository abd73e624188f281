"""Blocks in quarantine that an operator has the hub book, one or all of an author's."""

import asyncio
from collections.abc import Set as AbstractSet
from http import HTTPStatus

from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from crdt.store import quarantine_list
from crdt.store.hub import HubLedger
from crdt.store.quarantine_list import Listed
from crdt.store.resolutions import UNRESOLVED
from crdt.store.store import Store
from hub.errors import RequestRefused
from hub.evidence import quarantined


async def adopt(
    database: Store, ledger: HubLedger, replaced: AbstractSet[ReplicaId], block: str, *, others: bool
) -> int:
    """Book what a quarantined block (by hash, hex) says and the ledger has not; how many entries.

    `others`: and all other blocks of its author that may be booked so. `replaced`: authors that were replaced
    after a restore.
    """
    found = await quarantined(database, block)
    if found is None:
        raise no_block()
    if not _may_adopt(found, replaced):
        raise RequestRefused(
            "resolved",
            "Nothing was booked: what this block says is in the ledger already, or comes back when its "
            "revoked author is accepted.",
            HTTPStatus.CONFLICT,
        )
    rows = [found]
    if others:
        author = found.replica
        rows = await asyncio.wrap_future(database.read(lambda sql: quarantine_list.undecided(sql, author)))
    hashes = [row.hash for row in rows if _may_adopt(row, replaced)]
    return await asyncio.wrap_future(ledger.adopt(hashes))


def no_block() -> RequestRefused:
    """The refusal of a hash that no block in quarantine has."""
    return RequestRefused("no_block", "There is no such block in quarantine.", HTTPStatus.NOT_FOUND)


def _may_adopt(block: Listed, replaced: AbstractSet[ReplicaId]) -> bool:
    may = block.reason is RefusalCode.FORK_DETECTED or block.replica in replaced
    return may and block.resolution in UNRESOLVED
