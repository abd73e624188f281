"""The benchmarks as a person runs them, so small that their figures mean nothing: they have not rotted."""

import re
import subprocess
import sys

import pytest

from tests.bench.main import PARTS
from tests.repository import ROOT

SIZES = {
    **{"taps": 20, "told": 2, "merges": 1, "replicas": 2, "days": 1, "cards": 2_000},
    **{"seconds": 0.5, "connections": 4, "terminals": 40, "minute": 1, "riders": 500},
}
FIGURES = {
    "tap": ("tap: decide + commit",),
    "doors": ("two doors: ms until the other knows",),
    "merge": ("hub merge / bare executemany", "wire: bytes a delta", "history behind the merge"),
    "reconnect": ("1 days of a bus reconnect: seconds", "1 days of a bus reconnect: bytes a tap"),
    "settle": ("first settlement: seconds", "bytes a card", "peak RSS", "1 % increment"),
    "depot": (
        "40 terminals, each once a minute: a second",
        "40 terminals, each once a minute: taps acknowledged",
        "40 terminals, each once a minute: age of a tap, p99, s",
        "busy hour: terminals one hub process carries",
    ),
}
"""What issue 3 asks of each part: "`tests/bench/run` prints, in one run each: ..."; and "within a second"."""


@pytest.mark.parametrize("part", PARTS)
def test_a_part_measures_every_figure(part: str) -> None:
    """Each has its row in the table, with a positive number; how large, only a quiet machine can say."""
    sizes = [f"--{name}={size}" for name, size in SIZES.items()]
    command = [sys.executable, "-m", "tests.bench.main", part, *sizes]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    rows = ran.stdout.splitlines()[2:]
    for figure in FIGURES[part]:
        (row, *_) = [row for row in rows if figure in row]
        measured = re.search(r" {2,}([\d,]+\.\d\d)(?: |$)", row)
        assert measured, row
        assert float(measured[1].replace(",", "")) > 0, row
