"""A settlement of a million cards: first load and an increment, hub and terminal each in a process."""

import multiprocessing
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from crdt.block import NOMINAL_BLOCK_DELTAS
from crdt.facts import CardId, Delta, Kind
from crdt.settlement import Cursor, parse_page, verify_page
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from crdt.store.terminal import TerminalLedger
from tests.bench import bare
from tests.bench.table import Figure
from tests.crdt import world

FIRST_LOAD_S: Final = 15.0
BYTES_A_CARD: Final = 25.0
RSS_MB: Final = 100.0
INCREMENT: Final = 100  # one card in so many changes
MERGE_DELTAS: Final = 50_000  # given to the hub at a time


@dataclass(frozen=True)
class Pull:
    """One settlement, from the first page asked for to the swap."""

    seconds: float
    wire_bytes: int
    pages: int
    peak_rss_mb: float  # of the terminal's process, until then


def measure(directory: Path, cards: int, source: random.Random) -> list[Figure]:
    """First load of `cards` cards, then an increment of one card in INCREMENT."""
    context = multiprocessing.get_context("spawn")  # a forked child would begin with the hub's memory
    ours, theirs = context.Pipe()
    terminal = context.Process(target=_terminal, args=(directory / "settled.db", theirs))
    ids = [CardId(source.randbytes(7)) for _ in range(cards)]
    with Database.open(directory / "settling.db", bare.KEY, readers=2) as database:
        hub = HubLedger(database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB)
        _merge(hub, world.terminal(1), ids)
        terminal.start()
        theirs.close()  # so that a terminal that ends early is noticed
        first = _served(hub, ours)
        changed = source.sample(ids, cards // INCREMENT)
        _merge(hub, world.terminal(2), changed)
        increment = _served(hub, ours)
    terminal.join()
    return [*_figures_of_first(first, cards), _figure_of(increment, len(changed))]


def _figures_of_first(pull: Pull, cards: int) -> list[Figure]:
    each = pull.wire_bytes / cards
    detail = f"{cards:,} cards in {pull.pages} pages, hub and terminal on one machine"
    return [
        Figure("first settlement: seconds", pull.seconds, FIRST_LOAD_S, at_least=False, detail=detail),
        Figure("first settlement: bytes a card", each, BYTES_A_CARD, at_least=False, detail="on the wire"),
        Figure(
            "first settlement: terminal's peak RSS, MB",
            pull.peak_rss_mb,
            RSS_MB,
            at_least=False,
            detail="Python and libraries included",
        ),
    ]


def _figure_of(pull: Pull, cards: int) -> Figure:
    detail = (
        f"{cards:,} changed cards: {pull.wire_bytes / cards:.1f} bytes each, RSS {pull.peak_rss_mb:.0f} MB"
    )
    return Figure("1 % increment: seconds", pull.seconds, None, at_least=False, detail=detail)


def _merge(hub: HubLedger, author: world.Terminal, cards: Sequence[CardId]) -> None:
    """One top-up on each card, in blocks, MERGE_DELTAS at a time."""
    hub.merge([], [author.certificate]).result()
    deltas = [
        Delta(author.key.replica, seq, card, Kind.TOPUP, 1_000 + seq % 50, 1_790_000_000_000 + seq)
        for seq, card in enumerate(cards, 1)
    ]
    sizes = [NOMINAL_BLOCK_DELTAS * 4] * (len(deltas) // (NOMINAL_BLOCK_DELTAS * 4))
    blocks = [block.raw for block in author.blocks(deltas, sizes)]
    step = max(1, MERGE_DELTAS // (NOMINAL_BLOCK_DELTAS * 4))
    for at in range(0, len(blocks), step):
        assert not hub.merge(blocks[at : at + step]).result().refused


def _served(hub: HubLedger, terminal: Connection) -> Pull:
    """Answer the terminal's pulls until it says that it is done, and how that went."""
    while True:
        said = terminal.recv()
        if isinstance(said, Pull):
            return said
        series, base, after = said
        terminal.send_bytes(hub.page(series, base, after).result().raw)


def _terminal(path: Path, hub: Connection) -> None:
    """The terminal's process: two settlements, one after the other."""
    author = world.terminal(3)
    with Database.open(path, bare.KEY) as database:
        ledger = TerminalLedger(database, world.FLEET_KEY.public_key, author.key, author.certificate)
        for _ in range(2):
            began = time.perf_counter()
            sizes = list(_pulled(ledger, hub))
            seconds = time.perf_counter() - began
            hub.send(Pull(seconds, sum(sizes), len(sizes), _peak_rss_mb()))


def _pulled(ledger: TerminalLedger, hub: Connection) -> Iterator[int]:
    """The sizes of the pages, until one was final."""
    final = False
    while not final:
        series, base, after = ledger.settled()
        hub.send((series, base, Cursor(*after)))
        raw = hub.recv_bytes()
        final = ledger.install(verify_page(parse_page(raw), world.HUB))
        yield len(raw)


def _peak_rss_mb() -> float:
    """Of this process since it began its program; getrusage(2) counts the parent's memory before exec too."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
