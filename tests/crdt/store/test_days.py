"""Days of service: closed once, and restated by explicit adjustments when late blocks come."""

from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt.block import Block
from crdt.documents import SignedDocument
from crdt.errors import MisuseError
from crdt.facts import NO_CONTEXT, Context, Delta, Draft, Kind, ReplicaId
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store.closing import close_if_ready
from crdt.store.completeness import Complete
from crdt.store.days import NO_FIGURES, QUARTER_MS, Day, Figures, tally
from crdt.store.hub import HubLedger
from crdt.store.projection import CATCH_UP_STEPS, STEP_BLOCKS
from tests.crdt import world
from tests.crdt.store.behind import forget_history
from tests.crdt.store.branches import as_of, caught_up, renewed
from tests.crdt.store.fleet import Fleet, card, deltas_of
from tests.crdt.store.quarantined import at_rest
from tests.crdt.store.stores import NewFleet

ONE, OTHER, _ = world.TERMINALS
HOUR_MS = 4 * QUARTER_MS
START_MS = 1_790_000_000_000 // HOUR_MS * HOUR_MS
DAY = Day(START_MS, START_MS + 24 * HOUR_MS, 1)
NEXT = Day(DAY.end_ms, DAY.end_ms + 25 * HOUR_MS, 2)  # clocks go back


def taps(*hours: float, author: world.Terminal = ONE) -> list[Delta]:
    """A ride for 250 at each of these hours after the day's start; the first one opens the card too."""
    kinds = [(Kind.OPENING, 500, hours[0]), *((Kind.FARE, -250, hour) for hour in hours)]
    return [
        Delta(author.key.replica, seq, card(1), kind, amount, START_MS + int(hour * HOUR_MS))
        for seq, (kind, amount, hour) in enumerate(kinds, 1)
    ]


def merge(hub: HubLedger, blocks: list[Block]) -> None:
    """Merge and wait until the history has it."""
    assert not hub.merge([block.raw for block in blocks]).result().refused
    caught_up(hub)


def revoke(hub: HubLedger, version: int, revocations: Revocations) -> None:
    """Put a new list of revocations."""
    body = revocations.encode()
    hub.put_document(
        SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, version, body)
    ).result()


def test_late_blocks_restate_a_closed_day_as_explicit_adjustments(fleet: Fleet) -> None:
    """The closed figure never changes; the report is the figure and what was learnt since, and when."""
    hub, one = fleet.hub, ONE.key.replica
    blocks = ONE.blocks(taps(1, 2, 3, 24, 4), [2, 1, 1])  # the clock ran ahead, and was set back
    merge(hub, blocks[:1])
    closed = hub.close_day(DAY, 111).result()
    assert closed.figures == {one: Figures(2, 1, -250, 250)}
    assert (closed.closed_ms, closed.adjustments) == (111, ())
    merge(hub, blocks[1:2])
    merge(hub, blocks[2:])
    report = hub.report(DAY).result()
    assert (report.closed_ms, report.figures) == (111, closed.figures)
    assert sum(adjusted.figures.taps for adjusted in report.adjustments) == 3
    assert {adjusted.replica for adjusted in report.adjustments} == {one}
    assert report.restated == {one: Figures(5, 4, -1000, -500)}
    assert hub.close_day(DAY, 222).result() == report
    assert hub.report(NEXT).result().figures == {one: Figures(1, 1, -250, -250)}


@pytest.mark.parametrize("fare_minor", [250, 0])
@pytest.mark.parametrize("context", [Context("12", "", "town"), NO_CONTEXT])
def test_a_closed_day_gives_back_the_fare_that_the_hub_had_adopted(
    fleet: Fleet, context: Context, fare_minor: int
) -> None:
    """The terminal brings it after all: the day has one tap of it, restated by adjustments of both.

    Also a ride that was free, or of which the terminal did not say where it was.
    """
    hub, again = fleet.hub, renewed(ONE)
    ride = replace(taps(1)[1], context=context, amount_minor=-fare_minor)
    branch = ONE.blocks([taps(1)[0], ride], [])
    merge(hub, ONE.blocks(taps(1)[:1], []))
    hub.merge([block.raw for block in branch]).result()
    hub.adopt([branch[0].hash]).result()
    caught_up(hub)
    closed = hub.close_day(DAY, 111).result()
    assert closed.figures[hub.replica] == Figures(1, 1, -fare_minor, -fare_minor)
    hub.merge([block.raw for block in again.blocks(as_of([ride], again), [])], [again.certificate]).result()
    at_rest(hub)
    caught_up(hub)
    report = hub.report(DAY).result()
    assert report.figures == closed.figures
    assert report.restated[hub.replica] == Figures(2, 0, 0, 0)
    assert report.restated[again.key.replica] == Figures(1, 1, -fare_minor, -fare_minor)


def test_a_correction_that_an_operator_books_is_no_tap_less(fleet: Fleet) -> None:
    """It is of no ride, wherever it was; and a day's figures of taps are rides."""
    where = Context("12", "", "town")
    fleet.hub.append(card(1), [Draft(Kind.ADJUSTMENT, 250)], START_MS, where).result()
    caught_up(fleet.hub)
    assert fleet.hub.report(DAY).result().figures == {fleet.hub.replica: Figures(1, 0, 0, 250)}


