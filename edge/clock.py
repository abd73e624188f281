"""Terminal time: good enough for fares and reports, never for merging.

A Pi has no clock worth trusting. It starts at some time of the past, jumps when the network appears, and is
sometimes set wrong by hand. So terminal time is the system clock plus a lead that keeps it from running
backwards over what the ledger already holds; each jump of the system clock starts a new epoch; and each
reading says how wrong it may be. Reports can be corrected afterwards, one epoch at a time.

A terminal tells the hub from when on whatever it writes is dated, and a day is over only then. So that much
is kept on the disk: else a start with a clock in the past would go back to the last tap, in a finished day.

One exception: where the clock was once far in the future, and a tap was dated so, the lead would date all
later taps the same for ever. So a lead beyond a day ends, with a new epoch, when NTP or the hub disproves it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crdt.facts import MAX_CLOCK_ERROR_MS

STEP_MS = 1_000
"""A difference between system clock and monotonic clock beyond this (and beyond slewing) is a step."""
SLEW_PPM = 1_000
"""Twice what adjtimex(2) slews at most (500 ppm): a clock being slewed into place has not stepped."""
DRIFT_PPM = 100
"""What a Pi's crystal may drift: 100 parts per million, twice the datasheet's figure."""
SYNCHRONISED_ERROR_MS = 500
"""What a clock set by NTP over a mobile network may be wrong by."""
UNKNOWN_ERROR_MS = 100 * 365 * 86_400_000
"""Said, at least, when nothing has set the clock since boot: a hundred years, in milliseconds. A Pi may start
in 1970, or where somebody's hand has put it."""
MAX_LEAD_MS = 86_400_000
"""A lead over the true time up to this, in milliseconds, is kept: a night in the depot mends it. A day."""

FLOOR_STEP_MS = 15 * 60_000
"""Days of service end at quarters of an hour: no finer need be kept, and no oftener written."""

SYNCHRONISED_FILE = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd touches this each time it has set the clock; /run is empty after a boot."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the clock: Unix time in ms, the epoch it counts in, and how wrong it may be in ms."""

    at_ms: int
    epoch: int
    error_ms: int


def system_clock_ms() -> int:
    """The system clock, Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds since some moment; never jumps."""
    return time.monotonic_ns() // 1_000_000


def synchronised_at_ms(file: Path = SYNCHRONISED_FILE) -> int | None:
    """When the system clock was last set from the network since boot, in its own time; None: never."""
    try:
        return file.stat().st_mtime_ns // 1_000_000
    except OSError:
        return None


