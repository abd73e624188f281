"""Installs settlement pages: staged as they come, made to show all at once, never long in a tap's way.

Every step asks, in its own transaction, whether its ledger is still the one that writes to the database: what
another ledger builds is never tidied away, and nothing is built on a standing that has moved on.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate
from crdt.cursor import START, Cursor
from crdt.errors import ChainBroken, ForeignFleet, ForkDetected, NotPermitted
from crdt.facts import ReplicaId
from crdt.frontier import Head
from crdt.settlement import Page
from crdt.store.concession import contested, give_way
from crdt.store.identities import own_replicas, replaced_here
from crdt.store.local import LocalStore
from crdt.store.memory import Memory, Snapshot, read_snapshot
from crdt.store.owned import Owned
from crdt.store.settled import (
    CHUNK_ROWS,
    SMALL_ROWS,
    Standing,
    put_rows,
    read_standing,
    write_standing,
)
from crdt.store.staged_heads import (
    copy_some_heads,
    count_staged_heads,
    next_head_run,
    put_settled_heads,
    stage_heads,
    staged_heads,
    staged_heads_held,
    staged_heads_of,
)
from crdt.store.staged_rows import BATCH_SEGMENTS, merged, next_run, stage_rows, staged_places, staged_rows
from crdt.store.tidying import Tidying

T = TypeVar("T")


class _Built(NamedTuple):
    """The generations that were made for a settlement; 0: what there is of them is written with the swap."""

    rows: int = 0
    heads: int = 0


_NOTHING_BUILT: Final = _Built()


class Installer:
    """The settlement side of one terminal's ledger. Methods wait for the disk."""

    def __init__(self, database: LocalStore, memory: Memory, certificate: AuthorCertificate) -> None:
        self._database = database
        self._owned = Owned(database, memory)
        self._memory = memory
        self._fleet = certificate.fleet
        self._replica = certificate.replica
        self._one_at_a_time = threading.Lock()
        self.tidying = Tidying(database, memory)
        self.tidying.begin()

    def install(self, page: Page) -> bool:
        """See TerminalLedger.install."""
        with self._one_at_a_time:
            self._check(page)
            if page.final and self._is_small(page):
                broken_off = self._memory.standing.staged_generation
                self._show(page, _NOTHING_BUILT)
                if broken_off:
                    self.tidying.begin()
                return True
            for at in range(0, max(1, len(page.heads), 0 if page.base else len(page.rows)), CHUNK_ROWS):
                self._stage(page, at)
            if page.final:
                try:
                    self._show(page, self._build(page))
                finally:
                    self.tidying.leave(0)
                    self.tidying.begin()
            return page.final

    def contested(self, page: Page) -> dict[ReplicaId, Head]:
        """See TerminalLedger.contested."""
        return self._database.read_and_wait(lambda connection: self._contested(connection, page))

    def _check(self, page: Page) -> None:
        if page.fleet != self._fleet:
            raise ForeignFleet("the settlement belongs to another fleet")
        if not page.restarts and not page.continues(*self._memory.standing.next_page):
            raise ChainBroken("the settlement page does not continue what is installed and staged here")
        if page.final:
            if self._memory.was_replaced:
                raise _replaced()
            self._check_own_heads(page)

    def _check_own_heads(self, page: Page) -> None:
        """A settlement that includes what this terminal never wrote, or wrote otherwise, proves a fork."""
        for replica, head in self.contested(page).items():
            raise ForkDetected(
                f"the hub holds other facts of this terminal ({replica.hex()}, up to {head.seq})"
                " than this ledger does: its storage was restored or copied"
            )

    def _contested(self, connection: Connection, page: Page) -> dict[ReplicaId, Head]:
        own, settled = own_replicas(connection), dict(page.heads)
        standing = read_standing(connection)
        if standing.staged_series and not page.restarts:
            settled = staged_heads_of(connection, standing.staged_from, own) | settled
        return {replica: settled[replica] for replica in contested(connection, settled, self._replica, own)}

    def _is_small(self, page: Page) -> bool:
        begins = page.restarts or not self._memory.standing.staged_series
        return begins and len(page.rows) <= SMALL_ROWS and len(page.heads) <= SMALL_ROWS

    def _show(self, page: Page, built: _Built) -> None:
        def work(connection: Connection) -> Snapshot:
            if replaced_here(connection):  # meanwhile
                raise _replaced()
            since = read_standing(connection).staged_from
            moved = staged_heads_held(connection, since) if built.rows else page.heads
            _swap(connection, page, built)
            give_way(connection, moved, own_replicas(connection), self._memory.last_at_ms or 0)
            return read_snapshot(connection, self._replica)

        self._owned.write(work, self._memory.replaced)

    def _stage(self, page: Page, at: int) -> None:
        self._owned.write(partial(_stage_some, page=page, at=at), self._memory.stands)

    def _build(self, page: Page) -> _Built:
        """Make generations of what is staged; nobody sees them yet."""
        standing = self._memory.standing
        if not page.base:
            self._build_heads(standing.staged_from, standing.staged_generation)
            return _Built(standing.staged_generation, standing.staged_generation)
        self.tidying.sink()
        standing = self._owned.write(_new_generation, self._reserve)
        made, since = standing.last_generation, standing.staged_from
        self._build_rows(since, made)
        few = self._database.read_and_wait(lambda connection: count_staged_heads(connection, since))
        if few <= SMALL_ROWS:
            return _Built(made)
        self._copy_heads(standing.head_generation, made)
        self._build_heads(since, made)
        return _Built(made, made)

    def _reserve(self, standing: Standing) -> None:
        self.tidying.leave(standing.last_generation)
        self._memory.stands(standing)

    def _build_rows(self, since: int, into: int) -> None:
        """Merge all staged rows into a generation, in the order of its table."""
        places = self._database.read_and_wait(lambda connection: staged_places(connection, since))
        waiting: list[bytes] = []
        for at in range(0, len(places), BATCH_SEGMENTS):
            end = at + BATCH_SEGMENTS
            waiting += self._database.read_and_wait(partial(staged_rows, places=places[at:end]))
            rows, waiting = merged(waiting, places[end] if end < len(places) else None)
            for first in range(0, len(rows), CHUNK_ROWS):
                self._put_rows(into, rows[first : first + CHUNK_ROWS])

    def _put_rows(self, generation: int, rows: Sequence[tuple[Any, ...]]) -> None:
        self._owned.write(lambda connection: put_rows(connection, generation, rows))

    def _copy_heads(self, generation: int, into: int) -> None:
        after: bytes | None = b""
        while after is not None:
            step = partial(copy_some_heads, generation=generation, into=into, after=after, count=CHUNK_ROWS)
            after = self._owned.write(step)

    def _build_heads(self, since: int, into: int) -> None:
        """Put all staged heads into a generation, run by run: of a replica the last one stays."""

        def some(connection: Connection, since: int) -> int | None:
            found = next_head_run(connection, since)
            if found is not None:
                put_settled_heads(connection, into, found[1])
            return None if found is None else found[0] + 1

        following: int | None = since
        while following is not None:
            following = self._owned.write(partial(some, since=following))


