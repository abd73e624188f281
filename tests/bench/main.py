"""Measures the ledger's figures, ratios within one run beside their targets, and prints a table."""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import depot, doors, merge, reconnect, settle, tap
from tests.bench.table import Figure, rendered

PARTS = ("tap", "doors", "merge", "reconnect", "settle", "depot")


def main() -> int:
    """Print the table; 1 with --strict when a target is missed."""
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--taps", type=int, default=3_000, help="taps and bare commits to compare (%(default)s)"
    )
    parser.add_argument("--told", type=int, default=200, help="taps that another door hears of (%(default)s)")
    parser.add_argument("--merges", type=int, default=5, help="merges to compare (%(default)s)")
    parser.add_argument(
        "--replicas", type=int, default=merge.REPLICAS, help="whose deltas are merged (%(default)s)"
    )
    parser.add_argument(
        "--days", type=int, default=reconnect.DAYS, help="after which a bus comes back (%(default)s)"
    )
    parser.add_argument("--cards", type=int, default=1_000_000, help="cards of the settlement (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="of each kind of load on the hub (%(default)s)"
    )
    parser.add_argument(
        "--connections",
        type=int,
        default=depot.Depot.connections,
        help="terminals connected to the hub (%(default)s)",
    )
    parser.add_argument(
        "--terminals",
        type=int,
        default=depot.Depot.terminals,
        help="enrolled; the connections stand for all of them (%(default)s)",
    )
    parser.add_argument(
        "--minute",
        type=float,
        default=depot.Depot.minute_s,
        help="seconds in which every terminal speaks once, and that count as one (%(default)s)",
    )
    parser.add_argument(
        "--riders", type=int, default=depot.Depot.cards, help="cards that tap at them (%(default)s)"
    )
    parser.add_argument(
        "--directory", type=Path, help="where the databases are made: the disk that is measured"
    )
    parser.add_argument("--strict", action="store_true", help="fail when a target is missed")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {min(unknown)!r}")
    figures: list[Figure] = []
    for part in arguments.parts or PARTS:
        _say(f"{part} ...")
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            figures += _MEASURES[part](Path(directory), arguments)
    sys.stdout.write(rendered(figures) + "\n")
    return int(arguments.strict and not all(figure.met for figure in figures))


def _source() -> random.Random:
    return random.Random(1)  # noqa: S311 - the same load every time


def _depot(wanted: argparse.Namespace) -> depot.Depot:
    return depot.Depot(wanted.terminals, wanted.riders, wanted.connections, wanted.minute)


_MEASURES: dict[str, Callable[[Path, argparse.Namespace], list[Figure]]] = {
    "tap": lambda directory, wanted: [tap.measure(directory, wanted.taps, _source())],
    "doors": lambda directory, wanted: [doors.measure(directory, wanted.told)],
    "merge": lambda directory, wanted: merge.measure(
        directory, merge.prepared(_source(), replicas=wanted.replicas), wanted.merges
    ),
    "reconnect": lambda directory, wanted: reconnect.measure(directory, _source(), wanted.days),
    "settle": lambda directory, wanted: settle.measure(directory, wanted.cards, _source()),
    "depot": lambda directory, wanted: depot.measure(directory, _depot(wanted), wanted.seconds),
}


def _say(what: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(what + "\n")


if __name__ == "__main__":
    sys.exit(main())
