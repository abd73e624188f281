"""What an operator should know of the whole ledger: what is missing, what does not count, who is suspect.

Read-only, and for people: names beside ids, amounts in minor units, times in milliseconds since the epoch,
ids in lower-case hex. All methods are coroutines that never block the event loop.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from crdt.certificate import AuthorCertificate, Role
from crdt.errors import RefusalCode
from crdt.facts import CardId, ReplicaId
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.settlement import OVERDRAWN
from crdt.store import quarantine, quarantine_list
from crdt.store.blocks import NO_CHAIN, chains_of
from crdt.store.hub import HubLedger
from crdt.store.hub_schema import CARD
from crdt.store.quarantine_list import Listed
from crdt.store.resolutions import OPEN, UNRESOLVED
from crdt.store.silent import Silent
from crdt.store.store import Store
from hub import block_entries, restoring
from hub.authornames import author_name
from hub.block_entries import EntryRow
from hub.cardids import card_text
from hub.excerpt import PAGE_ROWS, Excerpt, existing, offset
from hub.silent_row import SilentRow


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """Entries of an author that exist somewhere and are not here."""

    terminal: str  # its name; "hub" for the hub's own, before it was put back
    replica: str
    first_seq: int
    last_seq: int
    since_ms: int
    source: str  # who named them
    proven: bool  # False: by nothing but the word of another terminal
    own: bool  # whether this hub booked them itself, before it was put back
    claimed_seq: int = 0  # how far it goes beyond that by another terminal's word alone; 0: no further

    @property
    def entries(self) -> int:
        """How many."""
        return self.last_seq - self.first_seq + 1


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """A signed block that changes no balance."""

    block: str  # its hash
    terminal: str
    replica: str
    first_seq: int
    last_seq: int
    amount_minor: int  # of all its entries
    revoked: bool  # it was written after its terminal was revoked
    replaced: bool  # it came after its author was replaced; else it contradicts the chain that counts
    own: bool  # whether this hub signed it itself, before it was put back
    proof: bool  # whether the block that it contradicts is kept beside it
    resolution: str  # "" for none yet, else see crdt.store.resolutions
    noted_ms: int

    @property
    def entries(self) -> int:
        """How many."""
        return self.last_seq - self.first_seq + 1


@dataclass(frozen=True, slots=True)
class FlagRow:
    """What an author did, once."""

    terminal: str
    replica: str
    code: str  # lower case, as in the protocol
    at_ms: int
    sentence: str


@dataclass(frozen=True, slots=True)
class OverdrawnRow:
    """A card that owes more than the fleet's rules let one terminal lend it; refused until it is paid."""

    card: str
    balance_minor: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """Credit that an author gave (opening balances), and the most that it ever may."""

    given_minor: int
    allowed_minor: int


@dataclass(frozen=True, slots=True)
class RestorationRow:
    """That the hub was put back from a backup."""

    at_ms: int
    seen: bool


