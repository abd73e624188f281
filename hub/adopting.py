"""Booking what a quarantined block says, when its terminal is gone and will never write it again itself.

The facts become the hub's own, one by one with a request id each, so a power cut in between or a second click
books nothing twice; then the block is marked as adopted. Facts that are in the chain that counts as well,
number and content alike, are left out: both branches of a fork begin alike.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from crdt.block import Block, contents, parse
from crdt.errors import RefusalCode
from crdt.facts import Delta, Draft
from crdt.forks import unheld
from crdt.store import quarantine
from crdt.store.hub import HubLedger
from crdt.store.quarantine import Quarantined
from crdt.store.store import Store
from hub.errors import RequestRefused

CHAIN_BYTES = 8 * 1024 * 1024  # of the chain that counts, read to compare; a block spans little of it


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was booked, in minor units."""

    facts: int
    amount_minor: int


class Adopter:
    """Books quarantined blocks, one at a time."""

    def __init__(self, database: Store, ledger: HubLedger) -> None:
        self._database = database
        self._ledger = ledger
        self._one_at_a_time = asyncio.Lock()

    async def adopt(self, hash_: bytes) -> Adopted:
        """Book the block with this hash. RequestRefused when it is not one that waits for this."""
        async with self._one_at_a_time:
            entry = await self._entry(hash_)
            facts = await self._lost(entry)
            for delta in facts:
                draft = Draft(delta.kind, delta.amount_minor)
                request = f"adopt.{hash_.hex()[:40]}.{delta.seq}"
                booking = self._ledger.append(delta.card, [draft], delta.at_ms, delta.context, request)
                await asyncio.wrap_future(booking)
            resolving = self._database.write(
                lambda connection: quarantine.resolve(connection, [hash_], quarantine.ADOPTED)
            )
            await asyncio.wrap_future(resolving)
        return Adopted(len(facts), sum(delta.amount_minor for delta in facts))

    async def _entry(self, hash_: bytes) -> Quarantined:
        found = await asyncio.wrap_future(
            self._database.read(lambda connection: quarantine.find(connection, [hash_]))
        )
        if not found:
            raise RequestRefused("no_block", "There is no such block in quarantine.", HTTPStatus.NOT_FOUND)
        (entry,) = found
        if entry.reason is not RefusalCode.FORK_DETECTED:
            raise RequestRefused(
                "revoked",
                "This block was written after its author was revoked. To count it, accept it: that moves the "
                "cut-off, and the block comes back as it was signed.",
                HTTPStatus.CONFLICT,
            )
        if entry.resolution != quarantine.OPEN:
            raise RequestRefused(
                "resolved",
                f"What this block says is in the ledger already ({entry.resolution}). Nothing was booked.",
                HTTPStatus.CONFLICT,
            )
        return entry

    async def _lost(self, entry: Quarantined) -> Sequence[Delta]:
        """The facts of the block that the chain that counts has not."""
        reading = self._ledger.blocks_after(entry.replica, entry.first_seq - 1, CHAIN_BYTES)
        chain = [parse(raw) for raw in await asyncio.wrap_future(reading)]
        held = [fact for block in chain if block.header.first_seq <= entry.last_seq for fact in _facts(block)]
        return unheld(_facts(entry.block), held)


def _facts(block: Block) -> Sequence[Delta]:
    return contents(block).deltas(block.header.replica, block.header.first_seq)
