"""Days of service over the real hub: complete or what is missing, closed once, restated by adjustments."""

import asyncio
from datetime import UTC, date, datetime

import pytest

from crdt.block import seal
from crdt.facts import NO_CONTEXT, Context, Delta, Kind
from crdt.fleet import FleetSettings
from crdt.terminal_status import Status
from hub.day_page import GapRow, TerminalDay
from hub.daybook import Daybook, day_at, limits, span
from hub.daywords import completeness
from hub.errors import RequestRefused
from tests.crdt.store.behind import forget_history
from tests.hub.conftest import Depot
from tests.hub.terminal import CARD, Terminal

HOUR_MS = 3_600_000
DAY = date(2026, 11, 20)
START_MS = int(datetime(2026, 11, 20, 3, tzinfo=UTC).timestamp()) * 1000
END_MS = START_MS + 24 * HOUR_MS


def ride(bus: Terminal, *at_ms: int, context: Context = NO_CONTEXT) -> bytes:
    """Seal one more block, with a fare at each of these moments."""
    deltas = [
        Delta(bus.key.replica, seq, CARD, Kind.FARE, -250, moment, context)
        for seq, moment in enumerate(at_ms, bus.head.seq + 1)
    ]
    block = seal(bus.key, bus.fleet, deltas, bus.head.hash)
    bus.chain.append(block.raw)
    bus.head = block.head
    return block.raw


def daybook(depot: Depot, now_ms: int) -> Daybook:
    """The hub's, at another moment."""

    async def policy() -> FleetSettings:
        return FleetSettings()

    return Daybook(depot.hub.ledger, depot.served.registry, policy, lambda: now_ms)


async def say_all(bus: Terminal, *former: Terminal) -> None:
    """It has nothing more. `former`: what wrote to its storage before."""
    named = {one.key.replica: one.head for one in (bus, *former) if one.head.seq}
    said = {"held": 0, "former": [one.key.replica.hex() for one in former]}
    await bus.exchange(Status(said), frontier=named)


async def test_a_day_is_complete_once_the_terminal_has_said_all_it_has(depot: Depot) -> None:
    """Issue: "for any bus and day the hub says "taps 1-4,312 complete" or names the missing ranges"."""
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, START_MS, START_MS + 1, END_MS - 1))
    (row,) = (await daybook(depot, END_MS).report(str(DAY))).terminals
    assert (row.state, row.taps) == ("open", 3)
    await say_all(bus)  # the hub's own clock is years past the day's end
    page = await daybook(depot, END_MS).report(str(DAY))
    (row,) = page.terminals
    assert (row.state, row.taps, row.closed_fares_minor, page.complete) == ("complete", 3, -750, True)
    assert completeness(row) == "taps 1–3 complete"
    other = (await daybook(depot, END_MS).report("2026-11-19")).terminals
    assert other == []  # no taps, and it has said so


@pytest.mark.parametrize("closed", [False, True])
async def test_taps_are_not_said_to_be_complete_with_other_fares_than_theirs(
    depot: Depot, closed: bool
) -> None:
    """Issue: "proof of completeness". The history, which fares are usually added up from, may lag."""
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, START_MS, START_MS + 1))
    book = daybook(depot, END_MS)
    if closed:
        await book.close(str(DAY))
        await bus.push(ride(bus, START_MS + 2))
    await say_all(bus)
    await depot.projected()
    page = await book.report(str(DAY))
    ledger = depot.hub.ledger
    await asyncio.wrap_future(ledger._database.write(forget_history))
    assert await asyncio.wrap_future(ledger.lag()) == len(bus.chain)
    assert (await book.report(str(DAY))).terminals == page.terminals
    (row,) = page.terminals
    assert (row.state, row.taps, row.restated_fares_minor) == ("complete", 2 + closed, -250 * (2 + closed))
    assert row.closed_taps == 2


async def test_a_days_missing_taps_are_named(depot: Depot) -> None:
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, START_MS, START_MS + 1))
    ride(bus, START_MS + 2, START_MS + 3)
    await say_all(bus)
    page = await daybook(depot, END_MS).report(str(DAY))
    (row,) = page.terminals
    assert (row.state, row.taps, list(row.gaps)) == ("missing", 2, [GapRow(2, 3, 4)])
    assert completeness(row) == "taps 1–2 here; missing: entries 3–4 after tap 2"
    assert not page.complete


