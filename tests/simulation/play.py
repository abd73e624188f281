"""Plays one seed to its end, and tells what happened."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from tests.simulation.oracle import Broken
from tests.simulation.retention import small_terminals
from tests.simulation.signatures import simulated_signatures
from tests.simulation.world import World


@dataclass(frozen=True)
class Played:
    """One seed. `failure`: which promise was broken, or what else went wrong; "" when all is well."""

    seed: int
    steps: int
    failure: str
    trace: tuple[str, ...]
    digest: str  # of everything that happened, when asked for


class Playable(Protocol):
    """The world of a seed. `run` raises Broken where a promise is."""

    trace: list[tuple[object, ...]]

    def run(self) -> None: ...
    def digest(self) -> str: ...
    def close(self) -> None: ...


class Alarm(logging.Handler):
    """The product's errors in the log are failures: nobody else would see them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first; a hub says so when it finds that it was put back, and whether it may is known."""
        if record.name not in ("crdt.store.own_chain", "hub.restoring"):
            self.said = self.said or self.format(record)


@contextmanager
def listening() -> Iterator[Alarm]:
    """Hear errors; spare the work for what is less."""
    alarm = Alarm()
    root, before = logging.getLogger(), logging.root.manager.disable
    root.addHandler(alarm)
    logging.disable(logging.WARNING)
    try:
        yield alarm
    finally:
        logging.disable(before)
        root.removeHandler(alarm)


@contextmanager
def unscanned() -> Iterator[None]:
    """Look for no garbage meanwhile: a world is small and soon gone, and looking costs a tenth of it."""
    scanned = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if scanned:
            gc.enable()


def play(seed: int, *, digest: bool = False) -> Played:
    """Play a seed: the same every time, in every process."""
    with small_terminals():
        return played(World, seed, digest=digest)


def played(world_of: Callable[[int], Playable], seed: int, *, digest: bool) -> Played:
    """Play the world of a seed."""
    failure, hashed = "", ""
    with listening() as alarm, unscanned(), simulated_signatures():
        world = world_of(seed)
        try:
            world.run()
        except Broken as broken:
            failure = str(broken)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            failure = "".join(traceback.format_exception(error, limit=-12)).rstrip()
        failure = failure or alarm.said
        if digest:
            hashed = world.digest()
        world.close()
    trace = tuple(" ".join(map(str, line)) for line in world.trace) if failure else ()
    return Played(seed, len(world.trace), failure, trace, hashed)


def first_failure(
    first: int, seeds: int, step: int = 1, play: Callable[[int], Played] = play
) -> Played | None:
    """Play seeds one after the other; the first that fails."""
    for seed in range(first, first + seeds * step, step):
        one = play(seed)
        if one.failure:
            return one
    return None
