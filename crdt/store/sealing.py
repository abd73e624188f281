"""Sealing: the open segment becomes a block, in the background when it is full, at once when asked."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam

from crdt.block import NOMINAL_BLOCK_DELTAS, Block, contents
from crdt.block import seal as seal_block
from crdt.certificate import AuthorCertificate
from crdt.errors import NotPermitted
from crdt.facts import Kind
from crdt.signing import SigningKey
from crdt.store import blocks, segment
from crdt.store.identities import is_suspended
from crdt.store.local import LocalStore
from crdt.store.marks import Marks
from crdt.store.memory import Memory
from crdt.store.statement import Statement
from crdt.store.terminal_schema import OPEN_DELTA
from crdt.store.trouble import Trouble

MAX_SEAL_DELTAS: Final = 2 * NOMINAL_BLOCK_DELTAS  # of one block, when sealing was late

_DELETE_OPEN: Final = Statement(OPEN_DELTA.delete().where(OPEN_DELTA.c.place <= bindparam("last")))


class _Draft(NamedTuple):
    """A block that is not stored yet, and where the last of its facts stands in the open segment."""

    block: Block
    last_place: int


class Sealer:
    """Seals one terminal's open segment, and moves the high-water mark after it."""

    def __init__(
        self,
        database: LocalStore,
        memory: Memory,
        key: SigningKey,
        certificate: AuthorCertificate,
        marks: Marks | None,
    ) -> None:
        self._database = database
        self._memory = memory
        self._key = key
        self._certificate = certificate
        self._marks = marks
        self._sealing = False
        self._trouble = Trouble(
            database,
            "A full segment of taps was not sealed; the taps are safe, and the next one tries again.",
        )
        self._mark_trouble = Trouble(
            database,
            "The high-water mark was not written; until it is, a ledger put back may go unnoticed.",
        )

    def seal(self) -> Block | None:
        """See TerminalLedger.seal."""
        self._database.check_may_wait()
        self._database.check_owner(self._memory)
        until = self._memory.last_seq
        last = None
        while not self._memory.suspended and self._memory.head.seq < until:
            draft = self._draft()
            if draft is not None and self._database.wait(self._store(draft)):
                last = draft.block
        return last

    def seal_later(self) -> None:
        """Seal the full segment without making a tap wait: encoded by a reader, stored by the writer."""
        if not self._sealing and not self._memory.suspended:
            self._sealing = True
            self._database.read(lambda _connection: self._draft()).add_done_callback(self._drafted)

    def _draft(self) -> _Draft | None:
        """The open segment as a block, or None when it is empty. Raises NotPermitted.

        A tap writes nothing that is not permitted; what an earlier identity wrote may not be.
        """
        with self._memory.mutex:
            rows = self._memory.segment[:MAX_SEAL_DELTAS]
            head = self._memory.head
        for row in rows:
            if not self._certificate.permits(Kind(row[2]), row[3]):
                raise NotPermitted(f"this terminal may not seal the {Kind(row[2]).name} of {row[3]} it holds")
        if not rows:
            return None
        deltas = segment.numbered(self._key.replica, head.seq, rows)
        return _Draft(seal_block(self._key, self._certificate.fleet, deltas, head.hash), rows[-1][0])

    def _store(self, draft: _Draft) -> Future[bool]:
        """Put a drafted block in the open segment's place; False when another was quicker."""
        replica, block = self._key.replica, draft.block
        credit_minor = contents(block).credit_minor()

        def work(connection: Connection) -> bool:
            self._database.check_owner(self._memory)
            chain = blocks.chains_of(connection, [replica]).get(replica, blocks.NO_CHAIN)
            if chain.head.hash != block.header.previous or is_suspended(connection):
                return False
            self._certificate.check_allowance(chain.credit_minor + credit_minor)
            blocks.store_blocks(connection, [block])
            blocks.put_heads(connection, [(replica, block.head, chain.credit_minor + credit_minor)])
            _DELETE_OPEN.run(connection, last=draft.last_place)
            return True

        def after(stored: bool) -> None:
            if stored:
                self._memory.sealed(block.head)
                self._mark(block)

        return self._database.write(work, after=after)

    def _mark(self, block: Block) -> None:
        """Move the mark, in the background: it may lag, and only what is on disk is marked."""
        if self._marks is not None:
            marks = self._marks
            marks.advance({self._key.replica: block.head})
            saved = self._database.read(lambda _connection: marks.save())
            saved.add_done_callback(self._mark_trouble.judge)

    def _drafted(self, drafted: Future[_Draft | None]) -> None:
        if drafted.cancelled() or drafted.exception() is not None:
            self._stored(drafted)
        elif (draft := drafted.result()) is None:
            self._sealing = False
        else:
            self._store(draft).add_done_callback(self._stored)

    def _stored(self, stored: Future[Any]) -> None:
        self._sealing = False
        if self._database.is_owner(self._memory):
            self._trouble.judge(stored)
