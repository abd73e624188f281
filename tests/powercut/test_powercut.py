"""Power cuts by enumeration: nothing acknowledged is lost, and what would lose something is seen to."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import needs_program
from tests.powercut.campaign import PARTIES, Plan, Tally, in_memory, replay, run
from tests.powercut.load import LOG, run_load
from tests.powercut.oplog import What, read_log
from tests.powercut.parties import LEDGER
from tests.powercut.shim import ROOT, compiled
from tests.powercut.terminal_load import EARLY, NORMAL

needs_program("cc", "compile the shim that logs every write")

STEPS = {"terminal": 30, "hub": 12}
FLAWS = (NORMAL, EARLY)
FLAW_IMAGES = 4_000  # within which each planted flaw is found; measured: 1,300


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim."""
    return compiled(tmp_path_factory.mktemp("shim"))


def check(load: str, library: Path, directory: Path, flaw: str = "") -> Tally:
    """Run a load and check its crash images."""
    with in_memory() as work:
        return run(Plan(load, 1, STEPS[load], 10, flaw, share=60), library, work, directory)


@pytest.mark.parametrize("load", PARTIES)
def test_the_driver_goes_through_the_shim(load: str, library: Path, tmp_path: Path) -> None:
    """Else nothing here would mean anything: SQLite's writes, syncs, truncations and removals are seen."""
    run_load(library, tmp_path, load, 1, 40)
    seen = read_log(tmp_path / LOG)
    assert {operation.what for operation in seen} >= {*What} - {What.RENAME}
    log = {one.handle for one in seen if one.what is What.OPEN and one.name == f"{LEDGER}-wal"}
    assert [one for one in seen if one.what is What.WRITE and one.handle in log]
    assert [one for one in seen if one.what is What.SYNC and one.handle in log]


@pytest.mark.parametrize("load", PARTIES)
def test_invariants_1_3_4_and_6_after_every_power_cut(load: str, library: Path, tmp_path: Path) -> None:
    """Issue 3: "enumerate crash images of a real terminal's and a real hub's writes, and check every one"."""
    tally = check(load, library, tmp_path)
    assert not tally.failure, f"{tally.failure}: tests/powercut/run --replay {tally.kept_in}"
    assert tally.images > 2_000
    assert tally.restarted > 5


@pytest.mark.parametrize("flaw", FLAWS)
@pytest.mark.parametrize("load", PARTIES)
def test_a_planted_flaw_is_found_and_replays(load: str, flaw: str, library: Path, tmp_path: Path) -> None:
    """synchronous=NORMAL, and a green light before COMMIT: each loses something (invariant 1)."""
    tally = check(load, library, tmp_path, flaw)
    assert tally.failure
    assert tally.images < FLAW_IMAGES
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert replay(Path(tally.kept_in), scratch) in tally.failure


def test_the_command_counts_and_replays(tmp_path: Path) -> None:
    """Issue 3: "`--images N` any number"."""
    arguments = ["--images", "1", "--seed", "3", "--steps", "1", "--keep", str(tmp_path)]
    command = [sys.executable, "-m", "tests.powercut.main", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = dict(line.rsplit(None, 1) for line in ran.stdout.splitlines())
    assert int(rows["images"].replace(",", "")) >= 1
    assert rows["broken"] == "0"
    assert not list(tmp_path.iterdir())