def test_a_day_is_closed_with_all_of_a_history_that_is_far_behind_some_blocks_a_transaction(
    fleet: Fleet,
) -> None:
    """Bounded time: nobody's merge waits until all of it has come."""
    at_once = CATCH_UP_STEPS * STEP_BLOCKS
    rides = taps(*[1.0] * (3 * at_once))
    merge(fleet.hub, ONE.blocks(rides, [1] * len(rides)))
    fleet.hub_database.write_and_wait(forget_history)
    behind = fleet.hub.lag().result()
    step = fleet.hub_database.write_and_wait(lambda connection: close_if_ready(connection, DAY, 5))
    assert (step.change, step.report) == (None, None)
    assert behind - fleet.hub.lag().result() == at_once
    report = fleet.hub.close_day(DAY, 7).result()
    assert (report.closed_ms, report.figures[ONE.key.replica].taps) == (7, 3 * at_once)
    assert fleet.hub.report(DAY).result().adjustments == ()


def test_a_revocation_restates_a_closed_day_too_and_back(fleet: Fleet) -> None:
    """What does not count any more is taken off by an adjustment, not by changing the figure."""
    hub, one = fleet.hub, ONE.key.replica
    merge(hub, ONE.blocks(taps(1, 2, 3), [2]))
    closed = hub.close_day(DAY, 111).result()
    revoke(hub, 1, Revocations({one: 2}))
    report = hub.report(DAY).result()
    assert report.figures == closed.figures
    assert report.restated == {one: Figures(2, 1, -250, 250)}
    assert hub.day_of([one], DAY).result().completeness == Complete(1)
    revoke(hub, 2, Revocations())
    caught_up(hub)
    assert hub.report(DAY).result().restated == closed.figures


def test_a_closed_day_has_everything_that_was_merged_before(fleet: Fleet) -> None:
    """However far the history lagged when it was closed."""
    blocks = ONE.blocks(taps(*(hour / 10 for hour in range(1, 60))), [3] * 20)
    fleet.hub.merge([block.raw for block in blocks]).result()
    report = fleet.hub.close_day(DAY, 111).result()
    assert report.figures[ONE.key.replica].taps == 59
    caught_up(fleet.hub)
    assert fleet.hub.report(DAY).result().adjustments == ()


def test_closed_days_do_not_overlap_whatever_hour_days_begin_at(fleet: Fleet) -> None:
    """The fleet's hour was changed between two closings: every fact still belongs to one day."""
    closed = fleet.hub.close_day(DAY, 1).result()
    for moved_ms in (-23 * HOUR_MS, HOUR_MS):
        again = Day(DAY.start_ms + moved_ms, DAY.end_ms + moved_ms, DAY.number)
        assert fleet.hub.close_day(again, 2).result() == closed
        assert fleet.hub.report(again).result() == closed
    earlier = Day(NEXT.start_ms - HOUR_MS, NEXT.end_ms - HOUR_MS, NEXT.number)
    limits = Day(NEXT.start_ms, NEXT.end_ms - HOUR_MS, NEXT.number)
    assert fleet.hub.close_day(earlier, 3).result().day == limits
    before = Day(2 * DAY.start_ms - DAY.end_ms + HOUR_MS, DAY.start_ms + HOUR_MS, DAY.number - 1)
    assert fleet.hub.close_day(before, 4).result().day == replace(before, end_ms=DAY.start_ms)


def test_a_closed_day_may_be_much_shorter_than_the_one_after_it(fleet: Fleet) -> None:
    """The hour was set to 15 by mistake and mended: nothing between two closed days is in none."""
    short = Day(DAY.start_ms, DAY.start_ms + 12 * HOUR_MS, DAY.number)
    assert fleet.hub.close_day(short, 1).result().day == short
    assert fleet.hub.close_day(NEXT, 2).result().day == Day(short.end_ms, NEXT.end_ms, NEXT.number)


def test_a_day_whose_time_closed_days_have_is_the_one_that_has_it() -> None:
    """After a change by more than a day nothing may be left of a date: it is answered all the same."""
    moved_ms = 30 * HOUR_MS
    earlier = Day(NEXT.start_ms - moved_ms, NEXT.end_ms - moved_ms, NEXT.number)
    assert earlier.among([DAY]) == DAY
    later = Day(DAY.start_ms + moved_ms, DAY.end_ms + moved_ms, DAY.number)
    assert later.among([NEXT]) == NEXT


def test_a_day_is_made_of_quarters() -> None:
    for limits in ((5, 5), (0, 1), (QUARTER_MS, 0)):
        with pytest.raises(MisuseError):
            Day(*limits, 1)


@given(
    lengths=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    halves=st.lists(st.integers(-2, 3), min_size=27, max_size=27),
    closings=st.sets(st.integers(0, 6), max_size=2),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_closed_and_adjusted_is_what_an_open_day_would_say(
    lengths: tuple[int, int, int], halves: list[int], closings: set[int], new_fleet: NewFleet
) -> None:
    """Whenever it is closed, and whatever the clocks did: nothing is left out, nothing counted twice."""
    half_days = iter(halves)
    moved: list[Block] = []
    for author, length in zip(world.TERMINALS, lengths, strict=True):
        apart_ms = author.certificate.terminal[-1]
        times = [START_MS + next(half_days) * 12 * HOUR_MS + apart_ms for _ in range(length)]
        deltas = [
            Delta(author.key.replica, seq, card(1), Kind.FARE, -seq, at_ms)
            for seq, at_ms in enumerate(times, 1)
        ]
        moved += author.blocks(deltas, [2, 3, 2])
    with closing(new_fleet(0)) as fleet:
        for at, block in enumerate(moved):
            if at in closings:
                fleet.hub.close_day(DAY, at).result()
            fleet.hub.merge([block.raw], world.CERTIFICATES).result()
        caught_up(fleet.hub)
        expected: dict[ReplicaId, Figures] = {}
        for block in moved:
            for (replica, quarter), figures in tally(deltas_of(block)).items():
                if quarter in DAY.quarters:
                    expected[replica] = expected.get(replica, NO_FIGURES).plus(figures)
        assert fleet.hub.report(DAY).result().restated == expected