def _replaced() -> NotPermitted:
    return NotPermitted("what is settled may include what this identity has still to write again")


def _stage_some(connection: Connection, page: Page, at: int) -> Standing:
    """Stage CHUNK_ROWS heads of a page as a run, and as many cards of a full load; of an increment, with the
    first, all its cards: these cost less.

    The cursor moves with the last, and says with the first already what the hub's position was. A page that
    was cut short is asked for again; of a row that comes twice the later one counts.
    """
    standing = read_standing(connection)
    run, until = next_run(connection, standing.staged_from), at + CHUNK_ROWS
    if at == 0 and (page.restarts or not standing.staged_series):
        standing = _begun(standing, page, run)
    if not page.base:
        put_rows(connection, standing.staged_generation, page.rows[at:until])
    elif at == 0:
        stage_rows(connection, run, page.rows)
    stage_heads(connection, run, dict(sorted(page.heads.items())[at:until]))
    parts = [page.heads] if page.base else [page.heads, page.rows]
    standing = _at(standing, page.until if until >= max(map(len, parts)) else page.begun)
    write_standing(connection, standing)
    return standing


def _begun(standing: Standing, page: Page, run: int) -> Standing:
    """With nothing staged; a full load gets a generation to fill."""
    last = standing.last_generation + (not page.base)
    return replace(
        standing,
        staged_series=page.series,
        staged_base=page.base,
        staged_from=run,
        last_generation=last,
        staged_generation=0 if page.base else last,
    )


def _at(standing: Standing, cursor: Cursor) -> Standing:
    position, card, replica, since, seen = cursor
    return replace(
        standing,
        staged_position=position,
        staged_card=card,
        staged_replica=replica,
        staged_since=since,
        staged_seen=seen,
    )


def _new_generation(connection: Connection) -> Standing:
    standing = read_standing(connection)
    standing = replace(standing, last_generation=standing.last_generation + 1)
    write_standing(connection, standing)
    return standing


def _swap(connection: Connection, page: Page, built: _Built) -> None:
    """Make the settlement of this final page show: what is built, and what is not is written here."""
    standing = read_standing(connection)
    rows, heads = ((), {}) if built.rows else (page.rows, page.heads)
    if built.rows and not built.heads:
        heads = staged_heads(connection, standing.staged_from)
    standing = _shown(standing, page, built)
    put_rows(connection, standing.overlay_generation or standing.base_generation, rows)
    put_settled_heads(connection, standing.head_generation, heads)
    standing = replace(
        _at(standing, START),
        series=page.series,
        position=page.position,
        staged_series=b"",
        staged_base=0,
        staged_generation=0,
        staged_from=next_run(connection, standing.staged_from),
    )
    write_standing(connection, standing)


def _shown(standing: Standing, page: Page, built: _Built) -> Standing:
    """With the generations of this page's settlement in place of those that show."""
    if page.base == 0:
        generation = built.rows or standing.last_generation + 1
        return replace(
            standing,
            base_generation=generation,
            overlay_generation=0,
            head_generation=generation,
            last_generation=max(generation, standing.last_generation),
        )
    if built.rows:
        shown = built.heads or standing.head_generation
        return replace(standing, overlay_generation=built.rows, head_generation=shown)
    return standing
