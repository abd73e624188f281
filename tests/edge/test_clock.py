"""Terminal time (invariant 9): monotone, honest about its error, a new epoch at each step."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.facts import MAX_CLOCK_ERROR_MS
from edge.clock import (
    FLOOR_STEP_MS,
    MAX_LEAD_MS,
    STEP_MS,
    SYNCHRONISED_ERROR_MS,
    UNKNOWN_ERROR_MS,
    TerminalClock,
    system_clock_ms,
)

NOON = 1_780_000_000_000
IN_2099 = 4_080_000_000_000


@dataclass
class World:
    """A system clock somebody can move, and a monotonic one nobody can."""

    wall: int = NOON
    elapsed: int = 0
    synchronised: int | None = None
    epochs: list[int] = field(default_factory=list)
    floors: list[int] = field(default_factory=list)

    def clock(self, floor_ms: int = 0, epoch: int = 5) -> TerminalClock:
        return TerminalClock(
            floor_ms=floor_ms,
            epoch=epoch,
            save_epoch=self.epochs.append,
            save_floor=self.floors.append,
            wall_ms=lambda: self.wall,
            elapsed_ms=lambda: self.elapsed,
            synchronised_ms=lambda: self.synchronised,
        )

    def pass_ms(self, ms: int, slew: int = 0) -> None:
        self.elapsed += ms
        self.wall += ms + slew


def test_it_follows_the_system_clock_and_its_slewing_within_one_epoch() -> None:
    world = World()
    clock = world.clock()
    world.pass_ms(3_600_000, slew=1_500)
    reading = clock.read()
    assert (reading.at_ms, reading.epoch) == (world.wall, 5)
    assert world.epochs == []


def test_it_never_starts_before_what_the_ledger_holds_and_then_runs_on() -> None:
    """A Pi that boots in 1970 goes on from its last tap, so that two taps keep their distance."""
    world = World(wall=0)
    clock = world.clock(floor_ms=NOON)
    assert clock.read().at_ms == NOON
    world.pass_ms(90_000)
    assert clock.read().at_ms == NOON + 90_000


def test_a_step_forward_is_followed_and_starts_an_epoch() -> None:
    world = World(wall=0)
    clock = world.clock(floor_ms=NOON)
    clock.read()
    world.wall = NOON + 500_000
    assert clock.read().at_ms == NOON + 500_000
    assert clock.read().epoch == 6
    assert world.epochs == [6], "the new epoch was saved before it was used"


def test_a_step_back_is_not_followed_but_told_in_epoch_and_error() -> None:
    world = World(synchronised=NOON)
    clock = world.clock()
    before = clock.read()
    world.pass_ms(1_000)
    world.wall -= 3_600_000
    world.synchronised = world.wall
    after = clock.read()
    assert after.at_ms == before.at_ms + 1_000
    assert after.epoch == before.epoch + 1
    assert after.error_ms == 3_600_000 + SYNCHRONISED_ERROR_MS


def test_a_failing_disk_at_a_step_loses_no_epoch() -> None:
    """The epoch is saved before it is used; where that fails the reading fails and the step is seen again."""
    world = World()
    failures = [OSError("disk full")]

    def save(epoch: int) -> None:
        if failures:
            raise failures.pop()
        world.epochs.append(epoch)

    clock = TerminalClock(
        floor_ms=0,
        epoch=1,
        save_epoch=save,
        save_floor=lambda _floor_ms: None,
        wall_ms=lambda: world.wall,
        elapsed_ms=lambda: world.elapsed,
        synchronised_ms=lambda: None,
    )
    world.wall += 10 * STEP_MS
    with pytest.raises(OSError, match="disk full"):
        clock.read()
    assert clock.read().epoch == 2
    assert world.epochs == [2]


def test_a_failing_disk_keeps_a_disproved_lead_for_the_next_reading() -> None:
    world = World()
    failures = [OSError("disk full")]

    def save(_epoch: int) -> None:
        if failures:
            raise failures.pop()

    clock = TerminalClock(
        floor_ms=IN_2099,
        epoch=1,
        save_epoch=save,
        save_floor=lambda _floor_ms: None,
        wall_ms=lambda: world.wall,
        elapsed_ms=lambda: world.elapsed,
        synchronised_ms=lambda: None,
    )
    clock.compare(NOON, 1_000)
    with pytest.raises(OSError, match="disk full"):
        clock.read()
    reading = clock.read()
    assert (reading.at_ms, reading.epoch) == (NOON, 2)


def test_the_stated_error_covers_a_far_future_that_nothing_has_disproved_yet() -> None:
    """Invariant 9: the estimate is an estimate, not a cap."""
    world = World(wall=NOON)
    reading = world.clock(floor_ms=IN_2099).read()
    assert reading.at_ms == IN_2099
    assert reading.error_ms == UNKNOWN_ERROR_MS + IN_2099 - NOON
    year_9999 = World(wall=253_000_000_000_000).clock().read()
    assert year_9999.error_ms >= year_9999.at_ms - NOON


@pytest.mark.parametrize("by_hub", [True, False], ids=["hub", "NTP"])
@pytest.mark.parametrize("restarted", [True, False])
def test_a_tap_dated_2099_does_not_date_all_later_taps(by_hub: bool, restarted: bool) -> None:
    """Once NTP or the hub shows that 2099 has not come, a new epoch starts at the system clock."""
    world = World(wall=NOON)
    clock = world.clock()
    world.wall = IN_2099
    wrong = clock.read()
    world.pass_ms(1_000)
    world.wall = NOON + 60_000
    if restarted:
        clock = world.clock(floor_ms=wrong.at_ms, epoch=wrong.epoch + 1)
    before = clock.read()
    assert before.at_ms >= IN_2099, "nothing has shown yet which of the two is right"
    if by_hub:
        clock.compare(world.wall, 1_000)
    else:
        world.synchronised = world.wall
    world.pass_ms(500)
    after = clock.read()
    assert after.at_ms == world.wall
    assert after.error_ms <= 2_000
    assert after.epoch == before.epoch + 1
    assert world.epochs[-1] == after.epoch, "saved before it was used"
    assert abs(clock.as_now(before.at_ms) - after.at_ms) <= 1_000, "passback still counts the time between"
    assert clock.as_now(after.at_ms) == after.at_ms
    assert clock.read().epoch == after.epoch


def test_a_hub_that_agrees_with_a_wrong_system_clock_sets_nothing() -> None:
    """The system clock itself is in 2099: the hub's clock bounds the error and never sets the time."""
    world = World(wall=IN_2099)
    clock = world.clock()
    clock.compare(NOON, 1_000)
    reading = clock.read()
    assert (reading.at_ms, reading.epoch) == (IN_2099, 5)
    assert reading.error_ms == IN_2099 - NOON + 1_000


