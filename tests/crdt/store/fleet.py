"""A hub and terminals on real encrypted files, and what every one of them should believe."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crdt.block import Block, contents
from crdt.facts import (
    NEW_CARD,
    NO_CONTEXT,
    CardId,
    CardState,
    CardView,
    Context,
    Delta,
    Draft,
    Kind,
    ReplicaId,
)
from crdt.frontier import Head
from crdt.ledger import MergeReport
from crdt.protocol import MAX_PAGE_ROWS
from crdt.settlement import SERIES_BYTES, Page, verify_page
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from crdt.store.marks import Marks
from crdt.store.store import Store
from crdt.store.terminal import TerminalLedger
from tests.crdt import world

KEY = bytes(range(32))
OPENING_MINOR = 500


def card(number: int) -> CardId:
    """Card `number`."""
    return CardId(b"\x04" + number.to_bytes(6, "big"))


@dataclass
class OpenTerminal:
    """A terminal of the test world, with its ledger open. Keeps account of what it did."""

    author: world.Terminal
    path: Path
    written: list[Delta] = field(default_factory=list)  # acknowledged, in order
    settled_heads: dict[ReplicaId, Head] = field(default_factory=dict)
    staged_heads: dict[ReplicaId, Head] = field(default_factory=dict)
    marked: bool = False  # whether there are high-water marks beside the database

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        """Open the database and the ledger."""
        self.database = Database.open(self.path, KEY, layout=TERMINAL_LAYOUT)
        try:
            self.marks = Marks.open(self.path.with_suffix(".marks")) if self.marked else None
            self.ledger = self._ledger()
        except BaseException:
            self.database.close()
            raise

    def reopen(self) -> None:
        """As after a restart."""
        self.database.close()
        self.open()

    def image(self, to: Path) -> Path:
        """A copy of the database as it is now, without the marks; the terminal is started again."""
        self.database.close()
        to.mkdir(parents=True)
        for file in self.files():
            shutil.copy(file, to)
        self.open()
        return to

    def restore(self, image: Path) -> None:
        """Put an image back in the database's place, and start."""
        self.database.close()
        for file in self.files():
            file.unlink()
        for file in image.iterdir():
            shutil.copy(file, self.path.parent)
        self.open()

    def files(self) -> list[Path]:
        """The database's files."""
        return [file for file in self.path.parent.glob(self.path.name + "*") if file.suffix != ".marks"]

    def become(self, author: world.Terminal) -> None:
        """A new identity takes over."""
        self.author = author
        self.ledger = self._ledger()

    def _ledger(self) -> TerminalLedger:
        return TerminalLedger(
            self.database,
            world.FLEET_KEY.public_key,
            self.author.key,
            self.author.certificate,
            self.marks,
        )

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def write(
        self,
        which: CardId,
        drafts: Sequence[Draft],
        at_ms: int | None = None,
        context: Context = NO_CONTEXT,
    ) -> CardView:
        """Write the drafts in one transaction; the view before it. `at_ms`: None for one of its own."""
        at_ms = 1_000 + self.author.certificate.terminal[-1] if at_ms is None else at_ms
        view = self.ledger.transact(which, lambda view: (drafts, view), at_ms, context)
        for draft in drafts:
            self.written.append(
                Delta(
                    self.ledger.replica,
                    len(self.written) + 1,
                    which,
                    draft.kind,
                    draft.amount_minor,
                    at_ms,
                    context,
                )
            )
        return view

    def tap(self, which: CardId, at_ms: int | None = None) -> CardView:
        """A ride for 250, with an opening balance on a card not met before; the view before it."""
        fare = Draft(Kind.FARE, -250)
        known = self.ledger.view(which).known
        return self.write(which, [fare] if known else [Draft(Kind.OPENING, OPENING_MINOR), fare], at_ms)


