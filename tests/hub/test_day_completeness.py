"""When a day is not complete, although the chains that the hub holds have no gap in it.

Issue: "for any bus and day the hub says "taps 1-4,312 complete" or names the missing ranges".
"""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from crdt.block import parse
from crdt.facts import Context
from crdt.fleet import FleetSettings
from crdt.frames import BlockFrame, CertificateFrame, Heads
from crdt.store.completeness import Open
from crdt.store.days import QUARTER_MS, Day
from crdt.store.hub import wall_clock_ms
from crdt.terminal_status import Status
from hub.background import beside, see_time
from hub.day_page import DayPage, GapRow, TerminalDay
from hub.daybook import Daybook
from hub.daywords import completeness
from hub.evidence import Evidence
from hub.settings import HubSettings
from hub.silent_row import SilentRow
from tests.hub.conftest import Depot
from tests.hub.terminal import Terminal
from tests.hub.test_daybook import DAY, END_MS, HOUR_MS, START_MS, daybook, ride, say_all
from tests.hub.test_recalling import again
from tests.hub.test_renewal import renewed
from tests.hub.test_restoring import at, back_up, put_back, settings, up

IN_2099_MS = 4_080_000_000_000

__all__ = ["settings"]  # a fixture


async def row(depot: Depot, name: str) -> TerminalDay:
    """The day of one terminal."""
    page = await daybook(depot, END_MS).report(str(DAY))
    return next(row for row in page.terminals if row.name == name)


async def carried(by: Terminal, author: Terminal, *raws: bytes) -> None:
    """Somebody brings an author's blocks."""
    certificate = CertificateFrame(author.certificate.encode())
    await by.exchange(certificate, *(BlockFrame(raw) for raw in raws))


@pytest.mark.parametrize("said", [{"open": 3}, {"open": 0, "suspended": True}])
async def test_while_taps_are_not_sealed_the_terminal_has_not_said_all(
    depot: Depot, said: dict[str, Any]
) -> None:
    """HELLO names what is sealed; the others are on the bus."""
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, START_MS))
    await bus.exchange(Status(said), frontier={bus.key.replica: bus.head})
    assert (await row(depot, "Bus 1")).state == "open"
    await say_all(bus)
    assert (await row(depot, "Bus 1")).state == "complete"


async def test_a_terminal_that_is_paired_anew_with_its_storage_has_its_day(depot: Depot) -> None:
    """It brings what the former identity had not sent, and ends it."""
    old = await depot.pair("Bus 1")
    await old.push(ride(old, START_MS))
    late, new = ride(old, START_MS + 1), await depot.pair("Bus 1")
    await say_all(new, old)
    assert [(gap.first_seq, gap.last_seq) for gap in (await row(depot, "Bus 1")).gaps] == [(2, 2)]
    await carried(new, old, late)
    found = await row(depot, "Bus 1")
    assert (found.state, found.taps) == ("complete", 2)


async def test_a_terminal_that_was_paired_anew_without_its_storage_leaves_its_day_open(depot: Depot) -> None:
    """A dead SD card, or another bus under the same name: until an operator gives it up."""
    old = await depot.pair("Bus 1")
    await old.push(ride(old, START_MS))
    new = await depot.pair("Bus 1")
    await new.push(ride(new, START_MS + 1))
    await say_all(new)
    found = await row(depot, "Bus 1")
    assert (found.state, found.taps) == ("open", 2)
    assert completeness(found) == "taps 1–2 so far; later ones of an earlier identity are unknown"
    replica = old.key.replica.hex()
    assert list(found.silent) == [SilentRow("Bus 1", replica, 1, 0)]
    assert await depot.ask("GET", "/ledger/silent") == [asdict(SilentRow("Bus 1", replica, 1, 0))]
    await depot.ask("POST", "/ledger/give-up", {"replica": replica})
    assert (await row(depot, "Bus 1")).state == "complete"
    assert await depot.ask("GET", "/ledger/silent") == []


