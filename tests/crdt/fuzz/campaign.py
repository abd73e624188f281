"""The fuzzer's loop: mutants by seed and number, each judged by its target's oracle within bounded memory."""

import random
import resource
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from tests.crdt.fuzz import blocks, documents, pairings, sealed, sessions
from tests.crdt.fuzz.mutate import Mutator
from tests.crdt.fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for group in (blocks, sealed, sessions, documents, pairings)
    for target in group.TARGETS
}
SPLICED: Final = [  # what mutants may go on with in the middle: parts of other kinds of input
    *(block.raw for block in blocks.SEEDS[:5]),
    *sealed.PAGES,
    *sealed.CERTIFICATE_SEEDS,
    *documents.FLEET_BODIES,
    *documents.TERMINAL_BODIES,
    sessions.HELLO,
]
CRASHERS: Final = Path(__file__).with_name("crashers")
_MEASURED_EVERY: Final = 17  # tracemalloc makes everything slower; prime, so that every target has its turn
_MAX_GROWTH_KIB: Final = 512 * 1024  # of the whole process: libraries take memory that Python does not see


class Finding(AssertionError):
    """A mutant broke a rule; the cause is what happened."""

    def __init__(self, target: Target, index: int, data: bytes) -> None:
        super().__init__(f"{target.name}, number {index}: {len(data)} bytes")
        self.target = target
        self.index = index
        self.data = data


@dataclass
class Tally:
    """How a target fared."""

    executed: int = 0
    accepted: int = 0
    slowest_s: float = 0.0
    peak_bytes: int = 0


@dataclass
class Campaign:
    """All mutants of one seed. The same seed and number always make the same mutant."""

    seed: int
    targets: Sequence[Target]
    max_s: float | None = None  # the most processor time that one mutant may take; None: any
    tallies: dict[str, Tally] = field(default_factory=dict)
    _resident_kib: int = field(default_factory=lambda: _resident_kib())

    def run(self, numbers: Iterator[int] | None = None) -> Iterator[int]:
        """Try one mutant for each number, and yield after each. Raises Finding."""
        weighted = [target for target in self.targets for _ in range(target.weight)]
        for number in numbers or count():
            self.try_one(weighted[number % len(weighted)], number)
            yield number

    def mutant(self, target: Target, number: int) -> bytes:
        """Mutant `number` of a target."""
        source = random.Random(f"{self.seed}/{target.name}/{number}")  # noqa: S311 - by its seed, no secret
        return target.make(Mutator(source, SPLICED))

    def try_one(self, target: Target, number: int) -> None:
        """Judge mutant `number`. Raises Finding."""
        self.judge(target, number, self.mutant(target, number))

    def judge(self, target: Target, number: int, data: bytes) -> bool:
        """Whether this is accepted, as it has to be within bounds; number 0 is measured. Raises Finding."""
        tally = self.tallies.setdefault(target.name, Tally())
        began = time.process_time()
        try:
            measured = number % _MEASURED_EVERY == 0
            accepted = self._measured(target, data, tally) if measured else target.check(data)
            took_s = time.process_time() - began
            assert self.max_s is None or took_s <= self.max_s, f"took {took_s:.1f} s"
            assert _resident_kib() - self._resident_kib <= _MAX_GROWTH_KIB, "the process has grown too large"
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise Finding(target, number, data) from error
        tally.executed += 1
        tally.accepted += accepted
        tally.slowest_s = max(tally.slowest_s, took_s)
        return accepted

    def _measured(self, target: Target, data: bytes, tally: Tally) -> bool:
        tracemalloc.start()
        try:
            accepted = target.check(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak <= target.peak_bytes, f"took {peak} bytes of memory"
        tally.peak_bytes = max(tally.peak_bytes, peak)
        return accepted


def _resident_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
