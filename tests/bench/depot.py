"""One hub process under the exchanges of a whole fleet: heartbeats, and taps that come in online.

As many terminals as the machine has room for are really connected, and speak as often as all of them would,
each with a settlement as old as one of the fleet has when it speaks. Who plays them are other processes.
"""

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from hub.control_client import ask
from tests.bench import fleet
from tests.bench.fleet_load import Command
from tests.bench.table import Figure
from tests.hub.processes import HubProcess, hub_process

EXCHANGES_A_MINUTE: Final = 3  # of a terminal in the busy hour: a heartbeat and two taps
PLAYERS: Final = 2  # processes
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Depot:
    """Whom the hub serves."""

    terminals: int = 10_000  # that are enrolled
    cards: int = 50_000  # of whom anybody may tap
    connections: int = 500  # of terminals that are really there
    between_s: float = 60 / EXCHANGES_A_MINUTE  # from one exchange of a terminal to its next

    @property
    def rate(self) -> float:
        """Exchanges a second, of all terminals."""
        return self.terminals / self.between_s

    def compared(self, name: str, value: float, detail: str) -> Figure:
        """A figure of this depot, without a target."""
        return Figure(f"{self.name}: {name}", value, None, at_least=False, detail=detail)

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.terminals:,} terminals"


@dataclass(frozen=True)
class Measured:
    """A time under load."""

    seconds: float
    hub_cpu_s: float
    taps: int
    heartbeats: int
    refused: int
    skipped: int
    requests: int
    cards: int
    received_bytes: int
    latencies: list[float]

    @property
    def exchanges(self) -> int:
        """Those that were answered to the end."""
        return self.taps + self.heartbeats

    @property
    def rate(self) -> float:
        """Exchanges a second."""
        return self.exchanges / self.seconds

    @property
    def share(self) -> float:
        """Of one core, by the hub process."""
        return self.hub_cpu_s / self.seconds

    def quantile(self, percent: int) -> float:
        """Of the latencies, in ms."""
        if len(self.latencies) < 2:
            return float("inf")
        return statistics.quantiles(self.latencies, n=100)[percent - 1]


class Players:
    """The processes that play the terminals."""

    def __init__(self, found: fleet.Fleet, url: str) -> None:
        host, port = url.removeprefix("https://").rsplit(":", 1)
        place = json.dumps({"host": host, "port": int(port)})
        self._processes = [_player() for _ in range(PLAYERS)]
        for number, process in enumerate(self._processes):
            self._tell(process, found.part(number, PLAYERS))
            self._tell(process, place)
        for process in self._processes:
            self._hear(process)

    def play(self, seconds: float, rate: float, behind_s: float, hub: int) -> Measured:
        """Load the hub, whose process id is `hub`."""
        command = Command(seconds, rate / PLAYERS, behind_s)
        cpu_s, began = _cpu_s(hub), time.perf_counter()
        for process in self._processes:
            self._tell(process, json.dumps(asdict(command)))
        results = [self._hear(process) for process in self._processes]
        took_s, cpu_s = time.perf_counter() - began, _cpu_s(hub) - cpu_s
        counted = {name: sum(one[name] for one in results) for name in results[0] if name != "latencies"}
        latencies = [latency for one in results for latency in one["latencies"]]
        return Measured(seconds=took_s, hub_cpu_s=cpu_s, latencies=latencies, **counted)

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.communicate()

    @staticmethod
    def _tell(process: "subprocess.Popen[str]", line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()

    @staticmethod
    def _hear(process: "subprocess.Popen[str]") -> dict[str, Any]:
        assert process.stdout is not None
        heard: dict[str, Any] = json.loads(process.stdout.readline())
        return heard


def measure(directory: Path, depot: Depot, seconds: float) -> list[Figure]:
    """Whether one hub process keeps up with the terminals, at what cost, and how many it would carry."""
    directory = directory / "depot"
    directory.mkdir()
    with hub_process(directory) as hub:
        source = random.Random(1)  # noqa: S311 - the same every time
        found = fleet.found(hub, depot.terminals, depot.connections, depot.cards, source)
        hub.start()
        empty_mb = _rss_mb(hub.pid)
        with _players(found, hub.url) as players:
            connected_mb = _rss_mb(hub.pid)
            players.play(depot.between_s * 1.5, depot.rate, depot.between_s, hub.pid)
            paced = players.play(seconds, depot.rate, depot.between_s, hub.pid)
            lag_s, busy_mb = _lag_s(hub, found.cards[0][0]), _rss_mb(hub.pid)
            driven = players.play(seconds, 0, depot.between_s, hub.pid)
    memory = empty_mb, connected_mb, busy_mb
    return [*_figures_of_pace(depot, paced, lag_s), *_figures_of_limits(depot, driven, memory)]


def _figures_of_pace(depot: Depot, paced: Measured, lag_s: float) -> list[Figure]:
    count = max(1, paced.exchanges)
    size = f"{paced.cards / count:,.0f} cards, {paced.received_bytes / count / 1000:,.1f} kB"
    missed = f"{paced.refused} refused, {paced.skipped} not asked in time"
    load = f"{depot.connections:,} TLS connections; {size} an answer; {missed}"
    due = "from when it was due to the end of the last answer"
    name = f"{depot.name}: exchanges a second"
    return [
        Figure(name, paced.rate, depot.rate * 0.98, at_least=True, detail=load),
        depot.compared("p50, ms", paced.quantile(50), due),
        depot.compared("p99, ms", paced.quantile(99), due),
        depot.compared("hub's share of a core", paced.share, "CPU time of the process, all threads"),
        depot.compared("history behind, s", lag_s, "until it shows what the balances include"),
    ]


def _figures_of_limits(depot: Depot, driven: Measured, memory: tuple[float, float, float]) -> list[Figure]:
    empty_mb, connected_mb, busy_mb = memory
    each_kb = (connected_mb - empty_mb) / depot.connections * 1000
    cpu_ms = driven.hub_cpu_s / max(1, driven.exchanges) * 1000
    rate = f"{driven.rate:,.0f} exchanges a second, {cpu_ms:.2f} ms of CPU each; hub and load share the cores"
    every_mb = empty_mb + depot.terminals * each_kb / 1000
    more = f"{each_kb:.0f} kB a connection: {every_mb:,.0f} MB with {depot.terminals:,}, idle"
    carried, name = driven.rate * depot.between_s, "terminals one hub process carries"
    return [
        Figure(name, carried, depot.terminals, at_least=True, detail=rate),
        depot.compared("hub's RSS, MB", busy_mb, more),
    ]


@contextlib.contextmanager
def _players(found: fleet.Fleet, url: str) -> Iterator[Players]:
    players = Players(found, url)
    try:
        yield players
    finally:
        players.close()


def _player() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench.fleet_load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _lag_s(hub: HubProcess, card: str) -> float:
    """How long the history takes to catch up with the balances."""
    began = time.perf_counter()
    while ask(hub.directory / "state" / "control.sock", "GET", f"/cards/{card}")["behind"]:
        time.sleep(0.02)
    return time.perf_counter() - began


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000
