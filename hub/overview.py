"""What a person may look at: terminals, latest taps, a card with its history, totals. Read-only.

All methods are coroutines that never block the event loop; money is in minor units, times in milliseconds
since the epoch, cards in upper-case hex and other ids in lower-case hex.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from crdt.certificate import AuthorCertificate
from crdt.facts import CardId, Delta, Kind, ReplicaId, TerminalId
from crdt.frontier import Head
from crdt.settlement import HOTLISTED, OVERDRAWN
from crdt.store.hub import HubLedger
from hub.authornames import author_name
from hub.cardids import card_text, parse_card
from hub.registry import Registry, Terminal
from hub.sums import Sums
from hub.terminal_row import TerminalRow

MAX_ROWS = 500  # most rows one call returns
CHANGING_MS = 120_000  # that a terminal may take to change to a new certificate


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
    voided: bool  # an opening balance beside a higher or an older one: it does not count (invariant 11)


@dataclass(frozen=True, slots=True)
class CardPage:
    """One card: balance now, and its latest facts, newest first (a projection that may lag by a moment)."""

    card: str
    known: bool  # False: no terminal and no operator has met it
    balance_minor: int
    blocked: bool  # by an operator
    overdrawn: bool  # owes more than one terminal may lend; refused by itself until it is paid
    history: tuple[TapRow, ...]
    behind: bool  # the balance may include facts that the history does not show yet


@dataclass(frozen=True, slots=True)
class CardRow:
    """One card in a list."""

    card: str
    balance_minor: int
    blocked: bool  # by an operator
    overdrawn: bool  # owes more than one terminal may lend; refused by itself until it is paid


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

    def __init__(
        self,
        ledger: HubLedger,
        registry: Registry,
        online_s: int,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._online_ms = online_s * 1000
        self._now_ms = now_ms
        self._sums = Sums(ledger, monotonic)
        ledger.on_commit(self._sums.changed)

    async def terminals(self) -> list[TerminalRow]:
        """Every terminal that was ever paired, by name."""
        return await self._rows(await self._registry.terminals())

    async def terminal(self, terminal: str) -> TerminalRow | None:
        """One of them by its id in hex; None where there is none such."""
        try:
            found = await self._registry.terminal(TerminalId(bytes.fromhex(terminal)))
        except ValueError:
            return None
        return None if found is None else (await self._rows([found]))[0]

    async def put_back(self) -> list[TerminalRow]:
        """Those in service whose storage is an old copy now, see `TerminalRow.put_back`; by name."""
        rows = await self._rows(await self._registry.once_put_back())
        return [row for row in rows if row.put_back and not row.revoked]

    async def latest(self, limit: int = 50) -> list[TapRow]:
        """The latest facts of all cards in the order the hub learnt them, newest first."""
        latest = await asyncio.wrap_future(self._ledger.latest(_bounded(limit)))
        return await self._taps(latest)

    async def card(self, card: str, limit: int = 100) -> CardPage:
        """One card by its hex id (any case, spaces and colons allowed); RequestRefused for no card id."""
        card_id = parse_card(card)
        row = await asyncio.wrap_future(self._ledger.card(card_id))
        # Asked before the history is read: what was in the balance by then is in the history after it.
        behind = await asyncio.wrap_future(self._ledger.lag()) > 0
        history = await asyncio.wrap_future(self._ledger.history(card_id, _bounded(limit)))
        balance_minor = 0 if row is None else row.state.balance_minor
        flags = 0 if row is None else row.flags
        taps = tuple(await self._taps(history))
        blocked, overdrawn = bool(flags & HOTLISTED), bool(flags & OVERDRAWN)
        return CardPage(card_text(card_id), row is not None, balance_minor, blocked, overdrawn, taps, behind)

    async def cards(self, after: str = "", limit: int = 100) -> list[CardRow]:
        """Cards in the order of their ids, after `after` (hex; "" for the first page)."""
        start = parse_card(after) if after else b""
        rows = await asyncio.wrap_future(self._ledger.cards(start, _bounded(limit)))
        return [
            CardRow(
                card_text(row.card),
                row.state.balance_minor,
                bool(row.flags & HOTLISTED),
                bool(row.flags & OVERDRAWN),
            )
            for row in rows
        ]

    async def totals(self) -> Totals:
        """The books, the digest and how many terminals are online.

        On a large ledger the sums may be some moments old: they read every card, and so are made at most in a
        tenth of the time.
        """
        sums, digest = await self._sums.get()
        seen = await self._registry.seen()
        return Totals(
            cards=sums.cards,
            deltas=sums.deltas,
            deltas_minor=sums.books.deltas_minor,
            balances_minor=sums.books.balances_minor,
            voided_minor=sums.books.voided_minor,
            position=sums.position,
            digest=digest.hex(),
            terminals=len(seen),
            terminals_online=sum(map(self._is_recent, seen)),
        )

    async def _rows(self, terminals: Sequence[Terminal]) -> list[TerminalRow]:
        if not terminals:
            return []
        few = [one.replica for one in terminals] if len(terminals) <= MAX_ROWS else None  # many: all at once
        heads = await asyncio.wrap_future(self._ledger.heads(few))
        authors = self._ledger.authors()
        found = await asyncio.wrap_future(self._ledger.silent())
        silent = Counter(authors[one.replica].terminal for one in found if one.replica in authors)
        # Of a large fleet it takes a tenth of a second.
        return await asyncio.to_thread(
            lambda: [self._terminal(one, heads, silent[one.terminal]) for one in terminals]
        )

    def _terminal(self, row: Terminal, heads: Mapping[ReplicaId, Head], silent: int) -> TerminalRow:
        head = heads.get(row.replica)
        return TerminalRow(
            terminal=row.terminal.hex(),
            name=row.name,
            route=_text(row.status.get("route")),
            replica=row.replica.hex(),
            online=row.revoked_ms is None and self._is_recent(row.seen_ms),
            revoked=row.revoked_ms is not None,
            last_seen_ms=row.seen_ms,
            held=_whole(row.status.get("held")),
            held_minor=_whole(row.status.get("held_minor")),
            head_seq=0 if head is None else head.seq,
            reported_seq=_whole(row.status.get("head_seq")),
            position=_whole(row.status.get("position")),
            address=row.address,
            restored_ms=row.restored_ms,
            renewed_ms=row.renewed_ms,
            silent=silent,
            earlier_ms=self._earlier_ms(row),
            recalled_ms=row.revoked_ms if row.recalled else None,
        )

    def _earlier_ms(self, row: Terminal) -> int | None:
        """Not of the terminal itself, which may have an exchange under way while it changes certificates."""
        at_ms = self._registry.turned_away.get(row.terminal)
        if at_ms is None or row.revoked_ms is not None:
            return None
        return at_ms if at_ms > max(row.paired_ms, row.renewed_ms or 0) + CHANGING_MS else None

    def _is_recent(self, seen_ms: int | None) -> bool:
        return seen_ms is not None and self._now_ms() - seen_ms <= self._online_ms

    async def _taps(self, deltas: Sequence[Delta]) -> list[TapRow]:
        authors = self._ledger.authors()
        voided = await self._voided({delta.card for delta in deltas if delta.kind is Kind.OPENING})
        return [_tap(delta, authors, voided=(delta.replica, delta.seq) in voided) for delta in deltas]

    async def _voided(self, cards: set[CardId]) -> set[tuple[ReplicaId, int]]:
        """The opening balances of these cards that do not count: all but the highest, or oldest highest."""
        voided: set[tuple[ReplicaId, int]] = set()
        for card in cards:
            history = await asyncio.wrap_future(self._ledger.history(card, MAX_ROWS))
            openings = [delta for delta in reversed(history) if delta.kind is Kind.OPENING]
            counting = max(openings, key=lambda delta: delta.amount_minor, default=None)
            voided |= {(delta.replica, delta.seq) for delta in openings if delta is not counting}
        return voided


def _tap(delta: Delta, authors: Mapping[ReplicaId, AuthorCertificate], *, voided: bool) -> TapRow:
    return TapRow(
        replica=delta.replica.hex(),
        seq=delta.seq,
        terminal=author_name(authors, delta.replica),
        card=card_text(delta.card),
        kind=delta.kind,
        amount_minor=delta.amount_minor,
        at_ms=delta.at_ms,
        clock_error_ms=delta.context.clock_error_ms,
        route=delta.context.route,
        trip=delta.context.trip,
        stop=delta.context.stop,
        voided=voided,
    )


def _whole(value: object) -> int | None:
    """A number that a terminal said of itself, if it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str:
    """A text that a terminal said of itself, if it is one; at most 64 characters."""
    return value[:64] if isinstance(value, str) else ""


def _bounded(limit: int) -> int:
    return max(1, min(limit, MAX_ROWS))
