"""Cuts the power of a real terminal and a real hub at every write, and checks what each cut may leave."""

import argparse
import itertools
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.powercut.campaign import Plan, Tally, in_memory, replay, run
from tests.powercut.faults import FAULTS, run_faults
from tests.powercut.shim import compiled

STEPS: Final = {"terminal": 80, "hub": 40}  # of one run of a load; each becomes thousands of images
PER_MOMENT: Final = 12
FAULT_STEPS: Final = 10  # of the load for --faults, which is run anew for each write


@dataclass
class Total:
    """What a campaign has done so far."""

    images: int = 0
    distinct: int = 0
    restarted: int = 0
    cpu_s: float = 0.0
    failure: str = ""
    kept_in: str = ""

    def add(self, tally: Tally) -> None:
        """This was done too."""
        self.images += tally.images
        self.distinct += tally.distinct
        self.restarted += tally.restarted
        self.cpu_s += tally.cpu_s
        if not self.failure:
            self.failure, self.kept_in = tally.failure, tally.kept_in


def main() -> int:
    """Print what was found; 1 when an image is broken."""
    arguments = _arguments()
    with in_memory() as scratch:
        if arguments.faults:
            return _try_faults(scratch)
        if arguments.replay:
            problem = replay(arguments.replay, scratch)
            sys.stdout.write(f"{problem or 'nothing is wrong with this image now'}\n")
            return int(bool(problem))
        begun_s = time.monotonic()
        plans = _plans(arguments.seed, arguments.steps)
        total = campaign(arguments.images, plans, arguments.jobs, scratch, arguments.keep)
    sys.stdout.write(_report(total, time.monotonic() - begun_s))
    return int(bool(total.failure))


def campaign(images: int, plans: Iterator[Plan], jobs: int, scratch: Path, keep: Path) -> Total:
    """Check at least so many images, whole runs of the loads, or stop at the first that is broken."""
    total = Total()
    work = partial(_work, compiled(scratch), scratch, keep)
    if jobs == 1:
        _collect(map(work, plans), total, images)
        return total
    # Plans go to the workers as they come free: `imap` would take all of the endless row.
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        under_way = [pool.apply_async(work, (plan,)) for plan in itertools.islice(plans, jobs)]
        while under_way:  # to the end: a program that is left behind would lose its directory
            total.add(under_way.pop(0).get())
            _say(total, images)
            if total.images < images and not total.failure:
                under_way.append(pool.apply_async(work, (next(plans),)))
    return total


def _try_faults(scratch: Path) -> int:
    """Fail each write and each fsync in turn, and print what came of it."""
    library = compiled(scratch)
    row = "{:9} {:17} {:>6} {:>6} {:>7}  {}\n"
    sys.stdout.write(row.format("", "", "tries", "told", "images", ""))
    for load, fault in itertools.product(STEPS, FAULTS):
        outcome = run_faults(library, scratch, load, fault, FAULT_STEPS, stride=1)
        told = (outcome.tries, outcome.failed, outcome.images, outcome.problem)
        sys.stdout.write(row.format(load, fault, *told))
        if outcome.problem:
            return 1
    return 0


def _collect(tallies: Iterator[Tally], total: Total, images: int) -> None:
    while total.images < images and not total.failure:
        total.add(next(tallies))
        _say(total, images)


def _plans(seed: int, shorter: int | None) -> Iterator[Plan]:
    for number in itertools.count(seed):
        for load, steps in STEPS.items():
            yield Plan(load, number, shorter or steps, PER_MOMENT)


def _work(library: Path, scratch: Path, keep: Path, plan: Plan) -> Tally:
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        return run(plan, library, Path(directory), keep)


def _say(total: Total, images: int) -> None:
    if sys.stderr.isatty():
        done = min(1.0, total.images / images)
        sys.stderr.write(f"\r[{'#' * int(40 * done):40}] {total.images:,} images")
        sys.stderr.write("\n" if done == 1.0 or total.failure else "")


def _report(total: Total, elapsed_s: float) -> str:
    lines = [
        f"images              {total.images:>10,}",
        f"distinct            {total.distinct:>10,}",
        f"started and used    {total.restarted:>10,}",
        f"images/s            {total.images / elapsed_s:>10,.0f}",
        f"images/s a core     {total.images / (total.cpu_s or 1):>10,.0f}",
        f"broken              {int(bool(total.failure)):>10,}",
    ]
    if total.failure:
        lines += [total.failure, f"again: tests/powercut/run --replay {total.kept_in}"]
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/powercut/run", description=__doc__)
    parser.add_argument("--images", type=int, default=20_000, help="how many at least (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first run of the loads (%(default)s)")
    parser.add_argument("--steps", type=int, help="of one run of each load (terminal: 80, hub: 40)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    keep = Path(tempfile.gettempdir())
    parser.add_argument("--keep", type=Path, default=keep, help="where a broken image goes (%(default)s)")
    parser.add_argument("--replay", type=Path, metavar="DIRECTORY", help="check a kept image once more")
    parser.add_argument("--faults", action="store_true", help="instead: a disk that fails at each write")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
