"""A tap's software part, decide + durable commit, against one bare durable commit of the same row."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from crdt.cursor import START, Cursor
from crdt.facts import CardId, CardView, Context, Draft
from crdt.fleet import FleetSettings
from crdt.protocol import MAX_PAGE_ROWS
from crdt.settlement import CardRow, Page, seal_page
from crdt.store.blocks import FactRow
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from crdt.store.terminal import TerminalLedger
from edge.decide import Accepted, Verdict, decide
from tests.bench import bare
from tests.bench.table import Figure
from tests.crdt import world

TARGET = 1.15
CARDS = 20_000
WARM_UP = 1_200  # until both write-ahead logs have come round and no longer grow
SETTINGS = FleetSettings()
CONTEXT = Context("110", "T7", "750012", 1, 500)
START_MS = 1_790_000_000_000
STEP_MS = 61_000  # past the passback window, so that every tap is accepted


def measure(directory: Path, taps: int, source: random.Random) -> Figure:
    """Taps and bare commits in turn, in random order; medians."""
    cards = sorted(CardId(source.randbytes(7)) for _ in range(CARDS))
    connection = bare.connect(directory / "bare.db")
    connection.execute(
        "CREATE TABLE tap (seq INTEGER PRIMARY KEY, card BLOB, kind INTEGER, amount INTEGER, at INTEGER, "
        "route TEXT, trip TEXT, stop TEXT, epoch INTEGER, error INTEGER)"
    )
    with Database.open(directory / "terminal.db", bare.KEY, layout=TERMINAL_LAYOUT) as database:
        author = world.TERMINALS[0]
        ledger = TerminalLedger(database, world.FLEET_KEY.public_key, author.key, author.certificate)
        for page in _settlement(cards):
            ledger.install(page)
        numbers = iter(range(1, 10**9))

        def tap() -> None:
            _tap(ledger, source.choice(cards), START_MS + STEP_MS * next(numbers))

        def commit() -> None:
            seq = next(numbers)
            _commit(connection, seq, (source.choice(cards), 1, -250, START_MS + seq, "110", "T7", "7", 1, 5))

        times = _interleaved({"tap": tap, "bare": commit}, taps, source)
        parts = _interleaved(_parts(ledger, cards, source), taps, source)
    connection.close()
    ours, theirs = (statistics.median(times[name]) * 1e6 for name in ("tap", "bare"))
    high = statistics.quantiles(times["tap"], n=100)[98] * 1e6
    alone = ", ".join(f"{name} {statistics.median(each) * 1e6:.0f}" for name, each in parts.items())
    detail = (
        f"p50 {ours:.0f} us / {theirs:.0f} us bare, p99 {high:.0f} us; alone and warm: {alone} us; "
        f"{taps} taps, {CARDS} cards settled"
    )
    return Figure("tap: decide + commit / bare commit", ours / theirs, TARGET, at_least=False, detail=detail)


def _parts(
    ledger: TerminalLedger, cards: list[CardId], source: random.Random
) -> dict[str, Callable[[], object]]:
    """What a tap does beside its commit, each by itself; with other caches than within a tap."""
    view = ledger.view(cards[0])._replace(last_fare_at_ms=None)
    return {
        "view": lambda: ledger.view(source.choice(cards)),
        "decide": lambda: decide(view, SETTINGS, CONTEXT.route, START_MS),
    }


def _interleaved(
    works: Mapping[str, Callable[[], object]], count: int, source: random.Random
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    warm_up = min(WARM_UP, count)  # a few taps only show that it works
    for _ in range(warm_up + count):
        source.shuffle(names)
        for name in names:
            began = time.perf_counter()
            works[name]()
            times[name].append(time.perf_counter() - began)
    return {name: each[warm_up:] for name, each in times.items()}


def _tap(ledger: TerminalLedger, card: CardId, at_ms: int) -> None:
    def choose(view: CardView) -> tuple[tuple[Draft, ...], Verdict]:
        verdict = decide(view, SETTINGS, CONTEXT.route, at_ms)
        return (verdict.drafts if isinstance(verdict, Accepted) else ()), verdict

    verdict = ledger.transact(card, choose, at_ms, CONTEXT)
    assert isinstance(verdict, Accepted), verdict


def _commit(connection: object, seq: int, fact: FactRow) -> None:
    execute = connection.execute  # type: ignore[attr-defined]  # the driver has no types
    execute("BEGIN IMMEDIATE")
    execute("INSERT INTO tap VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (seq, *fact))
    execute("COMMIT")


def _settlement(cards: list[CardId]) -> list[Page]:
    """Every card with money on it, as a hub would send it."""
    pages = []
    after = START
    for at in range(0, len(cards), MAX_PAGE_ROWS):
        rows = [CardRow(card, 10_000_000, 0) for card in cards[at : at + MAX_PAGE_ROWS]]
        until = Cursor(1, rows[-1].card)
        pages.append(
            seal_page(
                world.HUB_KEY,
                world.FLEET,
                b"S" * 16,
                0,
                after,
                until,
                rows,
                position=1,
                final=at + MAX_PAGE_ROWS >= len(cards),
            )
        )
        after = pages[-1].until
    return pages
