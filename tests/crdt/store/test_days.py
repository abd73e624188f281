"""Proof of completeness: "taps 1-4,312 complete" or the missing ranges; late blocks restate a closed day."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt.block import Block
from crdt.certificate import Role, issue
from crdt.documents import SignedDocument
from crdt.errors import MisuseError
from crdt.facts import Delta, Kind, ReplicaId
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.signing import SigningKey
from crdt.store.completeness import Complete, Gap, Known, Missing, Open, judge
from crdt.store.days import NO_FIGURES, QUARTER_MS, Day, Figures, tally
from crdt.store.expectations import Expected
from crdt.store.hub import HubLedger
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, card, deltas_of
from tests.crdt.store.stores import NewFleet

ONE, OTHER, _ = world.TERMINALS
HOUR_MS = 4 * QUARTER_MS
START_MS = 1_790_000_000_000 // HOUR_MS * HOUR_MS
DAY = Day(START_MS, START_MS + 24 * HOUR_MS)
NEXT = Day(DAY.end_ms, DAY.end_ms + 25 * HOUR_MS)  # clocks go back
PATIENCE_S = 30


@pytest.fixture
def fleet(new_fleet: NewFleet) -> Iterator[Fleet]:
    """A new hub that knows the terminals."""
    fleet = new_fleet(0)
    fleet.hub.merge([], world.CERTIFICATES).result()
    yield fleet
    fleet.close()


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


def caught_up(hub: HubLedger) -> None:
    """Wait until the history has every block."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if hub.lag().result() == 0:
            return
        pause.wait(0.01)
    raise AssertionError("the history does not catch up")


def expect(hub: HubLedger, block: Block, at_ms: int, by: world.Terminal | None = ONE) -> None:
    """Somebody says that ONE's chain goes as far as this block; the terminal itself, unless it is None."""
    hub.expect({ONE.key.replica: block.head}, "HELLO", at_ms, by.key.replica if by else None).result()


# ---- Completeness ----


def test_a_day_is_open_until_the_terminal_speaks_after_its_end_and_complete_then(fleet: Fleet) -> None:
    hub, one = fleet.hub, [ONE.key.replica]
    blocks = ONE.blocks(taps(1, 2, 3), [2])
    assert hub.completeness(one, DAY).result() == Open(0, 0)
    hub.merge([block.raw for block in blocks]).result()
    expect(hub, blocks[1], DAY.start_ms + 4 * HOUR_MS)
    assert hub.completeness(one, DAY).result() == Open(3, DAY.start_ms + 4 * HOUR_MS)
    expect(hub, blocks[1], DAY.end_ms)
    assert hub.completeness(one, DAY).result() == Complete(3)
    assert hub.completeness(one, NEXT).result() == Open(0, DAY.end_ms)


def test_a_fact_of_a_later_day_proves_the_day_before(fleet: Fleet) -> None:
    """Chains have no gaps: what lies before something held is held."""
    merge(fleet.hub, ONE.blocks(taps(1, 2, 23.9, 25), [3]))
    assert fleet.hub.completeness([ONE.key.replica], DAY).result() == Complete(3)


def test_missing_facts_are_named(fleet: Fleet) -> None:
    """A peer that carried them, or the terminal itself, said how far the chain goes."""
    hub, one = fleet.hub, [ONE.key.replica]
    blocks = ONE.blocks(taps(1, 2, 3, 4, 25), [2, 2, 1])
    merge(hub, blocks[:1])
    expect(hub, blocks[1], DAY.start_ms + 5 * HOUR_MS, by=None)
    gap = Gap(ONE.key.replica, 1, 3, 4)
    assert hub.completeness(one, DAY).result() == Missing(1, (gap,), 0)
    expect(hub, blocks[2], DAY.end_ms + HOUR_MS)
    gap = Gap(ONE.key.replica, 1, 3, 5)
    assert hub.completeness(one, DAY).result() == Missing(1, (gap,), 0)
    merge(hub, blocks[1:3])
    assert hub.completeness(one, DAY).result() == Complete(4)
    expect(hub, blocks[3], DAY.end_ms + 3 * HOUR_MS)
    assert hub.completeness(one, DAY).result() == Missing(4, (Gap(ONE.key.replica, 4, 6, 6),), 0)
    merge(hub, blocks[3:])
    assert hub.completeness(one, DAY).result() == Complete(4)


