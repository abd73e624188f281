"""One hub process under the exchanges of a whole fleet: heartbeats, and taps that come in online.

As many terminals as the machine has room for are really connected, and tap and speak as often as all of them
would, each with a settlement as old as one of the fleet has when it speaks. Who plays them are other
processes.
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
from tests.bench.fleet_load import Command, Result
from tests.bench.table import Figure
from tests.hub.processes import HubProcess, hub_process

EXCHANGES_A_MINUTE: Final = 3  # of a terminal in the busy hour: a heartbeat and two taps
PLAYERS: Final = 2  # processes
FRESH_MS: Final = 2_000  # of a hub that keeps up, 99 of 100 taps are acknowledged by then
STEP: Final = 0.9  # from one load to the next, until the hub keeps up
MOST_STEPS: Final = 12
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Depot:
    """Whom the hub serves."""

    terminals: int = 10_000  # that are enrolled
    cards: int = 50_000  # of whom anybody may tap
    connections: int = 500  # of terminals that are really there
    between_s: float = 60 / EXCHANGES_A_MINUTE  # from one exchange of a terminal to its next, about

    def load(self, terminals: float, seconds: float) -> Command:
        """What each connection does to be so many terminals together: each taps two times in three
        exchanges, and sends a heartbeat when it was silent for as long as from one tap to the next."""
        each_s = 1.5 * self.between_s * self.connections / terminals
        return Command(seconds, tap_s=each_s, heartbeat_s=each_s, behind_s=self.between_s)

    def compared(self, name: str, value: float, detail: str) -> Figure:
        """A figure of this depot, without a target."""
        return Figure(f"{self.name}: {name}", value, None, at_least=False, detail=detail)

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.terminals:,} terminals"


@dataclass(frozen=True)
class Measured:
    """A time under load: what came of it, and what it took of the hub."""

    seconds: float
    hub_cpu_s: float
    came: Result

    @property
    def rate(self) -> float:
        """Exchanges a second that were answered."""
        return self.came.exchanges / self.seconds

    @property
    def share(self) -> float:
        """Of one core, by the hub process."""
        return self.hub_cpu_s / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Of the hub, for an exchange that it answered, with what it refused."""
        return self.hub_cpu_s / max(1, self.came.exchanges) * 1000

    @property
    def keeps_up(self) -> bool:
        """Whether taps are acknowledged as they are made."""
        return not self.came.refused and self.age_ms(99) <= FRESH_MS

    def age_ms(self, percent: int) -> float:
        """A quantile of how old taps are when the hub has acknowledged them."""
        ages = self.came.ages
        return statistics.quantiles(ages, n=100)[percent - 1] if len(ages) > 1 else float("inf")


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

    def play(self, command: Command, hub: int) -> Measured:
        """Load the hub, whose process id is `hub`."""
        cpu_s, began = _cpu_s(hub), time.perf_counter()
        for process in self._processes:
            self._tell(process, json.dumps(asdict(command)))
        results = [self._hear(process) for process in self._processes]
        took_s, cpu_s = time.perf_counter() - began, _cpu_s(hub) - cpu_s
        came = Result()
        for result in results:
            came.add(Result(**result))
        return Measured(took_s, cpu_s, came)

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
            players.play(depot.load(depot.terminals, depot.between_s * 1.5), hub.pid)
            all_of_them = players.play(depot.load(depot.terminals, seconds), hub.pid)
            lag_s, busy_mb = _lag_s(hub, found.cards[0][0]), _rss_mb(hub.pid)
            carried, within = _carried(players, depot, all_of_them, seconds, hub.pid)
    memory = empty_mb, connected_mb, busy_mb
    return [*_figures_of_all(depot, all_of_them, lag_s), *_figures_of_limits(depot, carried, within, memory)]


def _carried(
    players: Players, depot: Depot, tried: Measured, seconds: float, hub: int
) -> tuple[float, Measured]:
    """The most terminals, of some that are tried, with which the hub keeps up; and how it does that."""
    terminals = float(depot.terminals)
    if not tried.keeps_up:
        terminals = min(terminals, tried.rate * depot.between_s / STEP)
    for _ in range(MOST_STEPS):
        if tried.keeps_up:
            break
        terminals *= STEP
        players.play(depot.load(terminals, seconds / 2), hub)  # what was left comes in
        tried = players.play(depot.load(terminals, seconds), hub)
    return terminals, tried


def _figures_of_all(depot: Depot, measured: Measured, lag_s: float) -> list[Figure]:
    came, seconds = measured.came, measured.seconds
    count = max(1, came.exchanges)
    size = f"{came.cards / count:,.0f} cards, {came.received_bytes / count / 1000:,.1f} kB"
    load = f"{depot.connections:,} TLS connections; {size} an answer; {came.refused} told to come again"
    taps = f"{came.acknowledged / seconds:,.0f} a second of {came.made / seconds:,.0f}"
    share = came.acknowledged / max(1, came.made)
    age = "from the tap until the hub has acknowledged it, or to the end"
    cost = f"CPU time of the process, all threads: {measured.share:.2f} of a core"
    return [
        depot.compared("exchanges a second", measured.rate, load),
        Figure(f"{depot.name}: taps acknowledged", share, 0.98, at_least=True, detail=taps),
        depot.compared("age of a tap, p50, ms", measured.age_ms(50), age),
        depot.compared("age of a tap, p99, ms", measured.age_ms(99), age),
        depot.compared("CPU an exchange, ms", measured.cpu_ms, cost),
        depot.compared("history behind, s", lag_s, "until it shows what the balances include"),
    ]


def _figures_of_limits(
    depot: Depot, carried: float, within: Measured, memory: tuple[float, float, float]
) -> list[Figure]:
    empty_mb, connected_mb, busy_mb = memory
    each_kb = (connected_mb - empty_mb) / depot.connections * 1000
    ages = f"age of a tap {within.age_ms(50):,.0f} ms, p99 {within.age_ms(99):,.0f}"
    rate = f"{within.rate:,.0f} exchanges a second, {within.cpu_ms:.2f} ms of CPU each; {ages}"
    every_mb = empty_mb + depot.terminals * each_kb / 1000
    more = f"{each_kb:.0f} kB a connection: {every_mb:,.0f} MB with {depot.terminals:,}, idle"
    name = "terminals one hub process carries"
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
