"""What a tap costs on the wire is what the README says it costs."""

import random
import re
from pathlib import Path

import pytest

from crdt.facts import CardId, Context, Delta, Kind
from crdt.numbering import shorten
from tests.crdt.world import terminal

DAY_MS = 86_400_000
README = (Path(__file__).parents[2] / "crdt" / "README.md").read_text()


def bus_taps(replica_number: int, cards: list[CardId], unit_ms: int, *, stops: bool) -> list[Delta]:
    """2,000 taps of one bus within a day: mostly one fare, trips of an hour, a stop every 90 seconds."""
    source = random.Random(replica_number)  # noqa: S311  # a fixed seed, no secret
    author = terminal(replica_number).key.replica
    times = sorted(source.randrange(DAY_MS) // unit_ms * unit_ms for _ in range(2000))
    return [
        Delta(
            author,
            seq,
            source.choice(cards),
            Kind.FARE,
            source.choices([-250, -125, 0], [90, 8, 2])[0],
            1_790_000_000_000 + at,
            Context("110", f"T{at // 3_600_000}", f"{750_000 + at // 90_000 % 40}" if stops else ""),
        )
        for seq, at in enumerate(times, 1)
    ]


def bytes_a_delta(unit_ms: int, *, short: bool, stops: bool) -> float:
    source = random.Random(1)  # noqa: S311  # a fixed seed, no secret
    cards = [CardId(source.randbytes(7)) for _ in range(20_000)]
    numbers = {card: number for number, card in enumerate(cards, 1)}
    buses = range(1, 5)  # of the 100 in the README; each is alike
    total = 0
    for bus in buses:
        for block in terminal(bus).blocks(bus_taps(bus, cards, unit_ms, stops=stops), [250] * 8):
            sent = shorten(block, numbers) if short else block.raw
            assert sent is not None
            total += len(sent)
    return total / (2000 * len(buses))


COSTS = re.findall(
    r"^\| (whole seconds|tenths|milliseconds) \| (\S+) \| (\S+) \| (\S+) \|$", README, re.MULTILINE
)
UNITS_MS = {"whole seconds": 1000, "tenths": 100, "milliseconds": 1}


@pytest.mark.parametrize(("unit", "in_full", "short", "with_stops"), COSTS)
def test_the_readmes_bytes_a_delta_are_measured(unit: str, in_full: str, short: str, with_stops: str) -> None:
    """Signature, hashes and headers included; a newer zstd may differ a little."""
    unit_ms = UNITS_MS[unit]
    assert bytes_a_delta(unit_ms, short=False, stops=False) == pytest.approx(float(in_full), abs=0.1)
    assert bytes_a_delta(unit_ms, short=True, stops=False) == pytest.approx(float(short), abs=0.1)
    assert bytes_a_delta(unit_ms, short=True, stops=True) == pytest.approx(float(with_stops), abs=0.1)


def test_a_delta_costs_at_most_six_bytes_on_the_wire() -> None:
    """The issue's figure, in the worst unit of time: milliseconds."""
    assert {row[0] for row in COSTS} == set(UNITS_MS)
    assert bytes_a_delta(1, short=True, stops=False) <= 6
