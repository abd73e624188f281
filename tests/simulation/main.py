"""Plays seeds of the fleet simulation; prints how fast, and the first one that breaks a promise."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from itertools import islice
from multiprocessing import get_context
from typing import Final

from tests.simulation.play import Played, play

REPORT_S: Final = 5.0


def main(play: Callable[..., Played], program: str, description: str) -> int:
    """Play; 1 when a seed fails."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the first (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--digest", action="store_true", help="print a hash of everything that happened")
    arguments = parser.parse_args()
    if arguments.seeds < 1 or arguments.jobs < 1:
        parser.error("--seeds and --jobs are at least 1")
    return _play_all(play, program, arguments)


def _play_all(play: Callable[..., Played], program: str, arguments: argparse.Namespace) -> int:
    began_s = reported_s = time.monotonic()
    done = steps = 0
    everything = sha256()
    for one in _played(partial(play, digest=arguments.digest), arguments):
        done, steps = done + 1, steps + one.steps
        everything.update(one.digest.encode())
        now_s = time.monotonic()
        if one.failure:
            _say(f"{_story(one, program)}\n{done} seeds until then, {done / (now_s - began_s):.1f} seeds/s")
            return 1
        if now_s - reported_s > REPORT_S and sys.stderr.isatty():
            reported_s = now_s
            sys.stderr.write(f"\r{done} of {arguments.seeds} seeds ")
    took_s = time.monotonic() - began_s
    _say(
        f"{done} seeds, {steps} steps, no promise broken: {done / took_s:.1f} seeds/s"
        f" with {arguments.jobs} process(es), {steps / done:.1f} steps a seed"
    )
    if arguments.digest:
        _say(f"digest {everything.hexdigest()}")
    return 0


def _played(play: Callable[[int], Played], arguments: argparse.Namespace) -> Iterator[Played]:
    """In order of the seeds."""
    seeds = iter(range(arguments.seed, arguments.seed + arguments.seeds))
    if arguments.jobs == 1:
        yield from map(play, seeds)
        return
    with get_context("spawn").Pool(arguments.jobs) as pool:
        for part in iter(lambda: list(islice(seeds, 64 * arguments.jobs)), []):
            yield from pool.imap(play, part, chunksize=8)


def _story(one: Played, program: str) -> str:
    steps = "\n".join(f"  {number:3} {line}" for number, line in enumerate(one.trace, 1))
    return (
        f"seed {one.seed} fails in step {len(one.trace)}:\n{steps}\n\n{one.failure}\n\n"
        f"Again: {program} --seeds 1 --seed {one.seed}"
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(play, "tests/simulation/run", __doc__ or ""))