async def test_what_a_terminal_names_as_its_former_identities_may_be_anything(depot: Depot) -> None:
    """Invariant 8: of the list in STATUS whatever is no identity of it is left out."""
    bus, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await other.push(ride(other, START_MS))
    former = ["zz", 5, None, "00" * 16, "ab", other.key.replica.hex(), bus.key.replica.hex()]
    for said in (former, "text", {"a": 1}, 7):
        await bus.exchange(Status({"former": said}), frontier={other.key.replica: other.head})
    assert (await row(depot, "Bus 2")).state == "open"


async def test_after_a_revocation_no_later_day_waits_for_the_terminal(depot: Depot) -> None:
    """Taken out of service: it counts up to its cut-off, and has nothing more."""
    old = await depot.pair("Bus 1")
    await old.push(ride(old, START_MS))
    new = await renewed(old)
    await new.push(ride(new, START_MS + 1))
    await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 1"})
    found = await row(depot, "Bus 1")
    assert (found.state, found.taps) == ("complete", 2)
    assert (await daybook(depot, END_MS + 48 * HOUR_MS).report("2026-11-22")).terminals == []


async def test_a_new_identity_whose_answer_was_lost_keeps_no_day_open(depot: Depot) -> None:
    """The terminal asks again with other keys; the one that it never had wrote nothing."""
    old = await depot.pair("Bus 1")
    await old.push(ride(old, START_MS))
    await renewed(old)
    new = await renewed(old)
    await say_all(new)
    assert [one.replica for one in (await row(depot, "Bus 1")).silent] == [old.key.replica.hex()]
    assert await asyncio.wrap_future(depot.hub.ledger.give_up(old.key.replica))
    assert (await row(depot, "Bus 1")).state == "complete"


async def test_taps_of_a_replaced_identity_that_wait_for_an_operator_are_contested(depot: Depot) -> None:
    old, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await old.push(ride(old, START_MS, START_MS + 1))
    late = ride(old, START_MS + 2, START_MS + 3)
    await say_all(await renewed(old))
    await carried(other, old, late)
    found = await row(depot, "Bus 1")
    assert (found.state, found.taps, found.contested) == ("missing", 2, 2)


@pytest.mark.parametrize("evidence", ["first", "last"])
async def test_taps_that_a_replaced_identity_had_are_not_missing_once_they_were_written_again(
    depot: Depot, evidence: str
) -> None:
    """Whichever comes first: nobody has to adopt what counts already. What else the lost storage wrote is for
    an operator to give up."""
    old, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await old.push(ride(old, START_MS, START_MS + 1))
    late = [ride(old, START_MS + 2 + number) for number in range(10)]
    new = await renewed(old)
    if evidence == "first":
        await carried(other, old, *late)
        assert (await row(depot, "Bus 1")).contested == 10
    await new.push(*(again(new, raw) for raw in late))
    if evidence == "last":
        await carried(other, old, *late)
    await say_all(new)
    while await Evidence(depot.hub.database, depot.hub.ledger).undecided():  # noqa: ASYNC110  (in the background)
        await asyncio.sleep(0.01)
    found = await row(depot, "Bus 1")
    assert (found.state, found.taps, found.contested, list(found.gaps)) == ("open", 12, 0, [])
    (silent,) = found.silent
    assert silent.last_seq == 12
    told = await Evidence(depot.hub.database, depot.hub.ledger).silent()
    assert told == [silent], "the Ledger page says the same of it as the day's"
    await depot.ask("POST", "/ledger/give-up", {"replica": old.key.replica.hex()})
    assert (await row(depot, "Bus 1")).state == "complete"


async def test_taps_that_a_replaced_identity_had_named_are_missing(depot: Depot) -> None:
    """Its storage was put back before it had sent them: they are with another, or lost."""
    old, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await old.push(ride(old, START_MS, START_MS + 1))
    late = ride(old, START_MS + 2, START_MS + 3)
    await say_all(old)
    await say_all(await renewed(old))
    found = await row(depot, "Bus 1")
    assert (found.state, list(found.gaps)) == ("missing", [GapRow(2, 3, 4)])
    await carried(other, old, late)
    found = await row(depot, "Bus 1")
    assert (list(found.gaps), found.contested) == ([], 2), "here, and to be decided about"


