"""The page of a day over the real hub: today's while it goes on, and closing one that has ended."""

import asyncio
import re
import time

import pytest

from crdt.block import parse, seal
from crdt.facts import NO_CONTEXT, Delta, Kind
from crdt.store import completeness
from crdt.terminal_status import Status
from tests.crdt.store.behind import forget_history
from tests.hub.conftest import Depot
from tests.hub.pages.world import operator, text_of
from tests.hub.terminal import CARD, Terminal

DAY_MS = 86_400_000


def ride(bus: Terminal, at_ms: int) -> bytes:
    delta = Delta(bus.key.replica, bus.head.seq + 1, CARD, Kind.FARE, -250, at_ms, NO_CONTEXT)
    block = seal(bus.key, bus.fleet, [delta], bus.head.hash)
    bus.head = block.head
    bus.chain.append(block.raw)
    return block.raw


async def test_today_goes_on_and_yesterday_is_closed_and_restated(depot: Depot) -> None:
    """Issue: "Proof of completeness", on the dashboard and on the command line's socket alike."""
    now_ms = time.time_ns() // 1_000_000
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, now_ms - DAY_MS), ride(bus, now_ms))
    await depot.projected()
    async with operator(depot) as person:
        answer = await person.get("/days")
        assert answer.location.startswith("/days/20")
        page = text_of((await person.get(answer.location)).text)
        assert "Bus 1 tap 1 so far; it has not said yet whether there are more" in page
        assert "Close this day" not in page

        yesterday = (await depot.ask("GET", "/days/yesterday"))["day"]
        place = f"/days/{yesterday}"
        page = text_of((await person.get(place)).text)
        assert "2.50" in page
        assert (await person.post(f"{place}/close", {}, form=place)).location == f"{place}?done=closed"
        page = text_of((await person.get(place)).text)
        assert "Taps as closed" in page
        assert "Adjustments since closing" not in page

        await bus.push(ride(bus, now_ms - DAY_MS))
        await bus.exchange(Status({"held": 0}), frontier={bus.key.replica: bus.head})
        await depot.projected()
        page = text_of((await person.get(place)).text)
        assert "Bus 1 taps 1–2 complete 1 2.50 5.00" in page
        assert "Bus 1 +1 +2.50" in page
        assert (await person.get("/days/never")).status == 400


async def test_a_day_is_not_called_complete_while_its_taps_are_still_being_counted(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a bus's nor what the hub has booked; and the figures shown are said to be no figures yet."""
    now_ms = time.time_ns() // 1_000_000
    bus = await depot.pair("Bus 1")
    await bus.push(ride(bus, now_ms - DAY_MS))
    await bus.exchange(Status({"held": 0}), frontier={bus.key.replica: bus.head})
    await depot.ask("POST", "/topup", {"card": CARD.hex(), "amount": "5.00", "request": "one-top-up"})
    await depot.projected()
    day = (await depot.ask("GET", "/days/yesterday"))["day"]
    async with operator(depot) as person:
        page = text_of((await person.get(f"/days/{day}")).text)
        assert "Bus 1 tap 1 complete 1 2.50" in page
        monkeypatch.setattr(completeness, "MANY_BLOCKS", 0)
        await asyncio.wrap_future(depot.hub.database.write(forget_history))
        page = text_of((await person.get(f"/days/{day}")).text)
        assert "Bus 1 still being counted; look again in a moment" in page
        assert "hub still being counted; look again in a moment" in page
        assert "complete" not in page


async def test_any_day_can_be_asked_for(depot: Depot) -> None:
    """Issue: "for any bus and day the hub says"; not only for those that a person clicks back to."""
    async with operator(depot) as person:
        form = (await person.get((await person.get("/days")).location)).text
        assert '<form class="search panel pad narrow" method="get" action="/days">' in form
        answer = await person.get("/days?day=2026-01-31")
        assert answer.location == "/days/2026-01-31"
        assert "31 Jan 2026 03:00 to 1 Feb 2026 03:00" in text_of((await person.get(answer.location)).text)
        assert (await person.get("/days?day=today")).location == (await person.get("/days")).location
        for no_day in ("%2F%2Fevil.example", "..", "2026-11-21%2Fclose"):
            answer = await person.get(f"/days?day={no_day}")
            assert (answer.status, answer.location) == (400, "")
            assert "is not a day" in text_of(answer.text)
        assert (await person.get("/days?day=")).location.startswith("/days/20")


async def test_what_a_lost_storage_wrote_last_is_given_up_on_the_dashboard(depot: Depot) -> None:
    """A dead SD card does not keep days open for ever, and is told everywhere until then."""
    old = await depot.pair("Bus 1")
    now_ms = time.time_ns() // 1_000_000
    await old.push(ride(old, now_ms - DAY_MS))
    new = await depot.pair("Bus 1")
    await new.exchange(Status({"held": 0}))
    replica = old.key.replica.hex()
    place = f"/ledger/silent/{replica}"
    async with operator(depot) as person:
        assert "What Bus 1 wrote last is not known" in text_of((await person.get("/")).text)
        page = text_of((await person.get("/days/" + (await depot.ask("GET", "/days/yesterday"))["day"])).text)
        assert (
            f"identity {replica} ended at entry 1 and was never heard: what it wrote later is unknown" in page
        )
        assert f"Bus 1 {replica} 1 never unknown" in text_of((await person.get("/ledger")).text)
        assert (await person.post(place, {})).status == 403
        assert "ends at entry 1" in text_of((await person.get(place)).text)
        assert (await person.post(place, {}, form=place)).location == "/ledger?done=given-up"
        assert (await person.get(place)).status == 404
        page = text_of((await person.get("/ledger")).text)
        assert "Nothing is missing." in page
        assert "is not known" not in page


async def test_a_day_that_lacks_taps_leads_to_where_somebody_decides(depot: Depot) -> None:
    """What to do: about a fork under Quarantine, about a gap where it says who has named what is missing."""
    now_ms = time.time_ns() // 1_000_000
    bus, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await bus.push(ride(bus, now_ms), ride(bus, now_ms + 1))
    bus.head = parse(bus.chain[0]).head
    await bus.push(ride(bus, now_ms + 2))
    await other.push(ride(other, now_ms))
    ride(other, now_ms + 1)
    await other.exchange(Status({"held": 0}), frontier={other.key.replica: other.head})
    async with operator(depot) as person:
        page = (await person.get((await person.get("/days")).location)).text
        assert "taps 1–2 here; missing: 1 in quarantine" in text_of(page)
        assert "tap 1 here; missing: entry 2 after tap 1" in text_of(page)
        links = re.findall(r'<a href="([^"]*)">What is missing, and what to do</a>', page)
        assert links == ["/ledger#quarantine", "/ledger"]
