"""A settlement of a million cards: first load and an increment, hub and terminal each in a process.

The hub makes a page while the terminal stores the one before, as in a sync run; both begin with nothing else
to do. Building the balances from the last page on is the terminal's alone.
"""

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from crdt.block import NOMINAL_BLOCK_DELTAS
from crdt.cursor import Cursor
from crdt.facts import CardId, Delta, Kind
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from tests.bench import bare
from tests.bench.settle_terminal import BEGIN, Papers, Pull
from tests.bench.table import Figure
from tests.crdt import world
from tests.repository import ROOT

FIRST_LOAD_S: Final = 15.0
BYTES_A_CARD: Final = 25.0
RSS_MB: Final = 100.0
INCREMENT: Final = 100  # one card in so many changes
MERGE_DELTAS: Final = 50_000  # given to the hub at a time
LOOK_S: Final = 0.05  # between looks whether the hub has made its history of it
TERMINAL: Final = 3  # the terminal that is loaded; its key is made from the number, see `world`


@dataclass(frozen=True)
class Settled:
    """One settlement as both sides measured it."""

    pull: Pull
    hub_cpu_seconds: float


def measure(directory: Path, cards: int, source: random.Random) -> list[Figure]:
    """First load of `cards` cards, then an increment of one card in INCREMENT."""
    ids = [CardId(source.randbytes(7)) for _ in range(cards)]
    changed = source.sample(ids, cards // INCREMENT)
    with Database.open(directory / "settling.db", bare.KEY, readers=2) as database:
        hub = HubLedger(database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB)
        _merge(hub, world.terminal(1), ids)
        with _terminal(directory / "settled.db") as terminal:
            first = _served(hub, terminal)
            _merge(hub, world.terminal(2), changed)
            increment = _served(hub, terminal)
    return [*_figures_of_first(first, cards), _figure_of(increment, len(changed))]


def _figures_of_first(settled: Settled, cards: int) -> list[Figure]:
    pull = settled.pull
    each = pull.wire_bytes / cards
    detail = f"{cards:,} cards in {pull.pages} pages, one machine; {_cpu(settled)}"
    return [
        Figure("first settlement: seconds", pull.seconds, FIRST_LOAD_S, at_least=False, detail=detail),
        Figure("first settlement: bytes a card", each, BYTES_A_CARD, at_least=False, detail="on the wire"),
        Figure(
            "first settlement: terminal's peak RSS, MB",
            pull.peak_rss_mb,
            RSS_MB,
            at_least=False,
            detail="of its process, with everything the terminal's program loads",
        ),
    ]


def _figure_of(settled: Settled, cards: int) -> Figure:
    pull = settled.pull
    each = pull.wire_bytes / cards
    detail = f"{cards:,} changed cards: {each:.1f} bytes each, RSS {pull.peak_rss_mb:.0f} MB; {_cpu(settled)}"
    return Figure("1 % increment: seconds", pull.seconds, None, at_least=False, detail=detail)


def _cpu(settled: Settled) -> str:
    return f"CPU s: terminal {settled.pull.cpu_seconds:.2f}, hub {settled.hub_cpu_seconds:.2f}"


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
    while hub.lag().result():
        time.sleep(LOOK_S)


@contextlib.contextmanager
def _terminal(path: Path) -> Iterator[Connection]:
    """The terminal's process, to speak with; it is there until both its settlements are done."""
    ours, theirs = Pipe()
    with ours, theirs:
        command = [sys.executable, "-m", "tests.bench.settle_terminal", str(theirs.fileno())]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT) as process:
            theirs.close()  # so that a terminal that ends early is noticed
            ours.send(tuple(_papers(path)))
            yield ours
        assert process.returncode == 0


def _papers(path: Path) -> Papers:
    seed = TERMINAL.to_bytes(32, "big")
    certificate = world.terminal(TERMINAL).certificate
    key = world.FLEET_KEY.public_key
    return Papers(str(path), bare.KEY, key, seed, certificate.encode(), world.HUB.encode())


def _served(hub: HubLedger, terminal: Connection) -> Settled:
    """Let the terminal begin and answer its pulls until it says that it is done; how that went."""
    worked_s = time.process_time()
    terminal.send(BEGIN)
    while True:
        what, said = terminal.recv()
        if what == "done":
            return Settled(Pull(*said), time.process_time() - worked_s)
        series, base, after = said
        terminal.send_bytes(hub.page(series, base, Cursor(*after)).result().raw)
