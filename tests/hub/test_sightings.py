"""What was last heard of terminals: shown at once, written in batches, and what must not be lost at once."""

import asyncio

import pytest

from crdt.errors import StoreFailed
from crdt.facts import TerminalId
from crdt.frontier import GENESIS, Head
from crdt.pull import Pull
from crdt.store.editions import Installed
from crdt.terminal_status import Status
from hub.app import Hub
from hub.registry import Registry
from hub.sightings import Sighting, Sightings
from tests.hub.conftest import Depot, running

SAID = Status({"held": 3, "route": "110"})


async def on_disk(hub: Hub, name: str) -> dict[str, object]:
    """The row as another process, or the next start, would read it."""
    (row,) = [row for row in await Registry(hub.database).terminals() if row.name == name]
    return {"seen": row.seen_ms, "status": row.status, "restored": row.restored_ms, "settled": row.settled_ms}


async def test_what_a_terminal_said_is_shown_at_once(depot: Depot) -> None:
    """hub/README.md: the dashboard shows when a terminal was last heard of, not what is written down."""
    bus = await depot.pair("Bus 1")
    await bus.exchange(SAID, Pull())
    (row,) = await depot.ask("GET", "/terminals")
    assert (row["online"], row["held"], row["route"]) == (True, 3, "110")


async def test_a_clean_stop_writes_what_waits(founded: Hub) -> None:
    """A hub that is stopped in order forgets nothing of when its terminals were heard of."""
    async with running(founded) as depot:
        bus = await depot.pair("Bus 1")
        await bus.push(bus.taps(-250))
        await bus.settle()
        await bus.exchange(SAID, Pull())
        assert (await on_disk(founded, "Bus 1"))["seen"] is None, "it was written by itself; test the stop"
    after = await on_disk(founded, "Bus 1")
    assert after["seen"] is not None
    assert after["settled"] is not None
    assert after["status"] == {"held": 3, "route": "110"}


async def test_an_old_copy_of_a_storage_is_known_for_good_when_the_answer_goes_out(depot: Depot) -> None:
    """Invariant 5: what a hub noticed of a restored terminal outlives its being killed."""
    bus = await depot.pair("Bus 1")
    await bus.push(bus.taps(-250, -250))
    await bus.exchange(SAID, frontier={bus.key.replica: Head(1, GENESIS)})
    assert (await on_disk(depot.hub, "Bus 1"))["restored"] is not None


async def test_a_storage_found_sound_before_does_not_undo_that_it_was_found_old(depot: Depot) -> None:
    """Invariant 5, whichever of both is written last."""
    bus = await depot.pair("Bus 1")
    await bus.push(bus.taps(-250, -250))
    await bus.exchange(SAID, frontier={bus.key.replica: bus.head})
    await bus.exchange(SAID, frontier={bus.key.replica: Head(1, GENESIS)})
    await depot.served.registry.sightings.write()
    assert (await on_disk(depot.hub, "Bus 1"))["restored"] is not None
    (row,) = await depot.ask("GET", "/terminals")
    assert row["restored_ms"] is not None


async def test_a_later_sighting_keeps_what_only_an_earlier_one_said() -> None:
    """A tap's second exchange says nothing of the terminal itself, and the settlement it was given stays."""
    first = Sighting(1_000, "10.0.0.1", {"held": 1}, sound_ms=1_000, settled_ms=1_000, settled_fact=7)
    assert Sighting(2_000, "10.0.0.2").after(first) == Sighting(
        2_000, "10.0.0.2", {"held": 1}, sound_ms=1_000, settled_ms=1_000, settled_fact=7
    )


async def test_what_cannot_be_written_waits(founded: Hub) -> None:
    """A database that is busy for a moment costs no sighting."""
    sightings = Sightings(founded.database)
    sightings.note(TerminalId(bytes(16)), Sighting(1_000, "10.0.0.1"))
    await asyncio.to_thread(founded.database.close)
    with pytest.raises(StoreFailed):
        await sightings.write()
    assert sightings.unwritten() == {TerminalId(bytes(16)): Sighting(1_000, "10.0.0.1")}


async def test_an_older_sighting_of_another_process_does_not_replace_a_newer_one(depot: Depot) -> None:
    """Several hub processes write to one registry, each in its own time."""
    bus = await depot.pair("Bus 1")
    (row,) = await depot.served.registry.terminals()
    late, early = Sightings(depot.hub.database), Sightings(depot.hub.database)
    late.note(row.terminal, Sighting(2_000, "10.0.0.2", {"held": 2}))
    early.note(row.terminal, Sighting(1_000, "10.0.0.1", {"held": 1}))
    await late.write()
    await early.write()
    assert (await on_disk(depot.hub, "Bus 1"))["status"] == {"held": 2}
    assert bus.url == depot.url


async def test_a_hub_whose_clock_was_ahead_once_goes_on_noting(depot: Depot) -> None:
    """Invariant 9: what is heard after the clock was set right counts, though its time is earlier."""
    await depot.pair("Bus 1")
    registry, now_ms, year_ms = depot.served.registry, 1_800_000_000_000, 365 * 86_400_000
    (row,) = await registry.terminals()
    await registry.saw(row.terminal, now_ms + year_ms, "ahead", {"held": 1}, installed=Installed(5, 0))
    await registry.sightings.write()
    await registry.saw(row.terminal, now_ms, "right", {"held": 2}, installed=Installed(9, 0))
    for _ in range(2):
        (row,) = await registry.terminals()
        assert (row.seen_ms, row.address, row.status, row.settled_fact) == (now_ms, "right", {"held": 2}, 9)
        await registry.sightings.write()
    assert (await on_disk(depot.hub, "Bus 1"))["status"] == {"held": 2}
