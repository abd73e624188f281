"""Days of service while the hour at which they begin, and the time zone, are changed: a moment is in one."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.fleet import FleetSettings
from crdt.store.days import Day
from hub.daybook import LOOK_BACK_DAYS, Daybook, day_at, span
from tests.hub.conftest import Depot
from tests.hub.test_daybook import ride

HOUR_MS = 3_600_000
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",  # clocks are put forward at midnight
    "Australia/Lord_Howe",  # by half an hour
    "Asia/Kathmandu",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",  # 25 hours behind Kiritimati
)
POLICIES = st.builds(FleetSettings, timezone=st.sampled_from(ZONES), day_starts_at_h=st.integers(0, 23))
STARTS = st.sampled_from([datetime(2026, month, 25, 12, tzinfo=UTC) for month in (3, 6, 10)])


class Step(NamedTuple):
    """Some time later an operator may change the policy, and some days that have ended are closed: by the
    hub, which may have been down since, or by a person."""

    hours: int
    policy: FleetSettings | None
    closed_days_ago: Sequence[int]


STEPS = st.builds(
    Step,
    st.integers(1, 80),
    st.none() | POLICIES,
    st.lists(st.integers(-2, LOOK_BACK_DAYS + 3), max_size=4),
)


@given(policy=POLICIES, start=STARTS, steps=st.lists(STEPS, max_size=12))
@settings(max_examples=300, deadline=None)
def test_days_tile_time_whatever_is_changed_and_closed(
    policy: FleetSettings, start: datetime, steps: Sequence[Step]
) -> None:
    """README: "Every moment is in one day". Closed days keep date and limits; each date is answered."""
    closed: list[Day] = []
    now_ms = int(start.timestamp()) * 1000
    for hours, changed, closed_days_ago in steps:
        now_ms += hours * HOUR_MS
        policy = changed or policy
        today = day_at(policy, now_ms)
        for ago in closed_days_ago:
            day = span(policy, today - timedelta(days=ago)).among(closed)
            if day not in closed and day.end_ms <= now_ms:
                closed.append(day)
    dates = [start.date() + timedelta(days=since) for since in range(-16, 50)]
    answers = [span(policy, each).among(closed) for each in dates]
    days = sorted(set(answers), key=lambda day: day.start_ms)
    assert all(one.end_ms == other.start_ms for one, other in pairwise(days))
    assert set(closed) <= set(days)
    assert all(answers[dates.index(date.fromordinal(day.number))] == day for day in days)


@pytest.mark.parametrize("hours", [(3, 15, 3), (0, 3, 12), (15, 3, 15)])
@pytest.mark.parametrize("down_h", [0, 72])
async def test_every_ride_is_in_the_report_of_one_day_after_a_mistake_is_mended(
    depot: Depot, hours: Sequence[int], down_h: int
) -> None:
    """README: "every moment is in one day", with days that are closed by themselves, or late."""
    bus = await depot.pair("Bus 1")
    began = datetime(2026, 11, 5, 12, tzinfo=UTC)
    began_ms = int(began.timestamp()) * 1000
    await bus.push(ride(bus, *(began_ms + hour * HOUR_MS for hour in range(8 * 24))))
    await depot.projected()
    passed_h = 0

    async def policy() -> FleetSettings:
        return FleetSettings(day_starts_at_h=hours[(passed_h >= 69) + (passed_h >= 99)])

    book = Daybook(depot.hub.ledger, depot.served.registry, policy, lambda: began_ms + passed_h * HOUR_MS)
    seen: dict[int, int] = {}
    for passed_h in range(0, 11 * 24, 3):
        if not 69 <= passed_h < 69 + down_h:
            await book.close_old(24)
        today = await book.report("today")
        assert today.start_ms <= began_ms + passed_h * HOUR_MS < today.end_ms
    for since in range(-1, 12):
        page = await book.report((began + timedelta(days=since)).date().isoformat())
        seen[page.start_ms] = sum(row.restated_taps for row in page.terminals)
    assert sum(seen.values()) == 8 * 24


async def test_a_date_that_closed_days_left_nothing_of_shows_the_one_that_has_its_time(depot: Depot) -> None:
    """The fleet moved over the date line: one answer, by its own date, and all the others around it."""
    bus = await depot.pair("Bus 1")
    began_ms = int(datetime(2026, 11, 5, 12, tzinfo=UTC).timestamp()) * 1000
    await bus.push(ride(bus, *(began_ms + hour * HOUR_MS for hour in range(96))))
    await depot.projected()
    zone = "Pacific/Pago_Pago"

    async def policy() -> FleetSettings:
        return FleetSettings(timezone=zone, day_starts_at_h=23 if zone == "Pacific/Pago_Pago" else 0)

    book = Daybook(depot.hub.ledger, depot.served.registry, policy, lambda: began_ms + 96 * HOUR_MS)
    closed = await book.close("2026-11-06")
    zone = "Pacific/Kiritimati"
    pages = [await book.report(f"2026-11-{day:02}") for day in range(4, 12)]
    assert [page.day[-2:] for page in pages] == ["04", "05", "06", "06", "06", "09", "10", "11"]
    assert pages[2] == pages[3] == pages[4]
    assert (closed.start_ms, closed.end_ms) == (pages[3].start_ms, pages[3].end_ms)
    assert sum(row.restated_taps for page in [*pages[:2], *pages[4:]] for row in page.terminals) == 96
