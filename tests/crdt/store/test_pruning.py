"""What a terminal forgets (invariant 4): only what a settlement signed by the hub has long included."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.block import parse
from crdt.cursor import Cursor, beginning
from crdt.facts import Draft, Kind
from crdt.frames import BlockFrame, Want
from crdt.frontier import Head
from crdt.settlement import CardRow, seal_page
from crdt.store import pruning
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, OpenTerminal, card

FARE = Draft(Kind.FARE, -250)
DAY_MS = 86_400_000
RETENTION_MS = 35 * DAY_MS
EVERYTHING = 1 << 24


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A hub and two terminals; the passback rule remembers the last three fares."""
    monkeypatch.setattr(pruning, "RECENT_FARES", 3)
    monkeypatch.setattr(pruning, "CHUNK_BLOCKS", 2)
    fleet = Fleet(tmp_path, 2)
    yield fleet
    fleet.close()


def ride(terminal: OpenTerminal, count: int) -> None:
    """So many blocks of one fare each, at times of the terminal's own."""
    begun_ms = 1_000 * terminal.author.certificate.terminal[-1]
    for number in range(count):
        terminal.write(card(number % 4), [FARE], at_ms=begun_ms + number)
        terminal.ledger.seal()


def first_seqs(terminal: OpenTerminal) -> list[int]:
    return [parse(raw).header.first_seq for raw in terminal.ledger.blocks_after(0, EVERYTHING)]


def prune(terminal: OpenTerminal, day: int, keep_deltas: int = 0) -> int:
    return terminal.ledger.prune(day * DAY_MS, RETENTION_MS, keep_deltas)


def test_only_what_has_been_settled_for_the_retention_time_is_forgotten(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    ride(one, 6)
    fleet.push(one)
    assert prune(one, 100) == 0  # the hub holds it, but nothing signed says so yet
    assert prune(one, 900) == 0
    fleet.pull(one)
    ride(one, 4)
    assert prune(one, 1_000) == 0
    assert prune(one, 1_034) == 0
    assert prune(one, 1_035) == 6
    assert first_seqs(one) == [7, 8, 9, 10]  # not settled
    assert prune(one, 2_000) == 0
    assert one.ledger.pruned_until() == {one.ledger.replica: 6}


def test_nothing_that_is_believed_or_said_changes_by_it(fleet: Fleet) -> None:
    """Invariants 3 and 6, before and after a restart; and blocks go on where they were."""
    one = fleet.terminals[0]
    ride(one, 9)
    fleet.push(one)
    fleet.pull(one)
    one.write(card(7), [FARE], at_ms=5_000)

    def said() -> tuple[object, ...]:
        ledger = one.ledger
        views = [ledger.view(card(number)) for number in range(8)]
        return views, ledger.held(), ledger.books(), ledger.digest(), ledger.own_head(), ledger.last_at_ms()

    prune(one, 1)
    before = said()
    assert prune(one, 36) == 6
    assert said() == before
    one.reopen()
    assert [view.balance_minor for view in before[0]] == [  # type: ignore[attr-defined]
        one.ledger.view(card(number)).balance_minor for number in range(8)
    ]
    assert said()[1:] == before[1:]
    fleet.push(one)
    fleet.pull(one)
    assert one.ledger.digest() == fleet.hub.digest().result()


def test_the_last_fares_stay_for_the_passback_rule(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    ride(one, 9)
    fleet.push(one)
    fleet.pull(one)
    prune(one, 1)
    assert prune(one, 400) == 6
    one.reopen()
    assert [one.ledger.view(card(number)).last_fare_at_ms for number in range(4)] == [
        1_008,
        None,
        1_006,
        1_007,
    ]


def test_a_clock_that_jumps_does_not_cost_the_newest_facts(fleet: Fleet) -> None:
    """Terminal time is no time to trust: the last facts are kept whatever it says."""
    one = fleet.terminals[0]
    ride(one, 9)
    fleet.push(one)
    fleet.pull(one)
    prune(one, 1, keep_deltas=7)
    assert prune(one, 100_000, keep_deltas=7) == 2
    assert first_seqs(one) == [3, 4, 5, 6, 7, 8, 9]
    assert prune(one, 5, keep_deltas=0) == 0


def test_a_hub_restored_from_an_old_backup_gets_back_everything_not_forgotten(
    fleet: Fleet, tmp_path: Path
) -> None:
    one, other = fleet.terminals
    ride(one, 5)
    fleet.push(one)
    fleet.pull(one)
    fleet.hub_database.close()
    shutil.copy(tmp_path / "hub.db", tmp_path / "backup.db")
    fleet.open_hub()
    prune(one, 1)
    ride(one, 5)
    ride(other, 2)
    other.ledger.merge(one.ledger.blocks_after(5, EVERYTHING), [one.author.certificate])
    fleet.heal()
    expected = fleet.hub.digest().result()
    assert prune(one, 36) == 5
    fleet.hub_database.close()
    shutil.copy(tmp_path / "backup.db", tmp_path / "hub.db")
    fleet.open_hub()
    fleet.heal()
    assert fleet.hub.digest().result() == expected == one.ledger.digest() == other.ledger.digest()


def test_what_a_restored_hub_has_not_settled_again_is_kept_anew(fleet: Fleet) -> None:
    """The time that counts begins again when a settlement from further back stops including a block."""
    one = fleet.terminals[0]
    ride(one, 6)
    chain = [parse(raw) for raw in one.ledger.blocks_after(0, EVERYTHING)]

    def settle(head: Head) -> None:
        rows = [CardRow(card(number), 0, 0) for number in range(4)]
        cursor = Cursor(1, rows[-1].card)
        heads = {one.ledger.replica: head}
        page = seal_page(
            world.HUB_KEY, world.FLEET, b"S" * 16, 0, beginning(0), cursor, rows, 1, heads, final=True
        )
        assert one.ledger.install(page)

    settle(chain[3].head)
    prune(one, 1)
    settle(chain[0].head)
    prune(one, 30)
    settle(chain[3].head)
    assert prune(one, 40) == 1
    assert prune(one, 60) == 0
    assert prune(one, 75) == 2  # and the last three stay for the passback rule
    assert first_seqs(one) == [4, 5, 6]


def test_who_asks_from_before_gets_what_is_there(fleet: Fleet) -> None:
    """A gap is never papered over: the blocks say themselves what they follow."""
    one, other = fleet.terminals
    ride(one, 8)
    fleet.push(one)
    fleet.pull(one)
    prune(one, 1)
    assert prune(one, 36) == 5
    frames = one.ledger.answer(Want({one.ledger.replica: 2}), EVERYTHING)
    raws = [frame.raw for frame in frames if isinstance(frame, BlockFrame)]
    assert [parse(raw).header.first_seq for raw in raws] == [6, 7, 8]
    report = other.ledger.merge(raws, [one.author.certificate])
    assert (len(report.added), len(report.refused)) == (0, 3)
    fleet.pull(other)
    assert other.ledger.view(card(1)).balance_minor == one.ledger.view(card(1)).balance_minor


def test_relayed_blocks_are_forgotten_too_when_they_are_settled(fleet: Fleet) -> None:
    one, other = fleet.terminals
    ride(one, 6)
    other.ledger.merge(one.ledger.blocks_after(0, EVERYTHING), [one.author.certificate])
    ride(other, 6)
    assert other.ledger.status()["foreign_blocks"] == 6
    fleet.heal()
    prune(other, 1)
    assert prune(other, 36) == 6
    assert other.ledger.status()["foreign_blocks"] == 3
    other.reopen()
    assert other.ledger.status()["foreign_blocks"] == 3
