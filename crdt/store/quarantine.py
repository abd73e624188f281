"""Quarantine: signed blocks that do not count, kept as evidence and for what has to become of their facts.

A block gets here when it cannot be in the chain that counts (a fork), or when its author was revoked before.
Only blocks whose signature was verified may be put here, and of each terminal only so much, so that nobody
fills the disk with them: what comes beyond is refused all the same, and not kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, bindparam, func, or_, select

from crdt.block import Block, contents, parse
from crdt.certificate import AuthorCertificate
from crdt.errors import RefusalCode
from crdt.facts import ReplicaId, TerminalId
from crdt.forks import ForkProof
from crdt.store.blocks import Removed
from crdt.store.resolutions import AWAITED, COPIED, OPEN, SAID
from crdt.store.schema import QUARANTINE
from crdt.store.sql import Bulk, Lookup
from crdt.store.statement import Statement

MAX_QUARANTINED_BYTES: Final = 8 * 1024 * 1024  # of one terminal: some months of a bus, with the proofs
NOBODY: Final[Mapping[ReplicaId, AuthorCertificate]] = MappingProxyType({})

_INSERT: Final = Bulk(QUARANTINE)
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A block in quarantine."""

    hash: bytes
    replica: ReplicaId
    first_seq: int
    last_seq: int
    raw: bytes
    reason: RefusalCode  # FORK_DETECTED or REVOKED
    counted: bytes | None = None  # the block it contradicts, as signed; None where its predecessor does
    resolution: str = OPEN
    noted_ms: int = 0
    amount_minor: int | None = field(default=None, compare=False)  # of all its facts; None: not added up

    @classmethod
    def of(cls, block: Block, reason: RefusalCode, counted: bytes | None = None) -> Quarantined:
        """The entry of a verified block."""
        header = block.header
        return cls(block.hash, header.replica, header.first_seq, block.last_seq, block.raw, reason, counted)

    @classmethod
    def of_removed(cls, removed: Removed, reason: RefusalCode) -> Quarantined:
        """The entry of a block that leaves the record."""
        return replace(cls.of(removed.block, reason), amount_minor=removed.facts.total_minor())

    @property
    def block(self) -> Block:
        """The block, parsed."""
        return parse(self.raw)

    @property
    def proof(self) -> ForkProof | None:
        """That its author forked; None when this entry alone does not prove it."""
        return None if self.counted is None else ForkProof(self.counted, self.raw)

    @property
    def size_bytes(self) -> int:
        """What it takes of its terminal's share."""
        return len(self.raw) + len(self.counted or b"")


def put(
    connection: Connection,
    entries: Iterable[Quarantined],
    noted_ms: int,
    authors: Mapping[ReplicaId, AuthorCertificate] = NOBODY,
    *,
    bounded: bool = True,
) -> list[Quarantined]:
    """Keep what is not here yet and fits its terminal's share; returns what was kept, in order.

    `noted_ms`: by the caller's clock, for people. `authors`: everybody who is enrolled: all identities of a
    terminal have one share together. `bounded` is False for what leaves the record, and for what a hub has
    lost of its own: it must not be lost, and there is no more of it than there was.
    """
    given = {entry.hash: entry for entry in entries}
    held = hashes_in(connection, given)
    new = [entry for entry in given.values() if entry.hash not in held]
    kept = _fitting(connection, new, authors) if bounded else new
    _INSERT.run(connection, [_row(entry, noted_ms) for entry in kept])
    return kept


def entries(
    connection: Connection,
    replica: ReplicaId | None = None,
    resolution: str | None = None,
    limit: int | None = None,
    reason: RefusalCode | None = None,
    until: int | None = None,
) -> list[Quarantined]:
    """What is in quarantine, by replica and number; of one replica, resolution or reason where given.

    `until`: and that ends with this number, or before.
    """
    wanted: dict[str, Any] = {"replica": replica, "resolution": resolution}
    wanted |= {"reason": None if reason is None else int(reason), _LIMIT: limit, _UNTIL: until}
    given = {name: value for name, value in wanted.items() if value is not None}
    return [_entry(row) for row in _entries(tuple(given)).rows(connection, **given)]


def part(
    connection: Connection, replica: ReplicaId, resolution: str, after: bytes, limit: int
) -> list[Quarantined]:
    """Some of a replica's blocks of which this became, by hash: those after this one."""
    given = {"replica": replica, "resolution": resolution, "after": after, _LIMIT: limit}
    return [_entry(row) for row in _PART.rows(connection, **given)]


def find(connection: Connection, hashes: Collection[bytes]) -> list[Quarantined]:
    """Those of these blocks that are in quarantine, by replica and number."""
    found = [_entry(row) for row in _FIND.run(connection, hashes)]
    return sorted(found, key=lambda entry: (entry.replica, entry.first_seq, entry.hash))


def hashes_in(connection: Connection, hashes: Collection[bytes]) -> set[bytes]:
    """Which of these blocks are in quarantine."""
    return {hash_ for (hash_,) in _IN.run(connection, hashes)}


def is_forked(connection: Connection, hash_: bytes) -> bool:
    """Whether this block is in quarantine because of a fork: what follows it is of the same branch."""
    return bool(_REASON.value(connection, hash=hash_) == RefusalCode.FORK_DETECTED)


def authors_with(connection: Connection, resolution: str) -> list[ReplicaId]:
    """Of whom there are blocks of which this became."""
    return [ReplicaId(replica) for (replica,) in _AUTHORS.rows(connection, resolution=resolution)]


def awaited(connection: Connection) -> list[ReplicaId]:
    """Of whom there are blocks whose facts may come again: the hub has copied them, or it was said so."""
    return [ReplicaId(replica) for (replica,) in _AWAITED.rows(connection)]


