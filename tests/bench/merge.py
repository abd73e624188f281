"""The hub's merge, verified and durable, against bare rows and other libraries; bytes on the wire."""

import random
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crdt.block import NOMINAL_BLOCK_DELTAS
from crdt.facts import CardId, Delta
from crdt.numbering import shorten
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from tests.bench import bare, rivals
from tests.bench.table import Figure
from tests.crdt import world
from tests.crdt.test_wire_size import bus_taps

MERGE_TARGET = 0.9
WIRE_TARGET = 6.0
REPLICAS = 100
TAPS = 2_000  # of each replica
CARDS = 20_000
RIVAL_RUNS = 2  # some of them take seconds


@dataclass(frozen=True)
class Load:
    """100 buses' day: the deltas, sealed, sealed and short, and as rows."""

    authors: Sequence[world.Terminal]
    chains: Sequence[Sequence[Delta]]
    blocks: Sequence[bytes]
    short: Sequence[bytes]
    rows: Sequence[tuple[bytes, int, bytes, int, int, int]]


def prepared(source: random.Random, unit_ms: int = 1, replicas: int = REPLICAS) -> Load:
    """The load: 2,000 deltas each of so many replicas on 20,000 cards, in blocks of 250."""
    cards = [CardId(source.randbytes(7)) for _ in range(CARDS)]
    numbers = {card: number for number, card in enumerate(cards, 1)}
    authors = [world.terminal(number) for number in range(1, replicas + 1)]
    chains = [bus_taps(number, cards, unit_ms, stops=False) for number in range(1, replicas + 1)]
    sizes = [NOMINAL_BLOCK_DELTAS] * (TAPS // NOMINAL_BLOCK_DELTAS)
    sealed = [
        block for author, chain in zip(authors, chains, strict=True) for block in author.blocks(chain, sizes)
    ]
    short = [shorten(block, numbers) or block.raw for block in sealed]
    rows = [_row(delta) for chain in chains for delta in chain]
    return Load(authors, chains, [block.raw for block in sealed], short, rows)


def measure(directory: Path, load: Load, repetitions: int) -> list[Figure]:
    """Ours, bare rows and the other libraries over the same deltas; medians."""
    ours, theirs, lags = [], [], []
    for _ in range(repetitions):
        theirs.append(_bare(directory / "bare", load))
        merged, lagged = _merge(directory / "hub", load)
        ours.append(merged)
        lags.append(lagged)
    count = len(load.rows)
    ours_a_second, bare_a_second = (count / statistics.median(times) for times in (ours, theirs))
    detail = (
        f"{ours_a_second:,.0f} / {bare_a_second:,.0f} bare deltas a second; {count:,} deltas, "
        f"{CARDS:,} cards, {len(load.authors)} replicas, one commit"
    )
    return [
        Figure(
            "hub merge / bare executemany",
            ours_a_second / bare_a_second,
            MERGE_TARGET,
            at_least=True,
            detail=detail,
        ),
        *_against(rivals.measure(load.chains, min(repetitions, RIVAL_RUNS)), ours_a_second),
        *_wire(load),
        Figure(
            "history behind the merge: seconds",
            statistics.median(lags),
            None,
            at_least=False,
            detail=f"until it has all rows: {count / statistics.median(lags):,.0f} a second",
        ),
    ]


def _against(others: Sequence[rivals.Rival], ours_a_second: float) -> list[Figure]:
    """Our merge, verified and on the disk, against merges that are neither."""
    return [
        Figure(
            f"hub merge / {other.name}",
            ours_a_second / other.deltas_a_second,
            1.0,
            at_least=True,
            detail=f"it merges and sums {other.deltas_a_second:,.0f} deltas a second in memory, unsigned, "
            f"at {other.bytes_a_delta:.1f} bytes a delta on the wire",
        )
        for other in others
    ]


def _wire(load: Load) -> list[Figure]:
    """Bytes on the wire for each delta: signature, hashes and headers included."""
    count = len(load.rows)
    kinds = {"": (load.short, "cards by number"), ", never settled": (load.blocks, "card ids in full")}
    return [
        Figure(
            f"wire: bytes a delta{name}",
            sum(map(len, blocks)) / count,
            WIRE_TARGET if not name else None,
            at_least=False,
            detail=f"blocks of {NOMINAL_BLOCK_DELTAS}, {cards}, times in milliseconds, signature included",
        )
        for name, (blocks, cards) in kinds.items()
    ]


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


def _merge(directory: Path, load: Load) -> tuple[float, float]:
    """Seconds until it is durable, and until the history has it too."""
    directory.mkdir()
    with Database.open(directory / "hub.db", bare.KEY, readers=2) as database:
        hub = HubLedger(database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB)
        hub.merge([], [author.certificate for author in load.authors]).result()  # as pairing has done
        began = time.perf_counter()
        report = hub.merge(load.blocks).result()
        took = time.perf_counter() - began
        assert len(report.added) == len(load.blocks)
        while hub.lag().result():
            time.sleep(0.02)
        lagged = time.perf_counter() - began
    shutil.rmtree(directory)
    return took, lagged
