"""What a terminal keeps for its hub: the hub's own sealed blocks, in case the hub is put back from a backup.

They are in the settled balances already, so they take no part in views, sums or digests. All that counts is
that they can be given back. Their authors are the hub's identities, earlier ones included. What is kept is
the newest part of a chain, with holes where the terminal was away for long.

A hub that was put back with its marks gives numbers again. Then what is kept contradicts its chain; it is
evidence for the hub, and kept here until that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection, bindparam, func, select

from crdt.block import Block, parse, verify
from crdt.certificate import AuthorCertificate, Role
from crdt.errors import ChainBroken, NotPermitted, UnknownAuthor
from crdt.facts import ReplicaId
from crdt.frames import Want
from crdt.frontier import Frontier, Head
from crdt.ledger import RefusedInput
from crdt.store import papers
from crdt.store.authors import Authors
from crdt.store.blocks import NO_HEAD
from crdt.store.settled import settled_heads_of
from crdt.store.sql import Bulk
from crdt.store.statement import Statement
from crdt.store.terminal_schema import KEEPSAKE

MAX_KEPT_BYTES: Final = 16 * 1024 * 1024
"""Of all blocks kept: 90,000 top-ups, or 18 days of a depot that sells 5,000 a day; little for an SD card."""
MAX_STEP_BYTES: Final = 64 * 1024
"""Of blocks kept in one transaction: a tap waits for one at most."""
REACH: Final = 10_000
"""A chain that is kept for the first time, or was not for long, begins this many facts before its end: other
terminals have what is older, and a slow link is not to carry years."""

T = TypeVar("T")

_KEEP: Final = Bulk(KEEPSAKE)
_REPLICA: Final = KEEPSAKE.c.replica == bindparam("replica")
_END: Final = Statement(
    select(KEEPSAKE.c.last_seq, KEEPSAKE.c.hash)
    .where(_REPLICA)
    .order_by(KEEPSAKE.c.first_seq.desc())
    .limit(1)
)
_AFTER: Final = Statement(
    select(KEEPSAKE.c.first_seq, KEEPSAKE.c.last_seq, KEEPSAKE.c.raw)
    .where(_REPLICA, KEEPSAKE.c.first_seq > bindparam("seq"))
    .order_by(KEEPSAKE.c.first_seq)
    .limit(bindparam("limit"))
)
_AT: Final = Statement(
    select(KEEPSAKE.c.raw)
    .where(_REPLICA, KEEPSAKE.c.first_seq <= bindparam("seq"))
    .order_by(KEEPSAKE.c.first_seq.desc())
    .limit(1)
)
_FILLED: Final = Statement(
    select(KEEPSAKE.c.start_bytes + func.length(KEEPSAKE.c.raw))
    .order_by(KEEPSAKE.c.start_bytes.desc())
    .limit(1)
)
_DROP: Final = Statement(KEEPSAKE.delete().where(KEEPSAKE.c.start_bytes < bindparam("until")))
_FORGET: Final = Statement(KEEPSAKE.delete().where(_REPLICA, KEEPSAKE.c.first_seq == bindparam("seq")))
_PART_BLOCKS: Final = 64  # read at a time


class Work(Protocol):
    """Runs something in a transaction of the ledger's, and waits for it."""

    def __call__(self, work: Callable[[Connection], T], /) -> T: ...


class Keepsake:
    """The keepsake of one terminal. Every method waits for the disk."""

    def __init__(self, read: Work, write: Work, authors: Authors) -> None:
        self._read = read
        self._write = write
        self._authors = authors

    def meet(self, hubs: Iterable[AuthorCertificate]) -> None:
        """Remember the certificates of these hubs; one that is not the fleet's, or a key's second, is not."""
        refused: list[RefusedInput] = []
        stored = self._authors.stored()
        new = [hub for hub in self._authors.checked(hubs, refused) if hub.replica not in stored]

        if new:
            good, _ = self._write(lambda connection: self._authors.store(connection, new, refused))
            self._authors.remember(good)

    def wanted(self) -> Want | None:
        """What to ask the hub for next: the chain of which most is missing here. None when all is kept."""
        return self._read(lambda connection: _wanted(connection, self._hubs()))

    def keep(self, raws: Sequence[bytes]) -> int:
        """Keep blocks of one hub, which continue what is kept or begin anew; how many were kept.

        What is beyond the settlement installed here, or too much at once, is left out. Raises InputRefused
        when they are not a hub's, not in order, or not the chain that was settled; then nothing is kept.
        """
        given = [parse(raw) for raw in raws[: _fitting(raws, MAX_STEP_BYTES)]]
        if not given:
            return 0
        author = self._authors.seen.get(given[0].header.replica)
        if author is None:
            raise UnknownAuthor("there is no certificate for the hub whose block this is")
        if author.role is not Role.HUB:
            raise NotPermitted("only a hub's blocks are kept for it")
        for block in given:
            verify(block, author)
        _check_order(given)
        return self._write(lambda connection: _keep(connection, given))

    def lost(self) -> Frontier:
        """The hub's chains that can be continued from here: each with the head where the hub has to go on."""
        return self._read(lambda connection: _lost(connection, self._hubs()))

    def contradicted(self) -> list[ReplicaId]:
        """The hub's chains of which the installed settlement includes another branch than what is kept."""
        return self._read(lambda connection: _contradicted(connection, self._hubs()))

    def forget(self, raws: Sequence[bytes]) -> None:
        """Keep these blocks no longer: the hub has them as evidence."""

        def work(connection: Connection) -> None:
            for header in (parse(raw).header for raw in raws):
                _FORGET.run(connection, replica=header.replica, seq=header.first_seq)

        self._write(work)

    def heads(self) -> dict[ReplicaId, Head]:
        """The ends of the chains kept."""
        return self._read(lambda connection: _ends(connection, self._hubs()))

    def block_at(self, replica: ReplicaId, seq: int) -> bytes | None:
        """The last block kept of a hub that does not begin after `seq`; None where all do."""

        def work(connection: Connection) -> bytes | None:
            found: bytes | None = _AT.value(connection, replica=replica, seq=seq)
            return found

        return self._read(work)

    def blocks_after(self, replica: ReplicaId, seq: int, max_bytes: int) -> list[bytes]:
        """The blocks kept of a hub from after `seq` on, up to a hole: at most `max_bytes`, but at least one.

        Where `seq` is before all that is kept, or in a hole, they begin later.
        """
        return self._read(lambda connection: _blocks_after(connection, replica, seq, max_bytes))

    def _hubs(self) -> list[ReplicaId]:
        return [author.replica for author in [*self._authors.seen.values()] if author.role is Role.HUB]


