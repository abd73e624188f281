"""What a tap costs on the wire is what the README says it costs."""

import random
import re
from pathlib import Path

import pytest

from crdt.facts import CardId, Context, Delta, Kind
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


def bytes_a_delta(unit_ms: int, *, stops: bool) -> float:
    source = random.Random(1)  # noqa: S311  # a fixed seed, no secret
    cards = [CardId(source.randbytes(7)) for _ in range(20_000)]
    numbers = range(1, 5)  # of the 100 buses in the README; each is alike
    total = 0
    for number in numbers:
        taps = bus_taps(number, cards, unit_ms, stops=stops)
        total += sum(len(block.raw) for block in terminal(number).blocks(taps, [250] * 8))
    return total / (2000 * len(numbers))


def test_the_readmes_bytes_a_delta_are_measured() -> None:
    """Signature, hashes and headers included; a newer zstd may differ a little."""
    found = re.search(
        r"(\S+)\s+bytes a delta when times are whole seconds, (\S+) in tenths, (\S+) in mil", README
    )
    assert found
    for unit_ms, stated in zip((1000, 100, 1), found.groups(), strict=True):
        assert bytes_a_delta(unit_ms, stops=False) == pytest.approx(float(stated), abs=0.1)
    more = re.search(r"another (\S+) where the stop changes", README)
    assert more
    difference = bytes_a_delta(1000, stops=True) - bytes_a_delta(1000, stops=False)
    assert difference == pytest.approx(float(more[1]), abs=0.1)
