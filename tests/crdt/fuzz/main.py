"""Throws mutants, with checksums and signatures that are right, at every decoder of the ledger."""

import argparse
import sys
import time
import traceback
from collections.abc import Iterable, Iterator

from tests.crdt.fuzz.campaign import CRASHERS, TARGETS, Campaign, Finding

_MAX_S = 5.0  # processor time for one mutant: a hundred times what the slowest takes


def main() -> int:
    """Print what was tried; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="tests/crdt/fuzz/run", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="where to begin (%(default)s)")
    parser.add_argument("--number", type=int, help="try this mutant alone: what a finding names")
    parser.add_argument("--keep-going", action="store_true", help="go on after a finding")
    wanted = parser.parse_args()
    if unknown := set(wanted.targets) - set(TARGETS):
        parser.error(f"there is no target {min(unknown)!r}")
    chosen = [TARGETS[name] for name in wanted.targets or TARGETS]
    campaign = Campaign(wanted.seed, chosen, _MAX_S)
    if wanted.number is not None:
        return sum(_tried_alone(campaign, name, wanted.number) for name in wanted.targets)
    found = _run(campaign, wanted.seconds, keep_going=wanted.keep_going)
    _report(campaign, wanted.seconds, found)
    return int(found > 0)


def _run(campaign: Campaign, seconds: float, *, keep_going: bool) -> int:
    began, found, number = time.monotonic(), 0, 0
    while True:
        try:
            for done in campaign.run(_from(number)):
                number = done + 1
                left = began + seconds - time.monotonic()
                _progress(1 - max(0.0, left) / seconds, number)
                if left <= 0:
                    return found
        except Finding as finding:
            found += 1
            _tell(campaign, finding)
            number = finding.index + 1
            if not keep_going:
                return found


def _from(number: int) -> Iterator[int]:
    while True:
        yield number
        number += 1


def _tried_alone(campaign: Campaign, name: str, number: int) -> int:
    try:
        campaign.try_one(TARGETS[name], number)
    except Finding as finding:
        _tell(campaign, finding)
        return 1
    return 0


def _tell(campaign: Campaign, finding: Finding) -> None:
    path = CRASHERS / finding.target.name / f"seed-{campaign.seed}-number-{finding.index}.hex"
    path.parent.mkdir(exist_ok=True)
    path.write_text(finding.data.hex() + "\n")
    cause = finding.__cause__
    if cause is not None:
        traceback.print_exception(cause)
    sys.stderr.write(
        f"found: {finding}; kept as {path}: name it in refused/ or accepted/ there when it is mended\n"
    )
    again = f"{finding.target.name} --seed {campaign.seed} --number {finding.index}"
    sys.stderr.write(f"again: tests/crdt/fuzz/run {again}\n")


def _report(campaign: Campaign, seconds: float, found: int) -> None:
    rows = [("target", "tried", "accepted", "slowest", "most memory")]
    for name, tally in campaign.tallies.items():
        slowest, peak = f"{tally.slowest_s * 1000:.0f} ms", f"{tally.peak_bytes / 2**20:.1f} MiB"
        rows.append((name, f"{tally.executed}", f"{tally.accepted}", slowest, peak))
    sys.stdout.write("\n".join(_aligned(rows)) + "\n")
    tried = sum(tally.executed for tally in campaign.tallies.values())
    sys.stdout.write(f"{tried} mutants, {tried / seconds:.0f} a second, {found} findings\n")


def _aligned(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for name, *others in rows:
        yield f"{name:20}" + "".join(f"{other:>12}" for other in others)


def _progress(part: float, number: int) -> None:
    if sys.stderr.isatty() and number % 100 == 0:
        bar = "#" * int(part * 40)
        sys.stderr.write(f"\r[{bar:40}] {number} mutants" + ("\n" if part >= 1 else ""))


if __name__ == "__main__":
    sys.exit(main())
