"""A terminal's ledger: taps in, blocks out, settlements in, and the exact view of every card in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, Final, TypedDict, TypeVar

from sqlalchemy import Connection, insert, select, update

from crdt.block import NOMINAL_BLOCK_DELTAS, Block
from crdt.block import seal as seal_block
from crdt.certificate import AuthorCertificate
from crdt.documents import SignedDocument
from crdt.errors import ForeignFleet, MisuseError, NotPermitted
from crdt.facts import (
    MAX_AT_MS,
    NEW_CARD,
    NO_CONTEXT,
    Books,
    CardId,
    CardView,
    Context,
    Delta,
    Draft,
    ReplicaId,
    check_card,
)
from crdt.frontier import Head
from crdt.settlement import REFUSED, Cursor, Page
from crdt.signing import SigningKey, fleet_id
from crdt.store import blocks, papers, view
from crdt.store.blocks import SegmentRow
from crdt.store.database import Database
from crdt.store.installer import Installer
from crdt.store.marks import Marks
from crdt.store.memory import Memory
from crdt.store.schema import METADATA, OPEN_DELTA, TERMINAL, inserting
from crdt.store.settled import FIND, Standing
from crdt.store.trouble import Trouble
from crdt.store.writer import Direct

T = TypeVar("T")

MAX_SEAL_DELTAS: Final = 2 * NOMINAL_BLOCK_DELTAS  # of one block, when sealing was late
_INSERT: Final = inserting(OPEN_DELTA)


class Status(TypedDict):
    """What a terminal says of its ledger."""

    held: int  # deltas beyond the settlement
    held_minor: int  # their sum
    open: int  # deltas not sealed yet
    head_seq: int  # number of the last delta written here
    position: int  # the settlement installed


class TerminalLedger:
    """The ledger of one terminal, on an open database. The last one made on it is the one that counts.

    One made before has retired, with its memory out of date: `transact`, `view`, `seal`, `install` and
    `put_document` raise MisuseError, and its housekeeping has ended. So a new identity takes over at once
    and for good, whatever the old one was in the middle of; what it was building is begun anew.

    The thread that taps calls `transact`; `seal`, `blocks_after` and `install` are for the thread that syncs.
    Any of them may run at the same time; a tap goes first. They wait for the disk, so none is for an event
    loop, except `held`, `own_head`, `settled`, `status` and `last_at_ms`, which answer from memory.
    """

    def __init__(
        self,
        database: Database,
        fleet_public_key: bytes,
        key: SigningKey,
        certificate: AuthorCertificate,
        marks: Marks | None = None,
    ) -> None:
        """Load the ledger, or begin it. `certificate`: a verified one for `key`. `marks`: those beside it.

        Raises ForeignFleet when the database belongs to another fleet, MisuseError when another replica left
        unsealed taps in it (seal them with its key first), StoreFailed when it does not read back.
        """
        fleet = fleet_id(fleet_public_key)
        if certificate.fleet != fleet or certificate.replica != key.replica:
            raise MisuseError("a terminal's certificate is for its own key and fleet")
        self._database = database
        self._direct = database.direct
        self._fleet = fleet
        self._key = key
        self._certificate = certificate
        self._marks = marks
        self._sealing = False
        self._trouble = Trouble(
            database,
            "A full segment of taps was not sealed; the taps are safe, and the next one tries again.",
        )
        database.create(METADATA)
        restored = False
        if marks is not None:
            restored = database.read_and_wait(lambda connection: _was_put_back(connection, marks))
            marks.save()
        self._memory = database.write_and_wait(lambda connection: self._begin(connection, restored))
        if marks is not None:
            marks.started()
        self._installer = Installer(database, self._memory, fleet, key.replica)

    @property
    def replica(self) -> ReplicaId:
        """Who writes here."""
        return self._key.replica

    def transact(
        self,
        card: CardId,
        choose: Callable[[CardView], tuple[Sequence[Draft], T]],
        at_ms: int,
        context: Context = NO_CONTEXT,
    ) -> T:
        """Decide on a card and write what was decided; durable on return. A tap, on the thread that calls.

        `choose` gets the card's view and returns the drafts to write and the result; it runs while nobody
        else may write, so it is quick and does not use the ledger. Without drafts nothing is written; when it
        raises, neither. Raises NotPermitted when the certificate does not allow a draft, StoreFailed.
        """
        check_card(card)
        with self._direct as sql:
            self._database.check_owner(self._memory)
            sql.begin()
            drafts, result = choose(self._view(sql, card))
            if drafts:
                self._append(sql, card, drafts, at_ms, context)
        if len(self._memory.segment) >= NOMINAL_BLOCK_DELTAS:
            self._seal_later()
        return result

    def view(self, card: CardId) -> CardView:
        """What this terminal believes of a card now."""
        check_card(card)
        with self._direct as sql:
            self._database.check_owner(self._memory)
            return self._view(sql, card)

    def seal(self) -> Block | None:
        """Seal every tap made before this call; returns the last block made, None when nothing was open."""
        self._database.check_may_wait()
        self._database.check_owner(self._memory)
        until = self._memory.last_seq
        last = None
        while self._memory.head.seq < until:
            block = self._draft_block()
            if block is not None and self._database.wait(self._store(block)):
                last = block
        return last

    def blocks_after(self, seq: int, max_bytes: int, replica: ReplicaId | None = None) -> list[bytes]:
        """Sealed blocks of a replica (None: this one) after `seq`: at most `max_bytes`, but at least one."""
        author = self.replica if replica is None else replica
        return self._read(lambda connection: blocks.blocks_after(connection, author, seq, max_bytes))

    def own_head(self) -> Head:
        """The end of this replica's sealed chain; Head(0, GENESIS) when nothing was sealed."""
        with self._memory.mutex:
            return self._memory.head

    def frontier(self) -> dict[ReplicaId, Head]:
        """The heads of all chains held as blocks: this replica's, and those of earlier identities."""
        return self._read(blocks.heads_of)

    def authors(self) -> dict[ReplicaId, AuthorCertificate]:
        """The certificates that verify the blocks held."""
        return self._read(blocks.authors_of)

    def settled(self) -> tuple[bytes, int, Cursor]:
        """What to ask the hub for next: series, the position installed, and the cursor to go on after."""
        with self._memory.mutex:
            return self._memory.standing.next_page

    def install(self, page: Page) -> bool:
        """Take a verified settlement page; True when it was final and its settlement shows now.

        Pages are staged as they come and survive a restart; what shows changes at once, with the last. Raises
        ForeignFleet, ChainBroken (it does not continue what `settled` says) or ForkDetected (the hub settled
        blocks that this ledger did not write); then nothing changes.
        """
        return self._installer.install(page)

    def document(self, name: str) -> SignedDocument | None:
        """The newest settings document of this name; None when none was put."""
        return self._read(lambda connection: papers.get_document(connection, name))

    def put_document(self, document: SignedDocument) -> bool:
        """Keep a verified settings document. False, and no change, unless it is newer than the one kept."""
        if document.fleet != self._fleet:
            raise ForeignFleet("the document belongs to another fleet")

        def work(connection: Connection) -> bool:
            self._database.check_owner(self._memory)
            return papers.put_document(connection, document)

        return self._database.write_and_wait(work)

    def held(self) -> tuple[int, int]:
        """How many deltas are held beyond the settlement, and their sum in minor units."""
        with self._memory.mutex:
            return self._memory.held.count, self._memory.held.sum_minor

    def last_at_ms(self) -> int | None:
        """The time of the last delta written here, by any identity it had; None when there is none."""
        with self._memory.mutex:
            return self._memory.last_at_ms

    def status(self) -> Status:
        """Numbers for people, all of one instant."""
        memory = self._memory
        with memory.mutex:
            return Status(
                held=memory.held.count,
                held_minor=memory.held.sum_minor,
                open=len(memory.segment),
                head_seq=memory.last_seq,
                position=memory.standing.position,
            )

    def digest(self) -> bytes:
        """The state digest of all this ledger knows; the hub's, once all is settled. Reads every card."""
        return self._read(view.believed_digest)

    def books(self) -> Books:
        """The proof that this ledger's balances are its deltas. Reads every card."""
        return self._read(view.believed_books)

    def history(self, card: CardId, limit: int = 20) -> list[Delta]:
        """The last facts about a card that are held here, newest first."""
        return self._read(lambda connection: view.card_history(connection, self.replica, card, limit))

    def _begin(self, connection: Connection, restored: bool) -> Memory:
        row = connection.execute(
            select(TERMINAL.c.fleet, TERMINAL.c.replica, TERMINAL.c.suspended)
        ).one_or_none()
        if row is None:
            first = {"fleet": self._fleet, "replica": self.replica, "suspended": int(restored)}
            connection.execute(insert(TERMINAL).values(**first, **asdict(Standing())))
        elif row.fleet != self._fleet:
            raise ForeignFleet("this ledger belongs to another fleet; give the terminal a new ledger file")
        elif row.replica != self.replica:
            if connection.execute(select(OPEN_DELTA.c.seq).limit(1)).first() is not None:
                raise MisuseError(
                    "seal the open taps with the old key before a new one takes the ledger over"
                )
            connection.execute(update(TERMINAL).values(replica=self.replica, suspended=0))
        elif restored:
            connection.execute(update(TERMINAL).values(suspended=1))
        if self._marks is not None:
            connection.execute(update(TERMINAL).values(nonce=self._marks.nonce))
        if blocks.enrol(connection, [self._certificate])[1]:
            raise MisuseError("this key has another certificate in this ledger already")
        memory = Memory.load(connection, self.replica)
        self._database.own(memory)  # last: where anything above raises, the ledger before goes on
        return memory

    def _view(self, sql: Direct, card: CardId) -> CardView:
        memory = self._memory
        standing = memory.standing
        row = None
        if standing.overlay_generation:
            row = sql.row(FIND, (standing.overlay_generation, card))
        if row is None:
            row = sql.row(FIND, (standing.base_generation, card))
        held = memory.held.cards.get(card)
        sum_minor, opening_minor = held or NEW_CARD
        hotlisted = False
        if row is not None:
            sum_minor += row[0]
            opening_minor = max(opening_minor, row[1])
            hotlisted = bool(row[2] & REFUSED)
        known = row is not None or held is not None
        return CardView(card, known, sum_minor + opening_minor, hotlisted, memory.fares[card])

    def _append(
        self, sql: Direct, card: CardId, drafts: Sequence[Draft], at_ms: int, context: Context
    ) -> None:
        if type(at_ms) is not int or not 0 <= at_ms <= MAX_AT_MS:
            raise MisuseError("a time is an integer from 0 to 2**48 - 1, in ms")
        place = (context.route, context.trip, context.stop, context.clock_epoch, context.clock_error_ms)
        rows: list[SegmentRow] = []
        for seq, draft in enumerate(drafts, self._memory.last_seq + 1):
            if not self._certificate.permits(draft.kind, draft.amount_minor):
                raise NotPermitted(f"this terminal may not write a {draft.kind.name} of {draft.amount_minor}")
            rows.append((seq, card, int(draft.kind), draft.amount_minor, at_ms, *place))
        sql.commit(_INSERT, rows)
        self._memory.wrote(card, rows)

    def _draft_block(self) -> Block | None:
        """The open segment as a block, or None when it is empty."""
        with self._memory.mutex:
            rows = self._memory.segment[:MAX_SEAL_DELTAS]
            previous = self._memory.head.hash
        deltas = [blocks.delta_of(self.replica, row[0], row[1:]) for row in rows]
        return seal_block(self._key, self._fleet, deltas, previous) if deltas else None

    def _store(self, block: Block) -> Future[bool]:
        """Put a drafted block in the open segment's place; False when another was quicker."""

        def work(connection: Connection) -> bool:
            self._database.check_owner(self._memory)
            head, credit_minor = blocks.chains_of(connection, [self.replica]).get(
                self.replica, blocks.NO_CHAIN
            )
            if head.hash != block.header.previous:
                return False
            blocks.store_blocks(connection, [block])
            credit_minor += blocks.facts_of(block).credit_minor()
            blocks.put_heads(connection, [(self.replica, block.head, credit_minor)])
            connection.execute(OPEN_DELTA.delete().where(OPEN_DELTA.c.seq <= block.last_seq))
            return True

        def after(stored: bool) -> None:
            if stored:
                self._memory.sealed(block.head)

        return self._database.write(work, after=after)

    def _seal_later(self) -> None:
        """Seal the full segment without making a tap wait: encoded by a reader, stored by the writer."""
        if not self._sealing:
            self._sealing = True
            self._database.read(lambda _connection: self._draft_block()).add_done_callback(self._drafted)

    def _drafted(self, drafted: Future[Block | None]) -> None:
        if drafted.cancelled() or drafted.exception() is not None:
            self._stored(drafted)
        elif (block := drafted.result()) is None:
            self._sealing = False
        else:
            self._store(block).add_done_callback(self._stored)

    def _stored(self, stored: Future[Any]) -> None:
        self._sealing = False
        if self._database.is_owner(self._memory):
            self._trouble.judge(stored)

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._database.read_and_wait(work)


def _was_put_back(connection: Connection, marks: Marks) -> bool:
    """Whether this database is an older copy of the one that was here last."""
    row = connection.execute(select(TERMINAL.c.nonce, TERMINAL.c.replica)).one_or_none()
    if row is None:
        return marks.check_start(None, {}, ())
    return marks.check_start(row.nonce, blocks.heads_of(connection), [ReplicaId(row.replica)])
