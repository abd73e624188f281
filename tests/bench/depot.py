"""One hub process under the exchanges of a whole fleet: heartbeats, and taps that come in online.

Two loads. In the minute every terminal speaks once, with the taps since it spoke last. In the busy hour each
speaks as it does online, of every tap at once and of itself after a silence; how many terminals the hub
carries so is found out. A few connections stand for all of them, played by other processes.
"""

import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from hub.control_client import ask
from tests.bench import fleet
from tests.bench.fleet_load import Result
from tests.bench.fleet_seat import LATE_S, Command
from tests.bench.table import Figure
from tests.hub.processes import HubProcess, hub_process

PLAYERS: Final = 2  # processes
TAPS_A_DAY: Final = 1_250 / 2  # of a terminal: a bus has two doors
DAY_MINUTES: Final = 18 * 60  # in which buses run
BUSY_TAPS_A_MINUTE: Final = 2  # of a terminal
BUSY_SILENCES: Final = 2  # a minute, at which a terminal sends a heartbeat when nobody taps
FRESH_S: Final = 2.0  # of a hub that keeps up, 99 of 100 taps are acknowledged by then
FIRST: Final = 0.1  # of the fleet: with so many it is estimated how many are carried
FULL: Final = 0.75  # of a core, at which a hub process is about as busy as it can be
NEAR: Final = 0.9  # of what is too many: it is not looked for what is carried any closer
MOST_TRIED: Final = 5
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Depot:
    """Whom the hub serves."""

    terminals: int = 10_000  # that are enrolled
    cards: int = 50_000  # of whom anybody may tap
    connections: int = 250  # of terminals that are really there
    minute_s: float = 60.0  # shorter where all goes by quicker

    def minute(self, seconds: float) -> Command:
        """Every terminal once a minute."""
        tap_s = self.minute_s * DAY_MINUTES / TAPS_A_DAY
        return Command(seconds, self.terminals, tap_s, self.minute_s, self.minute_s)

    def busy(self, terminals: float, seconds: float) -> Command:
        """So many terminals in the busy hour."""
        tap_s, silence_s = self.minute_s / BUSY_TAPS_A_MINUTE, self.minute_s / BUSY_SILENCES
        return Command(seconds, round(terminals), tap_s, silence_s, 0.0)


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
        return not self.came.refused and self.age_ms(99) <= FRESH_S * 1000

    @property
    def acknowledged(self) -> float:
        """The share of the taps that were to be acknowledged by now."""
        return self.came.acknowledged / max(1, self.came.acknowledged + self.came.overdue)

    def age_ms(self, percent: int) -> float:
        """A quantile of how old taps are when the hub has acknowledged them."""
        ages = self.came.ages
        return statistics.quantiles(ages, n=100)[percent - 1] if len(ages) > 1 else float("inf")

    @property
    def made_of(self) -> str:
        """For the table."""
        came, count = self.came, max(1, self.came.exchanges)
        size = f"{came.cards / count:,.0f} cards, {came.received_bytes / count / 1000:,.1f} kB"
        cost = f"{self.cpu_ms:.2f} ms of CPU each, {self.share:.2f} of a core"
        return f"{cost}; {size} an answer, {came.refused} told to come again"


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
        for number, process in enumerate(self._processes):
            share = replace(command, terminals=(command.terminals + number) // PLAYERS)
            self._tell(process, json.dumps(asdict(share)))
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
    """Whether one hub process keeps up with a minute of all terminals, at what cost, and how many it carries
    in the busy hour."""
    directory = directory / "depot"
    directory.mkdir()
    with hub_process(directory) as hub:
        source = random.Random(1)  # noqa: S311 - the same every time
        found = fleet.found(hub, depot.terminals, depot.connections, depot.cards, source)
        hub.start()
        empty_mb = _rss_mb(hub.pid)
        with _players(found, hub.url) as players:
            each_kb = (_rss_mb(hub.pid) - empty_mb) / depot.connections * 1000
            players.play(depot.minute(depot.minute_s), hub.pid)  # until all have what they missed in one
            minute = players.play(depot.minute(2 * seconds), hub.pid)
            lag_s = _lag_s(hub, found.cards[0][0])
            carried, busy = _carried(players, depot, seconds, hub.pid)
        busy_mb = _rss_mb(hub.pid)
    memory = f"{each_kb:.0f} kB a connection, idle: {depot.terminals * each_kb / 1000:,.0f} MB with all"
    return [
        *_figures_of_minute(depot, minute, lag_s),
        *_figures_of_busy_hour(depot, carried, busy),
        Figure("hub's RSS, MB", busy_mb, None, at_least=False, detail=memory),
    ]


def _carried(players: Players, depot: Depot, seconds: float, hub: int) -> tuple[int, Measured]:
    """The most terminals, of some that are tried, with which the hub keeps up; and how it does that."""

    def tried(terminals: float) -> tuple[int, Measured]:
        players.play(depot.busy(terminals, seconds), hub)  # what was left comes in
        return round(terminals), players.play(depot.busy(terminals, seconds), hub)

    best = tried(FIRST * depot.terminals)
    too_many = depot.terminals / NEAR
    guess = best[0] * FULL / max(best[1].share, FIRST * FULL)
    for _ in range(MOST_TRIED):
        found = tried(min(guess, depot.terminals))
        if found[1].keeps_up:
            best = found
        else:
            too_many = found[0]
        if best[0] >= min(depot.terminals, NEAR * too_many):
            break
        guess = math.sqrt(best[0] * too_many)
    return best if best[1].keeps_up else (0, best[1])


def _figures_of_minute(depot: Depot, minute: Measured, lag_s: float) -> list[Figure]:
    name = f"{depot.terminals:,} terminals, each once a minute"
    late = f"not: of terminals unheard {LATE_S:.0f} s after their minute"
    taps = f"{minute.came.acknowledged / minute.seconds:,.0f} a second; {late}"
    runs = (minute.came.exchanges - minute.came.pages) / minute.seconds
    further = f"{minute.rate - runs:,.0f} more for further pages; {minute.made_of}"
    due = 0.95 * depot.terminals / depot.minute_s
    age = f"from the tap until the hub has acknowledged it; p50 {minute.age_ms(50) / 1000:.1f}"
    lag = "until it shows what the balances include"
    return [
        Figure(f"{name}: a second", runs, due, at_least=True, detail=further),
        Figure(f"{name}: taps acknowledged", minute.acknowledged, 0.98, at_least=True, detail=taps),
        Figure(f"{name}: age of a tap, p99, s", minute.age_ms(99) / 1000, None, at_least=False, detail=age),
        Figure(f"{name}: history behind, s", lag_s, None, at_least=False, detail=lag),
    ]


def _figures_of_busy_hour(depot: Depot, carried: int, busy: Measured) -> list[Figure]:
    ages = f"age of a tap {busy.age_ms(50):,.0f} ms, p99 {busy.age_ms(99):,.0f}"
    rate = f"{busy.rate:,.0f} exchanges a second; {ages}; {busy.made_of}"
    name = "busy hour: terminals one hub process carries"
    return [Figure(name, carried, depot.terminals, at_least=True, detail=rate)]


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