class Evidence:
    """The read side of what is wrong."""

    def __init__(self, database: Store, ledger: HubLedger) -> None:
        self._database = database
        self._ledger = ledger

    async def waiting(self) -> list[WaitingRow]:
        """What the hub knows to exist and lacks, by author."""
        authors = self._ledger.authors()
        return [
            WaitingRow(
                author_name(authors, one.replica),
                one.replica.hex(),
                one.held_seq + 1,
                one.expected_seq,
                one.since_ms,
                one.source,
                one.proven,
                _is_hub(authors, one.replica),
                one.claimed_seq,
            )
            for one in await asyncio.wrap_future(self._ledger.waiting())
        ]

    async def silent(self) -> list[SilentRow]:
        """Former identities of which nobody can tell what they wrote last, by terminal."""
        authors = self._ledger.authors()
        found = await asyncio.wrap_future(self._ledger.silent())
        rows = [silent_row(author_name(authors, one.replica), one) for one in found]
        return sorted(rows, key=lambda row: row.terminal.casefold())

    async def quarantine(self, page: int = 1) -> Excerpt[QuarantineRow]:
        """Blocks that do not count: those that somebody has to decide about first, then by author."""

        def read(connection: Connection) -> Excerpt[Listed]:
            total = quarantine_list.count(connection)
            shown = existing(page, total)
            return Excerpt(quarantine_list.listed(connection, PAGE_ROWS, offset(shown)), shown, total)

        found = await asyncio.wrap_future(self._database.read(read))
        return Excerpt(await self._rows(found.rows), found.page, found.total)

    async def undecided(self) -> int:
        """How many blocks somebody has to decide about."""
        return await asyncio.wrap_future(self._database.read(quarantine_list.count_unresolved))

    async def block(self, block: str) -> QuarantineRow | None:
        """One block in quarantine by its hash, in hex; None when it is not there."""
        found = await quarantined(self._database, block)
        return None if found is None else (await self._rows([found]))[0]

    async def entries(self, block: str, page: int = 1) -> Excerpt[EntryRow]:
        """What a block in quarantine (by hash, hex) says; nothing where it is not there."""
        hash_ = bytes.fromhex(block)
        return await asyncio.wrap_future(
            self._database.read(lambda connection: block_entries.entries(connection, hash_, page))
        )

    async def kept(self, hashes: Collection[bytes]) -> set[bytes]:
        """Which of these blocks are in quarantine."""
        return await asyncio.wrap_future(
            self._database.read(lambda connection: quarantine.hashes_in(connection, hashes))
        )

    async def flags(self, page: int = 1) -> Excerpt[FlagRow]:
        """Authors that did what they may not, newest first."""
        authors = self._ledger.authors()
        every = await asyncio.wrap_future(self._ledger.flags())
        found = Excerpt.of(every, page)
        rows = [
            FlagRow(
                author_name(authors, flag.replica),
                flag.replica.hex(),
                flag.code.name.lower(),
                flag.at_ms,
                flag.sentence,
            )
            for flag in found.rows
        ]
        return Excerpt(rows, found.page, found.total)

    async def overdrawn(self, page: int = 1) -> Excerpt[OverdrawnRow]:
        """Cards that are refused until they are paid, the deepest in debt first."""
        return await asyncio.wrap_future(self._database.read(lambda found: _overdrawn(found, page)))

    async def allowance(self, replica: str) -> Allowance | None:
        """What credit an author has given of what it may; None for one that is not enrolled."""
        author = ReplicaId(bytes.fromhex(replica))
        certificate = self._ledger.authors().get(author)
        if certificate is None:
            return None
        chains = await asyncio.wrap_future(self._database.read(lambda sql: chains_of(sql, [author])))
        return Allowance(chains.get(author, NO_CHAIN).credit_minor, certificate.limits.allowance_minor)

    async def restoration(self) -> RestorationRow | None:
        """The last time that the hub was put back from a backup."""
        last = await asyncio.wrap_future(self._database.read(restoring.last))
        return None if last is None else RestorationRow(last.at_ms, last.seen)

    async def _rows(self, listed: Sequence[Listed]) -> list[QuarantineRow]:
        authors = self._ledger.authors()
        document = await asyncio.wrap_future(self._ledger.document(REVOKED_DOCUMENT))
        replaced = Revocations.decode(document.body).replaced if document is not None else frozenset()
        return [_row(entry, authors, replaced) for entry in listed]


async def quarantined(database: Store, block: str) -> Listed | None:
    """The block in quarantine that has this hash, in hex; None when there is none."""
    try:
        hash_ = bytes.fromhex(block)
    except ValueError:
        return None
    return await asyncio.wrap_future(
        database.read(lambda connection: quarantine_list.listed_one(connection, hash_))
    )


def silent_row(terminal: str, one: Silent) -> SilentRow:
    """The ledger's, for people. `terminal`: its name."""
    return SilentRow(terminal, one.replica.hex(), one.held_seq, one.heard_ms)


def _overdrawn(connection: Connection, page: int) -> Excerpt[OverdrawnRow]:
    balance = CARD.c.sum_minor + CARD.c.opening_minor
    owes = CARD.c.flags.bitwise_and(OVERDRAWN) != 0
    total = int(connection.execute(select(func.count()).select_from(CARD).where(owes)).scalar_one())
    shown = existing(page, total)
    query = select(CARD.c.card, balance).where(owes).order_by(balance, CARD.c.card)
    found = connection.execute(query.limit(PAGE_ROWS).offset(offset(shown)))
    rows = [OverdrawnRow(card_text(CardId(card)), int(balance_minor)) for card, balance_minor in found]
    return Excerpt(rows, shown, total)


def _row(
    entry: Listed,
    authors: Mapping[ReplicaId, AuthorCertificate],
    replaced: AbstractSet[ReplicaId],
) -> QuarantineRow:
    late = entry.reason is RefusalCode.REVOKED
    return QuarantineRow(
        block=entry.hash.hex(),
        terminal=author_name(authors, entry.replica),
        replica=entry.replica.hex(),
        first_seq=entry.first_seq,
        last_seq=entry.last_seq,
        amount_minor=entry.amount_minor,
        revoked=late and entry.replica not in replaced,
        replaced=late and entry.replica in replaced,
        own=_is_hub(authors, entry.replica),
        proof=entry.proven,
        resolution=OPEN if entry.resolution in UNRESOLVED else entry.resolution,
        noted_ms=entry.noted_ms,
    )


def _is_hub(authors: Mapping[ReplicaId, AuthorCertificate], replica: ReplicaId) -> bool:
    author = authors.get(replica)
    return author is not None and author.role is Role.HUB
