"""Programs that die in the middle, and disks that fill up: nothing acknowledged is lost or doubled."""

import random
import signal
import subprocess
from pathlib import Path

from crdt.block import parse
from tests import forked
from tests.crdt import world
from tests.crdt.store.fleet import OpenTerminal, card, deltas_of

ROOT = Path(__file__).parents[3]
ROUNDS = 8
PATIENCE_S = 60


def start(path: Path, *arguments: str) -> subprocess.Popen[str]:
    """The tapping program on this ledger."""
    return forked.Process(
        *("tests.crdt.store.tapper", str(path), *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )


def check(path: Path, acknowledged: int) -> int:
    """Open the ledger and look at every tap; how many there are."""
    terminal = OpenTerminal(world.TERMINALS[0], path)
    ledger = terminal.ledger
    count = ledger.status()["head_seq"]
    assert acknowledged <= count <= acknowledged + 1  # one may have been on its way
    ledger.seal()
    blocks = [parse(raw) for raw in ledger.blocks_after(0, 1 << 30)]
    deltas = [delta for block in blocks for delta in deltas_of(block)]
    assert [(delta.seq, -delta.amount_minor, delta.at_ms) for delta in deltas] == [
        (number, number, number) for number in range(1, count + 1)
    ]
    for number in range(5):
        owed = sum(each for each in range(1, count + 1) if each % 5 == number)
        assert ledger.view(card(number)).balance_minor == -owed
    assert ledger.books().balance
    assert ledger.held()[0] == count
    terminal.close()
    return count


def test_invariant_1_and_4_kill_9_in_a_loop_loses_no_acknowledged_tap_and_doubles_none(
    tmp_path: Path,
) -> None:
    """Issue 2: kill -9 under taps; seals, and the ledger's own opening, are hit as well."""
    path = tmp_path / "terminal.db"
    chance = random.Random(4)  # noqa: S311 - when to kill
    count = 0
    for _ in range(ROUNDS):
        with start(path) as program:
            assert program.stdout is not None
            for _tap in range(chance.randrange(1, 40)):
                line = program.stdout.readline()
                assert line, program.stderr.read() if program.stderr else ""
            program.send_signal(signal.SIGKILL)
            lines = [line, *program.stdout.read().split("\n")]
        acknowledged = max(int(each) for each in lines if each.strip())
        assert acknowledged > count
        count = check(path, acknowledged)


def test_a_full_disk_stops_the_ledger_with_a_sentence_and_loses_nothing(tmp_path: Path) -> None:
    """A failed write is not tried again: everything is refused until a new start, which finds every tap."""
    path = tmp_path / "terminal.db"
    with start(path, str(256 * 1024)) as program:
        output, errors = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 3, errors
    assert "The ledger stopped working: " in errors
    assert "check that the disk is healthy and has space" in errors
    check(path, len(output.split()))