def _wanted(connection: Connection, hubs: Sequence[ReplicaId]) -> Want | None:
    settled, ends = settled_heads_of(connection, hubs), _ends(connection, hubs)
    lags = {replica: head.seq - ends.get(replica, NO_HEAD).seq for replica, head in settled.items()}
    replica = max(lags, key=lambda each: (lags[each], each), default=None)
    if replica is None or lags[replica] <= 0:
        return None
    return Want({replica: max(ends.get(replica, NO_HEAD).seq, settled[replica].seq - REACH)})


def _check_order(given: Sequence[Block]) -> None:
    for before, block in pairwise(given):
        follows = block.header.first_seq == before.last_seq + 1 and block.header.previous == before.hash
        if block.header.replica != before.header.replica or not follows:
            raise ChainBroken("the hub's blocks are not in order")


def _keep(connection: Connection, given: Sequence[Block]) -> int:
    replica = given[0].header.replica
    settled = settled_heads_of(connection, [replica]).get(replica, NO_HEAD)
    kept = [block for block in given if block.last_seq <= settled.seq]
    if not kept:
        return 0
    first, end = kept[0].header, _ends(connection, [replica]).get(replica, NO_HEAD)
    if first.first_seq <= end.seq or (first.first_seq == end.seq + 1 and first.previous != end.hash):
        raise ChainBroken("the hub's blocks do not continue those that are kept")
    if kept[-1].last_seq == settled.seq and kept[-1].hash != settled.hash:
        raise ChainBroken("the hub's blocks are not those that it settled")
    rows, filled = [], int(_FILLED.value(connection) or 0)
    for block in kept:
        rows.append((filled, replica, block.header.first_seq, block.last_seq, block.hash, block.raw))
        filled += len(block.raw)
    _KEEP.run(connection, rows)
    _DROP.run(connection, until=filled - MAX_KEPT_BYTES)
    return len(kept)


def _lost(connection: Connection, hubs: Sequence[ReplicaId]) -> dict[ReplicaId, Head]:
    settled, ends = settled_heads_of(connection, hubs), _ends(connection, hubs)
    cut_offs = papers.revocations(connection).cut_offs
    lost = {}
    for replica, end in ends.items():
        head = settled.get(replica, NO_HEAD)
        if head.seq < min(end.seq, cut_offs.get(replica, end.seq)):
            found = _AFTER.row(connection, replica=replica, seq=head.seq, limit=1)
            if found is not None and _continues(parse(found[2]), head):
                lost[replica] = head
    return lost


def _contradicted(connection: Connection, hubs: Sequence[ReplicaId]) -> list[ReplicaId]:
    settled = settled_heads_of(connection, hubs)
    found = []
    for replica in _ends(connection, hubs):
        head = settled.get(replica, NO_HEAD)
        raw = _AT.value(connection, replica=replica, seq=head.seq + 1)
        block = None if raw is None else parse(raw)
        if (
            block is not None
            and block.last_seq >= head.seq
            and block.head != head
            and not _continues(block, head)
        ):
            found.append(replica)
    return found


def _continues(block: Block, head: Head) -> bool:
    return block.header.first_seq == head.seq + 1 and block.header.previous == head.hash


def _ends(connection: Connection, hubs: Iterable[ReplicaId]) -> dict[ReplicaId, Head]:
    found = {replica: _END.row(connection, replica=replica) for replica in hubs}
    return {replica: Head(*row) for replica, row in found.items() if row is not None}


def _blocks_after(connection: Connection, replica: ReplicaId, seq: int, max_bytes: int) -> list[bytes]:
    found: list[bytes] = []
    while rows := _AFTER.rows(connection, replica=replica, seq=seq, limit=_PART_BLOCKS):
        for first_seq, last_seq, raw in rows:
            max_bytes -= len(raw)
            if found and (first_seq != seq + 1 or max_bytes < 0):
                return found
            found.append(raw)
            seq = last_seq
    return found


def _fitting(raws: Sequence[bytes], limit_bytes: int) -> int:
    """How many of the first blocks have at most so many bytes; at least one."""
    for count, raw in enumerate(raws):
        limit_bytes -= len(raw)
        if count and limit_bytes < 0:
            return count
    return len(raws)