class TerminalClock:
    """Readings that never run backwards within an epoch, also over a restart, and between epochs only out of
    a future that was proved wrong. Safe to use from several threads."""

    def __init__(
        self,
        *,
        floor_ms: int,
        epoch: int,
        save_epoch: Callable[[int], object],
        save_floor: Callable[[int], object],
        wall_ms: Callable[[], int] = system_clock_ms,
        elapsed_ms: Callable[[], int] = monotonic_ms,
        synchronised_ms: Callable[[], int | None] = synchronised_at_ms,
    ) -> None:
        """`floor_ms`: the ledger's last time, or what `save_floor` was given last, whichever is later.
        `epoch`: a number never used before (a start begins a new one). `save_epoch` is called, and has to be
        durable on return, before a new epoch appears in a reading; `save_floor` before `dated_from` tells it.
        """
        self._wall_ms = wall_ms
        self._elapsed_ms = elapsed_ms
        self._synchronised_ms = synchronised_ms
        self._save_epoch = save_epoch
        self._save_floor = save_floor
        self._lock = threading.Lock()
        self._epoch = epoch
        self._last_ms = floor_ms
        self._seen_wall = wall_ms()
        self._seen_elapsed = elapsed_ms()
        self._lead_ms = max(0, floor_ms - self._seen_wall)
        self._set_back_ms = 0
        self._synchronised = synchronised_ms()
        self._outdated: int | None = None
        self._compared: tuple[int, int] | None = None
        self._reference: tuple[int, int] | None = None
        self._telling = threading.Lock()
        self._dated_from_ms = floor_ms // FLOOR_STEP_MS * FLOOR_STEP_MS

    def read(self) -> Reading:
        """The time now. Blocks on `save_epoch` in the rare case of a step: not for the event loop."""
        with self._lock:
            wall, elapsed, epoch = self._wall_ms(), self._elapsed_ms(), self._epoch
            self._notice_step(wall, elapsed)
            error_ms = self._bound_ms(wall, elapsed)
            self._last_ms = max(self._last_ms, wall + self._lead_ms)
            if error_ms is not None and self._last_ms > wall + error_ms + MAX_LEAD_MS:
                self._set_back(wall, new_epoch=self._epoch == epoch)
            if error_ms is None:
                error_ms = max(UNKNOWN_ERROR_MS, wall)  # wherever it stands, it is not before 1970
            error_ms += max(0, self._last_ms - wall)
            return Reading(self._last_ms, self._epoch, min(error_ms, MAX_CLOCK_ERROR_MS))

    def dated_from(self) -> int:
        """From when on whatever is written is dated, over a restart too, in whole quarters of an hour.

        It goes on only where another clock shows that the time is not in the future, where it would stay.
        Waits for the disk once a quarter: not for the event loop.
        """
        with self._telling:
            at_ms = self.read().at_ms
            floor_ms = at_ms // FLOOR_STEP_MS * FLOOR_STEP_MS
            ahead = self._reference is None or at_ms > self._reference_ms(*self._reference) + MAX_LEAD_MS
            if floor_ms < self._dated_from_ms or (floor_ms > self._dated_from_ms and not ahead):
                self._save_floor(floor_ms)
                self._dated_from_ms = floor_ms
            return self._dated_from_ms

    def as_now(self, at_ms: int) -> int:
        """An earlier reading as the clock counts now: another where it has been set back since."""
        with self._lock:
            return at_ms - self._set_back_ms if at_ms > self._last_ms else at_ms

    def compare(self, reference_ms: int, uncertainty_ms: int) -> None:
        """Take note of another clock that may be trusted (the hub's, over mutual TLS): how far it is from the
        system clock now bounds the error of later readings. It never sets the time, but may end a lead."""
        with self._lock:
            distance = abs(reference_ms - self._wall_ms()) + uncertainty_ms
            self._compared = (self._elapsed_ms(), distance)
            self._reference = (self._elapsed_ms(), reference_ms)

    def _reference_ms(self, since: int, reference_ms: int) -> int:
        return reference_ms + self._elapsed_ms() - since

    def _notice_step(self, wall: int, elapsed: int) -> None:
        passed = max(0, elapsed - self._seen_elapsed)
        jump = (wall - self._seen_wall) - passed
        synchronised, before = self._synchronised_ms(), self._synchronised
        if abs(jump) > STEP_MS + passed * SLEW_PPM // 1_000_000:
            # Where this fails, nothing has changed yet, and the next reading tries again.
            self._save_epoch(self._epoch + 1)
            self._epoch += 1
            self._lead_ms = max(0, self._last_ms + passed - wall)
            self._compared = None
            if synchronised == before:
                self._outdated = synchronised  # somebody moved the clock after it was set from the network
        self._seen_wall, self._seen_elapsed, self._synchronised = wall, elapsed, synchronised

    def _set_back(self, wall: int, *, new_epoch: bool) -> None:
        if new_epoch:
            self._save_epoch(self._epoch + 1)
            self._epoch += 1
        self._set_back_ms = self._last_ms - wall
        self._last_ms, self._lead_ms = wall, 0

    def _bound_ms(self, wall: int, elapsed: int) -> int | None:
        """How wrong the system clock may be; None when nobody knows."""
        estimates = []
        synchronised = self._synchronised
        if synchronised is not None and synchronised != self._outdated and synchronised <= wall:
            estimates.append(SYNCHRONISED_ERROR_MS + _drift_ms(wall - synchronised))
        if self._compared is not None:
            since, distance = self._compared
            estimates.append(distance + _drift_ms(elapsed - since))
        return min(estimates, default=None)


def _drift_ms(passed_ms: int) -> int:
    return passed_ms * DRIFT_PPM // 1_000_000