class Fleet:
    """The world of a test: a hub, some terminals, and every delta that was ever acknowledged."""

    hub_database: Store

    def __init__(self, directory: Path, terminals: int, *, marked: bool = False) -> None:
        self._directory = directory
        self._distance = 0
        self.open_hub()
        self.terminals = [
            OpenTerminal(world.terminal(number), directory / f"terminal{number}.db", marked=marked)
            for number in range(1, terminals + 1)
        ]
        self.booked: list[Delta] = []  # the hub's own
        self.blocked: set[CardId] = set()

    def open_hub(self) -> None:
        """Open the hub's database and ledger."""
        self.hub_database = Database.open(self._directory / "hub.db", KEY, readers=2)
        self.hub = HubLedger(
            self.hub_database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB, entropy=self._entropy
        )

    def _entropy(self, length: int) -> bytes:
        """Instead of randomness: the series, and another distance for each run of positions."""
        if length == SERIES_BYTES:
            return b"S" * length
        self._distance += 1000
        return self._distance.to_bytes(length, "big")

    def close(self) -> None:
        """Close everything."""
        self.hub_database.close()
        for terminal in self.terminals:
            terminal.close()

    def book(self, which: CardId, draft: Draft) -> None:
        """A fact of the hub's own."""
        self.hub.append(which, [draft], 5_000).result()
        seq = len(self.booked) + 1
        self.booked.append(Delta(self.hub.replica, seq, which, draft.kind, draft.amount_minor, 5_000))

    def push(self, terminal: OpenTerminal) -> MergeReport:
        """Seal and send everything the hub lacks of the terminal."""
        terminal.ledger.seal()
        return self.send(terminal)

    def send(self, terminal: OpenTerminal, max_bytes: int = 1 << 20) -> MergeReport:
        """Send some of what is sealed and the hub lacks."""
        replica = terminal.ledger.replica
        head = self.hub.heads([replica]).result().get(replica)
        raws = terminal.ledger.blocks_after(head.seq if head else 0, max_bytes)
        return self.hub.merge(raws, [terminal.author.certificate]).result()

    def next_page(self, terminal: OpenTerminal, limit: int = MAX_PAGE_ROWS) -> Page:
        """The verified page the terminal would get now."""
        page = self.hub.page(*terminal.ledger.settled(), limit).result()
        return verify_page(page, world.HUB)

    def pull_one(self, terminal: OpenTerminal, limit: int = MAX_PAGE_ROWS) -> bool:
        """Pull one page; whether it was the final one."""
        return self.install(terminal, self.next_page(terminal, limit))

    def install(self, terminal: OpenTerminal, page: Page) -> bool:
        """Give the terminal this page; whether it was the final one."""
        staged = terminal.staged_heads  # changed in place: a ledger that takes over goes on with it
        if page.restarts:
            staged.clear()
        staged.update(page.heads)
        done = terminal.ledger.install(page)
        if done:
            heads = {} if page.base == 0 else terminal.settled_heads
            terminal.settled_heads = {**heads, **staged}
            staged.clear()
        return done

    def pull(self, terminal: OpenTerminal, limit: int = MAX_PAGE_ROWS) -> None:
        """Pull until the settlement shows."""
        while not self.pull_one(terminal, limit):
            pass

    def heal(self) -> None:
        """Everybody sends everything, then everybody pulls everything."""
        for terminal in self.terminals:
            assert not self.push(terminal).refused
        for terminal in self.terminals:
            self.pull(terminal)

    def facts(self) -> list[Delta]:
        """Every acknowledged delta of the world."""
        return [*self.booked, *(delta for terminal in self.terminals for delta in terminal.written)]

    def believed_by(self, terminal: OpenTerminal) -> dict[CardId, CardState]:
        """What the terminal should believe: everything settled there, and everything of its own, once."""
        own = terminal.ledger.replica
        nothing = Head(0, b"")
        return added_up(
            delta
            for delta in self.facts()
            if delta.replica == own or delta.seq <= terminal.settled_heads.get(delta.replica, nothing).seq
        )


def added_up(deltas: Iterable[Delta]) -> dict[CardId, CardState]:
    """The cards of these deltas and their states."""
    cards: dict[CardId, CardState] = {}
    for delta in deltas:
        cards[delta.card] = cards.get(delta.card, NEW_CARD).plus(delta.kind, delta.amount_minor)
    return cards


def deltas_of(block: Block) -> tuple[Delta, ...]:
    """The facts of a block."""
    return contents(block).deltas(block.header.replica, block.header.first_seq)