def test_a_lead_that_a_night_mends_is_kept() -> None:
    world = World(wall=NOON)
    clock = world.clock(floor_ms=NOON + MAX_LEAD_MS)
    clock.compare(NOON, 1_000)
    assert clock.read().at_ms == NOON + MAX_LEAD_MS
    assert world.epochs == []


def test_never_synchronised_means_a_large_error() -> None:
    assert World().clock().read().error_ms == UNKNOWN_ERROR_MS


def test_synchronised_means_a_small_error_that_grows() -> None:
    world = World(synchronised=NOON)
    clock = world.clock()
    assert clock.read().error_ms == SYNCHRONISED_ERROR_MS
    world.pass_ms(10_000_000)
    assert clock.read().error_ms == SYNCHRONISED_ERROR_MS + 1_000


def test_a_clock_moved_by_hand_after_it_was_synchronised_is_not_believed() -> None:
    world = World(synchronised=NOON)
    clock = world.clock()
    world.wall += 86_400_000
    assert clock.read().error_ms == UNKNOWN_ERROR_MS
    world.synchronised = world.wall
    assert clock.read().error_ms == SYNCHRONISED_ERROR_MS


def test_the_hubs_clock_bounds_the_error_and_sets_nothing() -> None:
    world = World()
    clock = world.clock()
    clock.compare(reference_ms=NOON + 40_000, uncertainty_ms=1_000)
    reading = clock.read()
    assert reading.error_ms == 41_000
    assert reading.at_ms == NOON