def test_what_was_missing_before_the_day_began_is_not_of_the_day(fleet: Fleet) -> None:
    """Yesterday's gap says nothing of today: it is open, not missing."""
    blocks = ONE.blocks(taps(1, 2, 3), [2])
    merge(fleet.hub, blocks[:1])
    expect(fleet.hub, blocks[1], NEXT.start_ms - HOUR_MS)
    assert fleet.hub.completeness([ONE.key.replica], NEXT).result() == Open(0, NEXT.start_ms - HOUR_MS)


def test_a_bus_day_spans_the_identities_of_a_terminal(fleet: Fleet) -> None:
    """Re-paired at noon: the new identity names the chain of the old one, and speaks for it."""
    hub = fleet.hub
    key = SigningKey(b"A" * 32)
    terminal, limits = ONE.certificate.terminal, world.ANYTHING
    certificate = issue(world.FLEET_KEY, terminal, "bus 1", Role.TERMINAL, key.public_key, limits)
    again = world.Terminal(key, certificate)
    hub.merge([], [again.certificate]).result()
    before, later = ONE.blocks(taps(1, 2), []), again.blocks(taps(13, 14, author=again), [])
    both = [ONE.key.replica, again.key.replica]
    merge(hub, before + later)
    expect(hub, before[0], DAY.start_ms + 15 * HOUR_MS, by=again)
    assert hub.completeness(both, DAY).result() == Open(4, DAY.start_ms + 15 * HOUR_MS)
    hub.expect({again.key.replica: later[0].head}, "HELLO", DAY.end_ms, by=again.key.replica).result()
    assert hub.completeness(both, DAY).result() == Complete(4)


def test_a_fork_leaves_a_day_contested_until_somebody_resolves_it(fleet: Fleet) -> None:
    """Facts in quarantine are taps that somebody may have made."""
    hub = fleet.hub
    mine = ONE.blocks(taps(1, 2, 25), [])
    rival = ONE.blocks(taps(1, 3), [])
    merge(hub, mine)
    hub.merge([rival[0].raw]).result()
    assert hub.completeness([ONE.key.replica], DAY).result() == Missing(2, (), 3)


def test_the_count_is_exact_while_the_history_lags(fleet: Fleet) -> None:
    """The proof rests on the record, not on how far the projection is."""
    blocks = ONE.blocks(taps(*(hour / 10 for hour in range(1, 60)), 25), [3] * 20)
    merging = fleet.hub.merge([block.raw for block in blocks])
    merging.result()
    counted = fleet.hub.completeness([ONE.key.replica], DAY)
    assert counted.result() == Complete(59)
    rebuilding = fleet.hub.rebuild()
    counted = fleet.hub.completeness([ONE.key.replica], DAY)
    rebuilding.result()
    assert counted.result() == Complete(59)
    assert fleet.hub.completeness([ONE.key.replica], DAY).result() == Complete(59)


known = st.builds(
    Known,
    replica=st.just(ONE.key.replica),
    taps=st.integers(0, 5),
    held_seq=st.integers(0, 9),
    last_ms=st.sampled_from([0, DAY.start_ms, DAY.end_ms - 1, DAY.end_ms]),
    expected=st.builds(
        Expected,
        seq=st.integers(0, 12),
        at_ms=st.sampled_from([DAY.start_ms, DAY.start_ms + 1, DAY.end_ms]),
        heard_ms=st.sampled_from([0, DAY.end_ms - 1, DAY.end_ms]),
    ),
    contested=st.integers(0, 1),
)