async def test_late_taps_restate_a_closed_day_by_an_adjustment(depot: Depot) -> None:
    """Issue: "late blocks restate a closed day as an explicit adjustment"; the closed figures stay."""
    bus, late = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await bus.push(ride(bus, START_MS))
    book = daybook(depot, END_MS)
    closed = await book.close(str(DAY))
    assert (closed.closed_ms, [row.closed_taps for row in closed.terminals][:1]) == (END_MS, [1])
    await late.push(ride(late, START_MS + 5, START_MS + 6))
    await depot.projected()
    page = await book.report(str(DAY))
    (one,) = page.adjustments
    assert (one.name, one.taps, one.fares_minor) == ("Bus 2", 2, -500)
    row = next(row for row in page.terminals if row.name == "Bus 2")
    assert (row.closed_taps, row.restated_taps, row.restated_fares_minor) == (0, 2, -500)
    assert (await book.close(str(DAY))).closed_ms == END_MS


async def test_a_day_that_has_not_ended_is_not_closed(depot: Depot) -> None:
    with pytest.raises(RequestRefused, match="has not ended"):
        await daybook(depot, END_MS - 1).close(str(DAY))


async def test_days_are_closed_by_themselves_some_time_after_their_end(depot: Depot) -> None:
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, START_MS))
    await depot.projected()
    assert await daybook(depot, END_MS + 12 * HOUR_MS - 1).close_old(12) == []
    assert await daybook(depot, END_MS + 12 * HOUR_MS).close_old(12) == [DAY]
    assert await daybook(depot, END_MS + 13 * HOUR_MS).close_old(12) == []


@pytest.mark.parametrize(
    "text", ["", "2026-13-01", "tomorrow", "9999-12-31", "0001-01-01", "1969-12-31", "x" * 99]
)
async def test_what_is_no_day_is_refused(depot: Depot, text: str) -> None:
    with pytest.raises(RequestRefused):
        await daybook(depot, END_MS).report(text)


def test_a_day_follows_the_fleets_zone_and_hour() -> None:
    berlin = FleetSettings(timezone="Europe/Berlin", day_starts_at_h=3)
    for wanted, hours in ((date(2026, 3, 28), 23), (date(2026, 10, 24), 25), (date(2026, 7, 1), 24)):
        day = span(berlin, wanted)
        assert (day.end_ms - day.start_ms) // HOUR_MS == hours
        assert day_at(berlin, day.start_ms) == day_at(berlin, day.end_ms - 1) == wanted
    # Whoever reads it may sit elsewhere, and the machine's own clock too.
    told = limits(berlin, span(berlin, date(2026, 7, 1)))
    assert told == "1 Jul 2026 03:00 to 2 Jul 2026 03:00, Europe/Berlin"
    assert span(FleetSettings(timezone="Asia/Kathmandu"), DAY).start_ms == START_MS - (5 * 60 + 45) * 60_000


async def test_days_that_were_due_long_ago_are_left_to_a_person_however_late_that_is(depot: Depot) -> None:
    """As the setting says: seven days after it was due, not after it ended."""
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, START_MS))
    await depot.projected()
    week_h, month_h = 7 * 24, 30 * 24
    for after_h in (12, month_h):
        due_ms = END_MS + after_h * HOUR_MS
        assert await daybook(depot, due_ms - 1).close_old(after_h) == []
        assert await daybook(depot, due_ms + week_h * HOUR_MS).close_old(after_h) == []
    assert await daybook(depot, due_ms + week_h * HOUR_MS - 1).close_old(month_h) == [DAY]


def test_every_state_of_a_day_has_its_sentence() -> None:
    def row(state: str, taps: int, contested: int = 0) -> TerminalDay:
        return TerminalDay("Bus 1", state, taps, (), contested, 0, 0, 0, 0, 0)

    assert completeness(row("complete", 4312)) == "taps 1–4,312 complete"
    assert completeness(row("complete", 0)) == "no taps, complete"
    assert completeness(row("behind", 0)) == "still being counted; look again in a moment"
    assert completeness(row("open", 1)) == "tap 1 so far; it has not said yet whether there are more"
    assert completeness(row("missing", 2, 7)) == "taps 1–2 here; missing: 7 in quarantine"