def test_the_real_clocks_are_the_defaults() -> None:
    before = system_clock_ms()
    clock = TerminalClock(floor_ms=0, epoch=1, save_epoch=lambda _epoch: None, save_floor=lambda _ms: None)
    assert clock.read().at_ms >= before


MOVES = st.lists(
    st.tuples(st.integers(0, 10_000_000), st.one_of(st.just(0), st.integers(-NOON, NOON)), st.booleans()),
    max_size=30,
)


@given(MOVES, st.integers(0, 2 * NOON))
def test_no_sequence_of_steps_makes_it_run_backwards_within_an_epoch_or_reuse_one(
    moves: list[tuple[int, int, bool]], floor_ms: int
) -> None:
    world = World()
    clock = world.clock(floor_ms=floor_ms)
    last = clock.read()
    assert last.at_ms >= floor_ms
    for passed, jump, compared in moves:
        world.pass_ms(passed)
        world.wall = max(0, world.wall + jump)
        if compared:
            clock.compare(world.wall, 1_000)
        now = clock.read()
        in_the_future = last.at_ms > world.wall + MAX_LEAD_MS
        assert now.at_ms >= last.at_ms or (compared and in_the_future and now.epoch > last.epoch)
        assert 0 <= now.error_ms <= MAX_CLOCK_ERROR_MS
        assert now.epoch in (last.epoch, last.epoch + 1)
        last = now
    assert world.epochs == sorted(set(world.epochs))


def test_what_it_has_told_it_keeps_over_a_start_with_a_clock_in_the_past() -> None:
    """A day is complete when its terminal has said, after its end, that it has all: it dates nothing back."""
    world = World()
    clock = world.clock(floor_ms=NOON - 86_400_000)
    clock.compare(NOON, 1_000)
    told_ms = clock.dated_from()
    assert NOON - FLOOR_STEP_MS < told_ms <= NOON
    world.pass_ms(FLOOR_STEP_MS)
    assert clock.dated_from() == told_ms + FLOOR_STEP_MS
    assert world.floors == [told_ms, told_ms + FLOOR_STEP_MS], (
        "durable before it is told, and told again for nothing"
    )
    assert clock.dated_from() == world.floors[-1]
    assert len(world.floors) == 2
    again = World(wall=0).clock(floor_ms=world.floors[-1])
    assert again.read().at_ms >= world.floors[-1]


def test_it_promises_nothing_of_a_future_that_no_other_clock_confirms() -> None:
    """Kept, that time would stay: only the hub's clock, or a tap, takes it on."""
    world = World(wall=IN_2099)
    clock = world.clock(floor_ms=NOON)
    assert clock.dated_from() == NOON // FLOOR_STEP_MS * FLOOR_STEP_MS
    clock.compare(NOON, 1_000)
    assert clock.dated_from() == NOON // FLOOR_STEP_MS * FLOOR_STEP_MS
    assert world.floors == []


def test_a_promise_falls_with_a_future_that_was_disproved() -> None:
    world = World(wall=NOON, synchronised=NOON)
    clock = world.clock(floor_ms=IN_2099)
    assert clock.dated_from() == NOON // FLOOR_STEP_MS * FLOOR_STEP_MS
    assert world.floors == [NOON // FLOOR_STEP_MS * FLOOR_STEP_MS]