@given(authors=st.lists(known, max_size=4))
def test_a_day_is_complete_only_when_every_identitys_is_and_never_when_anything_is_missing(
    authors: list[Known],
) -> None:
    found = judge(DAY, authors, DAY.end_ms)
    each = [judge(DAY, [one], DAY.end_ms) for one in authors]
    count = sum(one.taps for one in authors)
    if isinstance(found, Complete):
        assert found.taps == count
        assert all(isinstance(one, Complete) for one in each)
    elif isinstance(found, Open):
        assert found.until == count
        assert not any(isinstance(one, Missing) for one in each)
    else:
        assert found.taps == count
        assert any(isinstance(one, Missing) for one in each)
        assert all(gap.first_seq <= gap.last_seq and 0 <= gap.after_tap <= count for gap in found.gaps)


# ---- Closing ----


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


def test_the_days_of_a_ledger_that_was_made_again_are_the_same(fleet: Fleet) -> None:
    """Adjustments are facts: a rebuilt history neither loses nor repeats them, after a restart neither."""
    hub = fleet.hub
    blocks = ONE.blocks(taps(1, 2, 3, 4), [2, 1])
    merge(hub, blocks[:1])
    hub.close_day(DAY, 111).result()
    merge(hub, blocks[1:2])
    before = hub.report(DAY).result(), hub.report(NEXT).result()
    hub.rebuild().result()
    hub.merge([blocks[2].raw]).result()
    caught_up(hub)
    report = hub.report(DAY).result()
    assert report.restated[ONE.key.replica].taps == 4
    assert report.adjustments[: len(before[0].adjustments)] == before[0].adjustments
    fleet.hub_database.close()
    fleet.open_hub()
    fleet.hub.rebuild().result()
    caught_up(fleet.hub)
    assert fleet.hub.report(DAY).result() == report


def test_a_revocation_restates_a_closed_day_too_and_back(fleet: Fleet) -> None:
    """What does not count any more is taken off by an adjustment, not by changing the figure."""
    hub, one = fleet.hub, ONE.key.replica
    merge(hub, ONE.blocks(taps(1, 2, 3), [2]))
    closed = hub.close_day(DAY, 111).result()

    def revoke(version: int, cut_offs: dict[ReplicaId, int]) -> None:
        body = Revocations(cut_offs).encode()
        hub.put_document(
            SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, version, body)
        ).result()

    revoke(1, {one: 2})
    report = hub.report(DAY).result()
    assert report.figures == closed.figures
    assert report.restated == {one: Figures(2, 1, -250, 250)}
    assert hub.completeness([one], DAY).result() == Open(1, 0)
    revoke(2, {})
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
    for moved_ms in (-HOUR_MS, HOUR_MS):
        again = Day(DAY.start_ms + moved_ms, DAY.end_ms + moved_ms)
        assert fleet.hub.close_day(again, 2).result() == closed
        assert fleet.hub.report(again).result() == closed
    earlier = Day(NEXT.start_ms - HOUR_MS, NEXT.end_ms - HOUR_MS)
    assert fleet.hub.close_day(earlier, 3).result().day == Day(NEXT.start_ms, NEXT.end_ms - HOUR_MS)
    before = Day(2 * DAY.start_ms - DAY.end_ms + HOUR_MS, DAY.start_ms + HOUR_MS)
    assert fleet.hub.close_day(before, 4).result().day == Day(before.start_ms, DAY.start_ms)


def test_a_day_is_made_of_quarters() -> None:
    for limits in ((5, 5), (0, 1), (QUARTER_MS, 0)):
        with pytest.raises(MisuseError):
            Day(*limits)


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
        times = [START_MS + next(half_days) * 12 * HOUR_MS for _ in range(length)]
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