def examined(connection: Connection, replica: ReplicaId, seq: int) -> int:
    """How far an author's facts are here without a hole after `seq`, in quarantine if not in the record."""
    table = QUARANTINE.c
    query = select(table.first_seq, table.last_seq).where(table.replica == replica, table.last_seq > seq)
    for first_seq, last_seq in connection.execute(query.order_by(table.first_seq)):
        if first_seq > seq + 1:
            break
        seq = max(seq, last_seq)
    return seq


def resolve(connection: Connection, hashes: Collection[bytes], how: str) -> int:
    """Note what became of these blocks' facts; how many entries changed. SAID counts for OPEN ones only."""
    changed = 0
    for part in _parts(hashes):
        here = QUARANTINE.c.hash.in_(part) & (QUARANTINE.c.resolution != how)
        if how == SAID:
            here &= QUARANTINE.c.resolution == OPEN
        changed += connection.execute(QUARANTINE.update().where(here).values(resolution=how)).rowcount
    return changed


def take_out(connection: Connection, hashes: Collection[bytes]) -> None:
    """Forget these entries: their blocks count now. Not those of which the hub has copies to take back."""
    for part in _parts(hashes):
        here = QUARANTINE.c.hash.in_(part) & QUARANTINE.c.resolution.not_in(COPIED)
        connection.execute(QUARANTINE.delete().where(here))


_COLUMNS: Final = (
    "hash",
    "replica",
    "first_seq",
    "last_seq",
    "raw",
    "reason",
    "counted",
    "resolution",
    "noted_ms",
)
_LIMIT: Final = "limit"
_UNTIL: Final = "until"
_PART: Final = Statement(
    select(*(QUARANTINE.c[name] for name in _COLUMNS))
    .where(
        QUARANTINE.c.resolution == bindparam("resolution"),
        QUARANTINE.c.replica == bindparam("replica"),
        QUARANTINE.c.hash > bindparam("after"),
    )
    .order_by(QUARANTINE.c.hash)
    .limit(bindparam(_LIMIT, type_=BigInteger))
)
_FIND: Final = Lookup(QUARANTINE, "hash", _COLUMNS)
_IN: Final = Lookup(QUARANTINE, "hash", ("hash",))
_REASON: Final = Statement(select(QUARANTINE.c.reason).where(QUARANTINE.c.hash == bindparam("hash")))
_AUTHORS: Final = Statement(
    select(QUARANTINE.c.replica).where(QUARANTINE.c.resolution == bindparam("resolution")).distinct()
)
_AWAITED: Final = Statement(
    select(QUARANTINE.c.replica)
    .where(or_(*(QUARANTINE.c.resolution == resolution for resolution in AWAITED)))
    .distinct()
)


@cache
def _entries(given: tuple[str, ...]) -> Statement:
    """What `entries` runs where these of its arguments are given."""
    query = select(*(QUARANTINE.c[name] for name in _COLUMNS))
    columns = [name for name in given if name not in (_LIMIT, _UNTIL)]
    query = query.where(*(QUARANTINE.c[name] == bindparam(name) for name in columns))
    if _UNTIL in given:
        query = query.where(QUARANTINE.c.last_seq <= bindparam(_UNTIL))
    query = query.order_by(QUARANTINE.c.replica, QUARANTINE.c.first_seq, QUARANTINE.c.hash)
    return Statement(query.limit(bindparam(_LIMIT, type_=BigInteger)) if _LIMIT in given else query)


def _entry(row: Sequence[Any]) -> Quarantined:
    hash_, replica, first, last, raw, reason, counted, resolution, noted_ms = row
    return Quarantined(
        hash_, ReplicaId(replica), first, last, raw, RefusalCode(reason), counted, resolution, noted_ms
    )


def _row(entry: Quarantined, noted_ms: int) -> tuple[Any, ...]:
    return (
        entry.hash,
        entry.replica,
        entry.first_seq,
        entry.last_seq,
        int(entry.reason),
        entry.resolution,
        noted_ms,
        entry.size_bytes,
        contents(entry.block).total_minor() if entry.amount_minor is None else entry.amount_minor,
        entry.raw,
        entry.counted,
    )


def _fitting(
    connection: Connection, entries: Sequence[Quarantined], authors: Mapping[ReplicaId, AuthorCertificate]
) -> list[Quarantined]:
    """Those that fit what is left of their terminals' shares. A stranger's identity is a terminal."""
    terminals: dict[ReplicaId, TerminalId | ReplicaId] = {
        one.replica: authors[one.replica].terminal if one.replica in authors else one.replica
        for one in entries
    }
    identities = {terminal: {replica} for replica, terminal in terminals.items()}
    for replica, author in authors.items():
        if author.terminal in identities:
            identities[author.terminal].add(replica)
    used = {terminal: _used_bytes(connection, theirs) for terminal, theirs in identities.items()}
    kept = []
    for entry in entries:
        terminal = terminals[entry.replica]
        if used[terminal] + entry.size_bytes <= MAX_QUARANTINED_BYTES:
            used[terminal] += entry.size_bytes
            kept.append(entry)
    return kept


def _used_bytes(connection: Connection, replicas: Collection[ReplicaId]) -> int:
    size = select(func.coalesce(func.sum(QUARANTINE.c.size_bytes), 0))
    return int(connection.execute(size.where(QUARANTINE.c.replica.in_(replicas))).scalar_one())


def _parts(hashes: Collection[bytes]) -> Iterable[list[bytes]]:
    """Few enough at a time for one statement."""
    every = list(hashes)
    return (every[at : at + _CHUNK] for at in range(0, len(every), _CHUNK))
