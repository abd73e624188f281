"""`farebox-hub demo --headless`: plays the scripted round, waits for agreement, compares, and reports."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .audit import Audit, audit
from .bus import Bus
from .cast import money
from .compare import LedgerView, differences
from .errors import DemoError
from .script import Round
from .stage import Stage
from .state import Reading

CONVERGE_TIMEOUT_S: Final = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What a round came to: the table's rows, and every difference as a sentence (none: all is well)."""

    rows: Sequence[Sequence[str]]
    problems: Sequence[str]


HEADINGS: Final = ("ledger", "accepted", "refused", "no answer", "held", "entries", "sum", "digest")


async def play(stage: Stage, seed: int, seconds: float, say: Say) -> Result:
    """Plays on a stage that was started; stops the hub at the end, to read its disk."""
    script = Round(stage, seed, seconds, say)
    await script.play()
    say("no more taps; waiting until all four ledgers agree")
    if not await stage.agree(CONVERGE_TIMEOUT_S):
        say(f"they did not within {CONVERGE_TIMEOUT_S:.0f} s")
    result = await check(stage)
    return replace(result, problems=[*script.broken, *result.problems])


async def check(stage: Stage) -> Result:
    """Compares what the terminals told the passengers with all four ledgers and with the hub's disk."""
    views = ledger_views(stage)
    buses = list(stage.buses.values())
    await stage.depot.stop()
    found = await asyncio.to_thread(audit, stage.depot.database, stage.depot.key_file)
    witnesses = [bus.tally.witness(bus.role.name, bus.replica) for bus in buses]
    problems = [*found.problems, *differences(witnesses, found.facts, [*views, found.view])]
    return Result(_rows(views, buses, found), problems)


def ledger_views(stage: Stage) -> list[LedgerView]:
    """The four ledgers as they said of themselves in the last look; DemoError when one never answered."""
    readings: Mapping[str, Reading | None] = {
        "hub": stage.depot.reading,
        **{bus.role.name: bus.reading for bus in stage.buses.values()},
    }
    views = []
    for name, reading in readings.items():
        if reading is None:
            raise DemoError(f"{name} never said what its ledger holds.")
        views.append(LedgerView(name, reading.digest, reading.held, reading.balanced, reading.balances))
    return views


def _rows(views: Sequence[LedgerView], buses: Sequence[Bus], found: Audit) -> list[list[str]]:
    taps = {bus.role.name: bus.tally for bus in buses}
    written = {bus.role.name: sum(fact.replica == bus.replica for fact in found.facts) for bus in buses}
    rows = []
    for view in views:
        tally = taps.get(view.name)
        counts = (tally.accepted, tally.refused, tally.unanswered) if tally is not None else ()
        told = [str(count.total()) for count in counts] or ["–"] * 3
        entries = written.get(view.name, len(found.facts))
        total = money(sum(view.balances.values()))
        rows.append([view.name, *told, str(view.held), str(entries), total, view.digest[:16]])
    return rows


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text under the headings, in columns: first and last to the left, numbers to the right."""
    lines = [HEADINGS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    last = len(HEADINGS) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def report(result: Result) -> str:
    """The table and the verdict, for a person or a script to read."""
    verdict = "no" if result.problems else "yes"
    return "\n".join([table(result.rows), "", *result.problems, f"books balance: {verdict}"])
