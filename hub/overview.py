"""What a person may look at: terminals, latest taps, a card with its history, totals. Read-only.

All methods are coroutines that never block the event loop; money is in minor units, times in milliseconds
since the epoch, cards and ids in upper- and lower-case hex respectively.
"""

from dataclasses import dataclass

from crdt.facts import Kind

MAX_ROWS = 500  # most rows one call returns


@dataclass(frozen=True, slots=True)
class TerminalRow:
    """One terminal: what the hub knows and what the terminal last said of itself."""

    terminal: str  # terminal id, hex
    name: str
    replica: str  # its current replica id, hex
    online: bool  # heard of within the setting `terminals.online_s`
    revoked: bool
    last_seen_ms: int | None  # None: paired, never synced
    held: int | None  # deltas it said it holds beyond the settlement; None: never said
    held_minor: int | None
    head_seq: int  # the last delta of its replica that the hub holds; 0: none
    reported_seq: int | None  # the last delta the terminal said it has written
    position: int | None  # the settlement position the terminal said it has installed
    address: str  # where it last came from; "" if unknown


@dataclass(frozen=True, slots=True)
class TapRow:
    """One ledger fact as people read it. Not only taps: top-ups and corrections too."""

    replica: str
    seq: int
    terminal: str  # name of the terminal, "hub" for the hub's own
    card: str
    kind: Kind
    amount_minor: int  # negative for a fare
    at_ms: int  # the author's clock, which may be wrong
    clock_error_ms: int
    route: str
    trip: str
    stop: str


@dataclass(frozen=True, slots=True)
class CardPage:
    """One card: balance now, and its latest facts, newest first (a projection that may lag by a moment)."""

    card: str
    known: bool  # False: no terminal and no operator has met it
    balance_minor: int
    hotlisted: bool
    history: tuple[TapRow, ...]


@dataclass(frozen=True, slots=True)
class CardRow:
    """One card in a list."""

    card: str
    balance_minor: int
    hotlisted: bool


@dataclass(frozen=True, slots=True)
class Totals:
    """The books at one instant. deltas_minor == balances_minor + voided_minor, or something is broken."""

    cards: int
    deltas: int
    deltas_minor: int
    balances_minor: int
    voided_minor: int  # openings given twice offline and counted once
    position: int  # settlement position
    digest: str  # state digest, hex; equal digests mean equal ledgers
    terminals: int
    terminals_online: int

    @property
    def balanced(self) -> bool:
        """Whether the books balance."""
        return self.deltas_minor == self.balances_minor + self.voided_minor


class Overview:
    """The read side of the hub."""

    async def terminals(self) -> list[TerminalRow]:
        """Every terminal that was ever paired, by name."""
        raise NotImplementedError

    async def latest(self, limit: int = 50) -> list[TapRow]:
        """The latest facts of all cards in the order the hub learnt them, newest first."""
        raise NotImplementedError

    async def card(self, card: str, limit: int = 100) -> CardPage:
        """One card by its hex id (any case, spaces and colons allowed); RequestRefused for no card id."""
        raise NotImplementedError

    async def cards(self, after: str = "", limit: int = 100) -> list[CardRow]:
        """Cards in the order of their ids, after `after` (hex; "" for the first page)."""
        raise NotImplementedError

    async def totals(self) -> Totals:
        """The books, the digest and how many terminals are online."""
        raise NotImplementedError
