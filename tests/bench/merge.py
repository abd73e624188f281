"""The hub's merge, verified and durable, against a bare `executemany` of the same rows; bytes on the wire."""

import random
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crdt.block import NOMINAL_BLOCK_DELTAS
from crdt.facts import CardId, Delta
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from tests.bench import bare
from tests.bench.table import Figure
from tests.crdt import world
from tests.crdt.test_wire_size import bus_taps

MERGE_TARGET = 0.9
WIRE_TARGET = 6.0
REPLICAS = 100
TAPS = 2_000  # of each replica
CARDS = 20_000


@dataclass(frozen=True)
class Load:
    """100 buses' day, sealed, and the same as rows."""

    authors: Sequence[world.Terminal]
    blocks: Sequence[bytes]
    rows: Sequence[tuple[bytes, int, bytes, int, int, int]]


def prepared(source: random.Random, unit_ms: int = 1) -> Load:
    """The load: 200,000 deltas on 20,000 cards by 100 replicas, in blocks of 250."""
    cards = [CardId(source.randbytes(7)) for _ in range(CARDS)]
    authors = [world.terminal(number) for number in range(1, REPLICAS + 1)]
    blocks: list[bytes] = []
    rows: list[tuple[bytes, int, bytes, int, int, int]] = []
    for number, author in enumerate(authors, 1):
        deltas = bus_taps(number, cards, unit_ms, stops=False)
        sizes = [NOMINAL_BLOCK_DELTAS] * (TAPS // NOMINAL_BLOCK_DELTAS)
        blocks += [block.raw for block in author.blocks(deltas, sizes)]
        rows += map(_row, deltas)
    return Load(authors, blocks, rows)


def measure(directory: Path, load: Load, repetitions: int) -> Figure:
    """Both in turn, each into a new database; medians."""
    ours, theirs = [], []
    for _ in range(repetitions):
        theirs.append(_bare(directory / "bare", load))
        ours.append(_merge(directory / "hub", load))
    rates = [len(load.rows) / statistics.median(times) for times in (ours, theirs)]
    detail = (
        f"{rates[0]:,.0f} / {rates[1]:,.0f} bare deltas a second; {len(load.rows):,} deltas, "
        f"{CARDS:,} cards, {REPLICAS} replicas, one commit"
    )
    return Figure(
        "hub merge / bare executemany", rates[0] / rates[1], MERGE_TARGET, at_least=True, detail=detail
    )


def wire(load: Load) -> Figure:
    """Bytes of a sealed block for each of its deltas."""
    each = sum(map(len, load.blocks)) / len(load.rows)
    detail = f"blocks of {NOMINAL_BLOCK_DELTAS}, card ids in full, times in milliseconds, signature included"
    return Figure("wire: bytes a delta", each, WIRE_TARGET, at_least=False, detail=detail)


def _row(delta: Delta) -> tuple[bytes, int, bytes, int, int, int]:
    return delta.replica, delta.seq, delta.card, int(delta.kind), delta.amount_minor, delta.at_ms


def _bare(directory: Path, load: Load) -> float:
    directory.mkdir()
    connection = bare.connect(directory / "bare.db")
    connection.execute(
        "CREATE TABLE tap (replica BLOB, seq INTEGER, card BLOB, kind INTEGER, amount INTEGER, at INTEGER)"
    )
    began = time.perf_counter()
    bare.insert_in_one_transaction(connection, "INSERT INTO tap VALUES (?, ?, ?, ?, ?, ?)", load.rows)
    took = time.perf_counter() - began
    connection.close()
    shutil.rmtree(directory)
    return took


def _merge(directory: Path, load: Load) -> float:
    directory.mkdir()
    with Database.open(directory / "hub.db", bare.KEY, readers=2) as database:
        hub = HubLedger(database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB)
        hub.merge([], [author.certificate for author in load.authors]).result()  # as pairing has done
        began = time.perf_counter()
        report = hub.merge(load.blocks).result()
        took = time.perf_counter() - began
        assert len(report.added) == len(load.blocks)
    shutil.rmtree(directory)
    return took
