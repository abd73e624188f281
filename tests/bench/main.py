"""Measures the ledger's figures, each as a ratio within one run beside its target, and prints a table."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.bench import merge, tap
from tests.bench.table import Figure, rendered


def main() -> int:
    """Print the table; 1 with --strict when a target is missed."""
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument(
        "--taps", type=int, default=3_000, help="taps and bare commits to compare (%(default)s)"
    )
    parser.add_argument("--merges", type=int, default=5, help="merges to compare (%(default)s)")
    parser.add_argument(
        "--directory", type=Path, help="where the databases are made: the disk that is measured"
    )
    parser.add_argument("--strict", action="store_true", help="fail when a target is missed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        figures = _figures(Path(directory), arguments.taps, arguments.merges)
    sys.stdout.write(rendered(figures) + "\n")
    return int(arguments.strict and not all(figure.met for figure in figures))


def _figures(directory: Path, taps: int, merges: int) -> list[Figure]:
    source = random.Random(1)  # noqa: S311 - the same load every time
    _say("taps ...")
    figures = [tap.measure(directory, taps, source)]
    _say("sealing 200,000 deltas ...")
    load = merge.prepared(source)
    _say("merges ...")
    return [*figures, merge.measure(directory, load, merges), merge.wire(load)]


def _say(what: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(what + "\n")


if __name__ == "__main__":
    sys.exit(main())