async def test_a_hole_before_what_waits_in_quarantine_stays_a_gap_until_somebody_gives_it_up(
    depot: Depot,
) -> None:
    """Also once what came after it was adopted; and the operator is shown what to give up."""
    old, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await old.push(ride(old, START_MS, START_MS + 1))
    ride(old, START_MS + 2, START_MS + 3)
    late = ride(old, START_MS + 4, START_MS + 5)
    await say_all(old)
    await say_all(await renewed(old))
    await carried(other, old, late)
    await depot.ask("POST", "/ledger/adopt", {"block": parse(late).hash.hex()})
    await depot.projected()
    found = await row(depot, "Bus 1")
    assert (found.state, list(found.gaps)) == ("missing", [GapRow(2, 3, 6)])
    (waiting,) = await asyncio.wrap_future(depot.hub.ledger.waiting())
    assert (waiting.replica, waiting.held_seq, waiting.expected_seq) == (old.key.replica, 2, 6)
    assert await asyncio.wrap_future(depot.hub.ledger.give_up(old.key.replica))
    assert (await row(depot, "Bus 1")).state == "complete"


async def test_what_the_hub_booked_for_a_dead_terminal_is_in_the_day(depot: Depot) -> None:
    """Adopted facts are the hub's own; the day's takings have them."""
    old, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await old.push(ride(old, START_MS, START_MS + 1))
    late = ride(old, START_MS + 2, START_MS + 3)
    await say_all(await renewed(old))
    await carried(other, old, late)
    await depot.ask("POST", "/ledger/adopt", {"block": parse(late).hash.hex()})
    await depot.projected()
    page = await daybook(depot, END_MS).report(str(DAY))
    assert {one.name: one.restated_fares_minor for one in page.terminals if one.restated_taps} == {
        "Bus 1": -500,
        "hub": -500,
    }


async def test_a_tap_that_is_dated_ahead_hides_nothing_that_is_missing_after_it(depot: Depot) -> None:
    """Invariant 9: the clock stood a month ahead and was set right; what it wrote then is of the day."""
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, START_MS, START_MS + 30 * 24 * HOUR_MS))
    assert (await row(depot, "Bus 1")).state == "open", "it may have written more, and nobody says so"
    ride(bus, START_MS + 2, START_MS + 3)
    await say_all(bus)
    found = await row(depot, "Bus 1")
    assert (found.state, list(found.gaps)) == ("missing", [GapRow(1, 3, 4)])


@pytest.mark.parametrize("asked_h", [0, 1, 24])
async def test_a_clock_that_is_ahead_proves_no_day_however_sure_it_is_of_itself(
    depot: Depot, asked_h: int
) -> None:
    """Invariant 9: a tap dated just after the end of the day may have been made before it, up to an hour."""
    bus = await depot.pair("Bus 1")
    for dated_ms, state in ((END_MS + HOUR_MS - 1, "open"), (END_MS + HOUR_MS, "complete")):
        await bus.push(ride(bus, START_MS, dated_ms))
        page = await daybook(depot, END_MS + asked_h * HOUR_MS).report(str(DAY))
        assert [one.state for one in page.terminals if one.name == "Bus 1"] == [state]


@pytest.mark.parametrize(
    ("dated_from_ms", "state"),
    [
        (END_MS - QUARTER_MS, "open"),
        (END_MS, "complete"),
        (0, "open"),
        (IN_2099_MS, "open"),  # it will be set back
        ("now", "open"),
    ],
)
async def test_who_may_still_date_a_ride_in_the_day_has_not_said_all_of_it(
    depot: Depot, dated_from_ms: object, state: str
) -> None:
    """Its clock has not come to the day's end: it started in the past, say, and nothing has set it."""
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, START_MS))
    said = Status({"held": 0, "dated_from_ms": dated_from_ms})
    await bus.exchange(said, frontier={bus.key.replica: bus.head})
    assert (await row(depot, "Bus 1")).state == state


