"""The program that a power cut hits, run with the shim preloaded: see `run_load`."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import Final

from tests.powercut import hub_load, terminal_load
from tests.powercut.parties import small
from tests.powercut.shim import ROOT, Shim, environment

Load = Callable[..., AbstractContextManager[terminal_load.Worker | hub_load.Worker]]
LOADS: Final[dict[str, Load]] = {"terminal": terminal_load.at_work, "hub": hub_load.at_work}
STATE: Final = "state"  # the watched directory
LOG: Final = "log"
_PATIENCE_S: Final = 120


def run_load(library: Path, directory: Path, load: str, seed: int, steps: int, flaw: str = "") -> None:
    """Run a load in a program of its own: its files come to STATE and its log to LOG, both in `directory`."""
    arguments = [load, str(directory), str(seed), str(steps), flaw]
    command = [sys.executable, "-m", "tests.powercut.load", *arguments]
    subprocess.run(command, env=environment(library), cwd=ROOT, check=True, timeout=_PATIENCE_S)


def main(load: str, directory: str, seed: str, steps: str, flaw: str) -> int:
    """Begin the log, do the work."""
    base = Path(directory).resolve()
    state, outside = base / STATE, base / "outside"
    state.mkdir()
    outside.mkdir()
    shim = Shim()
    shim.begin(state, base / LOG)
    chance = Random(f"{load} {seed}")  # noqa: S311 - the same work every time
    with small(), LOADS[load](state, outside, shim, chance, flaw) as worker:
        for _ in range(int(steps)):
            worker.step()
    shim.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