async def test_a_clock_that_may_be_wrong_by_days_proves_no_day(depot: Depot) -> None:
    """Its author's own estimate: the last tap may be of the day, however late it is dated."""
    bus = await depot.pair("Bus 1")
    for error_ms, state in ((30 * 24 * HOUR_MS, "open"), (1_000, "complete")):
        context = Context(clock_error_ms=error_ms)
        await bus.push(ride(bus, END_MS + HOUR_MS, context=context))
        page = await daybook(depot, END_MS + 2 * HOUR_MS).report(str(DAY))
        assert {one.name: one.state for one in page.terminals}.get("Bus 1", "complete") == state


async def test_a_hubs_clock_that_was_ahead_once_proves_nothing_for_long(depot: Depot) -> None:
    """Invariant 9: the word that counts is the last one, not the one with the latest time."""
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, START_MS))
    ledger, replica = depot.hub.ledger, bus.key.replica
    for heard_ms in (END_MS + 365 * 24 * HOUR_MS, START_MS + HOUR_MS):
        await asyncio.wrap_future(ledger.expect({}, "Bus 1", heard_ms, replica))
    assert (await row(depot, "Bus 1")).state == "open"


async def test_a_hub_looks_at_its_clock_by_itself(depot: Depot) -> None:
    """Invariant 9: a word noted by a clock that was ahead is one of now, also when nobody comes any more."""
    bus = await depot.pair("Bus 1")
    ledger, replica = depot.hub.ledger, bus.key.replica
    await asyncio.wrap_future(ledger.expect({}, "Bus 1", wall_clock_ms() + 24 * HOUR_MS, replica))
    today = Day(START_MS, START_MS + 1000 * 24 * HOUR_MS, 1)

    async def heard_ms() -> int:
        found = (await asyncio.wrap_future(ledger.day_of([replica], today))).completeness
        assert isinstance(found, Open)
        return found.last_heard_ms

    assert await heard_ms() > wall_clock_ms()
    async with beside(see_time(ledger)):
        while await heard_ms() > wall_clock_ms():
            pass


async def test_days_are_closed_on_after_the_hour_they_begin_at_was_changed(depot: Depot) -> None:
    """The closed day keeps its limits, and the next one begins where it ended."""
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, START_MS, END_MS + 5 * HOUR_MS))
    await depot.projected()
    starts_at_h, now_ms = 3, END_MS + 12 * HOUR_MS

    async def policy() -> FleetSettings:
        return FleetSettings(day_starts_at_h=starts_at_h)

    book = Daybook(depot.hub.ledger, depot.served.registry, policy, lambda: now_ms)
    assert await book.close_old(12) == [DAY]
    starts_at_h, now_ms = 2, END_MS + 48 * HOUR_MS
    assert [str(day) for day in await book.close_old(12)] == ["2026-11-21"]
    pages: list[DayPage] = [await book.report(day) for day in ("2026-11-20", "2026-11-21")]
    assert [page.start_ms for page in pages] == [START_MS, END_MS]
    assert [one.closed_taps for page in pages for one in page.terminals] == [1, 1]


async def test_the_hours_between_two_closed_days_are_in_the_later_one(depot: Depot) -> None:
    """The hour was moved from three to ten: nothing that was taken in between is left out."""
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, START_MS, END_MS + 2 * HOUR_MS, END_MS + 10 * HOUR_MS))
    await depot.projected()
    starts_at_h, now_ms = 3, END_MS + HOUR_MS

    async def policy() -> FleetSettings:
        return FleetSettings(day_starts_at_h=starts_at_h)

    book = Daybook(depot.hub.ledger, depot.served.registry, policy, lambda: now_ms)
    assert await book.close_old(0) == [DAY]
    starts_at_h, now_ms = 10, END_MS + 72 * HOUR_MS
    await book.close_old(0)
    pages = [await book.report(day) for day in ("2026-11-20", "2026-11-21")]
    assert [(page.start_ms, page.end_ms) for page in pages] == [
        (START_MS, END_MS),
        (END_MS, END_MS + 31 * HOUR_MS),
    ]
    assert [one.closed_taps for page in pages for one in page.terminals] == [1, 2]


@pytest.mark.may_block("starts and stops the whole hub")
async def test_what_a_terminal_says_that_its_former_identity_had_settled_is_waited_for(
    settings: HubSettings, tmp_path: Path
) -> None:
    """Of its own chains a terminal's word is enough, and of others' that are here nothing is noted."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        before = await depot.pair("Bus 1")
        now, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await other.push(ride(other, START_MS + 9))
        await back_up(depot, backup)
        await before.push(ride(before, START_MS, START_MS + 1))
        (page,) = await now.pull()
    put_back(settings, backup)
    async with up(settings) as depot:
        await at(depot, now).exchange(Heads(page.heads))
        waiting = await asyncio.wrap_future(depot.hub.ledger.waiting())
        assert [(one.replica, one.expected_seq, one.proven) for one in waiting] == [
            (before.key.replica, 2, True)
        ]


@pytest.mark.may_block("starts and stops the whole hub")
async def test_a_bus_that_the_restored_hub_does_not_know_has_its_day(
    settings: HubSettings, tmp_path: Path
) -> None:
    """Paired after the backup, it is known by its certificate and its blocks alone."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        bus, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await bus.push(ride(bus, START_MS))
        await back_up(depot, backup)
        again, third = await renewed(bus), await depot.pair("Bus 3")
        ride(again, START_MS + 5, START_MS + 6)
        ride(third, START_MS + 7)
    put_back(settings, backup)
    async with up(settings) as depot:
        for author in (again, third):
            await carried(at(depot, other), author, *author.chain)
        await depot.projected()
        page = await daybook(depot, END_MS).report(str(DAY))
        taps = {one.name: one.restated_taps for one in page.terminals if one.restated_taps}
        assert taps == {"Bus 1": 3, "Bus 3": 1}
        assert not page.complete


@pytest.mark.may_block("starts and stops the whole hub")
async def test_what_an_identity_wrote_is_unknown_to_a_hub_that_was_put_back_to_before_its_first_use(
    settings: HubSettings, tmp_path: Path
) -> None:
    """The copy says that it never came. Ended as one that nobody had, it would leave its days complete."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        old, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await old.push(ride(old, START_MS))
        lost = await renewed(old)
        await back_up(depot, backup)
        await say_all(lost)
        await other.push(ride(other, START_MS))
        ride(lost, START_MS + 1)
    put_back(settings, backup)
    async with up(settings) as depot:
        new = await renewed(at(depot, old))  # an old image of its SD card was put back as well
        await say_all(new)
        former = {old.key.replica.hex(), lost.key.replica.hex()}
        assert {one.replica for one in (await row(depot, "Bus 1")).silent} == former
        assert await asyncio.wrap_future(depot.hub.ledger.give_up(old.key.replica))
        assert (await row(depot, "Bus 1")).state == "open"


async def test_a_closed_day_keeps_the_figures_of_whoever_has_nothing_left_of_it(depot: Depot) -> None:
    """Closed figures and adjustments make the restated ones: what the hub had booked is taken back later."""
    old = await depot.pair("Bus 1")
    late = ride(old, START_MS)
    new = await renewed(old)
    await carried(new, old, late)
    await depot.ask("POST", "/ledger/adopt", {"block": parse(late).hash.hex()})
    await depot.projected()
    closed = await daybook(depot, END_MS).close(str(DAY))
    assert sum(row.closed_taps for row in closed.terminals) == 1
    await new.push(ride(new, START_MS))
    async with asyncio.timeout(60):
        while sum(row.restated_taps for row in closed.terminals) != 1 or len(closed.adjustments) < 2:
            await depot.projected()
            closed = await daybook(depot, END_MS).report(str(DAY))
    assert sum(row.closed_taps for row in closed.terminals) == 1
