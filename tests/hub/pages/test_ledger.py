"""The ledger's page over the real hub: what does not count, what is missing, and deciding about it."""

import asyncio
from typing import Any

from sqlalchemy import Connection

from crdt.block import parse
from crdt.errors import RefusalCode
from crdt.facts import Kind
from crdt.frames import BlockFrame, CertificateFrame
from crdt.frontier import Head
from crdt.pull import Pull
from crdt.store import quarantine
from crdt.store.blocks import NO_HEAD
from crdt.store.quarantine import Quarantined
from crdt.store.resolutions import ADOPTED, SAID
from crdt.terminal_status import Status
from hub import restoring
from hub.excerpt import PAGE_ROWS
from tests.hub.conftest import Depot
from tests.hub.pages.world import Visitor, operator, text_of
from tests.hub.terminal import CARD, Terminal


async def read(person: Visitor, path: str) -> str:
    answer = await person.get(path)
    assert answer.status == 200, answer.text
    return text_of(answer.text)


async def forked(depot: Depot, name: str = "Bus 9") -> tuple[Terminal, bytes]:
    """A terminal that signed two blocks for one number, and the one that does not count."""
    bus = await depot.pair(name)
    await bus.push(bus.taps(1000, kind=Kind.OPENING), bus.taps(-250))
    bus.head = parse(bus.chain[0]).head
    raw = bus.taps(-180)
    await bus.push(raw)
    return bus, raw


async def balance(depot: Depot) -> int:
    assert (await asyncio.wrap_future(depot.hub.ledger.books())).balance
    return await asyncio.wrap_future(depot.hub.ledger.balance(CARD))


async def test_a_ledger_without_trouble_says_so(depot: Depot) -> None:
    async with operator(depot) as person:
        page = await read(person, "/ledger")
        for sentence in ("Nothing is missing.", "No block is in quarantine.", "No author did anything"):
            assert sentence in page
        assert "every terminal is online" in page
        assert "in quarantine" not in await read(person, "/")


async def test_a_fork_is_told_and_booked_only_for_a_terminal_that_is_gone(depot: Depot) -> None:
    """Issue: the fork is "shown on the dashboard, resolved without losing or doubling" money."""
    _, raw = await forked(depot)
    place = f"/ledger/blocks/{parse(raw).hash.hex()}"
    async with operator(depot) as person:
        assert "1 block in quarantine waits for you" in await read(person, "/")
        page = await read(person, "/ledger")
        assert "Another block has these numbers Proven: the author signed both." in page
        assert "Bus 9" in page
        assert "the hub takes its own back" in await read(person, place)
        answer = await person.post(f"{place}/adopt", {}, form=place)
        assert (answer.status, "Nothing was booked" in answer.text) == (422, True)
        assert await balance(depot) == 750
        for _ in range(2):  # a second click changes nothing
            await person.post(f"{place}/adopt", {"gone": "yes"}, form=place)
            assert await balance(depot) == 570
        assert "Booked by the hub, and counted so." in await read(person, "/ledger")
        assert "in quarantine" not in await read(person, "/")


async def test_who_decides_about_a_block_sees_what_it_says(depot: Depot) -> None:
    """Receipts are compared entry by entry: a sum alone says nothing of whose money it is."""
    _, raw = await forked(depot)
    place = f"/ledger/blocks/{parse(raw).hash.hex()}"
    async with operator(depot) as person:
        page = (await person.get(place)).text
        assert f'<a class="code" href="/cards/{CARD.hex().upper()}">' in page
        assert "15 Jun 2025 15:06 UTC Fare 04A1B2C3D4E5F6 −1.80" in text_of(page)


async def test_a_long_block_is_shown_in_pages(depot: Depot) -> None:
    """A block holds more entries than a page does, and each can be read."""
    bus = await depot.pair("Bus 9")
    await bus.push(bus.taps(-250))
    bus.head = NO_HEAD
    raw = bus.taps(*(-seq for seq in range(1, PAGE_ROWS + 4)))
    await bus.push(raw)
    place = f"/ledger/blocks/{parse(raw).hash.hex()}"
    async with operator(depot) as person:
        first, second = await read(person, place), await read(person, f"{place}?entries=2")
        assert f"1 to {PAGE_ROWS} of {PAGE_ROWS + 3} · those after" in first
        assert "−2.03" in second
        assert "−2.03" not in first


async def test_every_undecided_block_is_counted_however_many_a_page_shows(depot: Depot) -> None:
    """The number is of the whole quarantine; those to decide about are shown before those that are done."""
    bus = await depot.pair("Bus 9")
    await bus.push(bus.taps(1000, kind=Kind.OPENING))
    branch = [parse(bus.taps(-180)) for _ in range(PAGE_ROWS + 3)]
    entries = [Quarantined.of(block, RefusalCode.FORK_DETECTED) for block in branch]

    def put(connection: Connection) -> None:
        quarantine.put(connection, entries, 1)
        quarantine.resolve(connection, [entries[0].hash], ADOPTED)
        quarantine.resolve(connection, [entries[1].hash], SAID)

    await asyncio.wrap_future(depot.hub.database.write(put))
    async with operator(depot) as person:
        for page in ("/", "/ledger"):
            assert f"{PAGE_ROWS + 2} blocks in quarantine wait for you" in await read(person, page)
        shown = (await person.get("/ledger")).text
        assert shown.count('href="/ledger/blocks/') == PAGE_ROWS
        assert entries[0].hash.hex() not in shown
        assert f"1 to {PAGE_ROWS} of {PAGE_ROWS + 3}" in shown
        assert 'href="/ledger?quarantine=2#quarantine"' in shown
        following = (await person.get("/ledger?quarantine=2")).text
        assert following.count('href="/ledger/blocks/') == 2
        assert entries[0].hash.hex()[:16] in following
        assert f"{PAGE_ROWS + 1} to {PAGE_ROWS + 3} of {PAGE_ROWS + 3}" in following
        assert "/events?view=ledger&amp;quarantine=2" in following
        for beyond in ("9", "0", "x", "-1", "9" * 30):
            assert 'href="/ledger/blocks/' in (await person.get(f"/ledger?quarantine={beyond}")).text
        assert "the hub takes its own back" in await read(person, f"/ledger/blocks/{entries[-1].hash.hex()}")
        for absent in ("00" * 32, "none"):
            assert (await person.get(f"/ledger/blocks/{absent}")).status == 404
    every = [row["block"] for page in (1, 2, 3) for row in (await _forks(depot, page))["blocks"]]
    assert sorted(every) == sorted(entry.hash.hex() for entry in entries)


async def _forks(depot: Depot, page: int) -> Any:
    return await depot.ask("GET", f"/ledger/forks?page={page}")


async def test_deciding_needs_a_form_of_ours(depot: Depot) -> None:
    """Invariant 8: another site cannot send an operator's browser to book anything."""
    bus, raw = await forked(depot)
    await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 9"})
    async with operator(depot) as person:
        for path in (
            f"/ledger/blocks/{parse(raw).hash.hex()}/adopt",
            f"/ledger/blocks/{parse(raw).hash.hex()}/accept",
            f"/ledger/waiting/{bus.key.replica.hex()}",
            f"/ledger/flags/{bus.key.replica.hex()}/fork_detected",
            "/ledger/notice",
        ):
            assert (await person.post(path, {"gone": "yes"})).status == 403
    assert await balance(depot) == 750


async def test_what_a_revoked_terminal_wrote_late_is_reviewed(depot: Depot) -> None:
    stolen, honest = await depot.pair("Bus 9"), await depot.pair("Bus 1")
    await stolen.push(stolen.taps(1000, kind=Kind.OPENING))
    raw = stolen.taps(-250)
    async with operator(depot) as person:
        page = f"/terminals/{stolen.certificate.terminal.hex()}/revoke"
        assert "wait in quarantine" in await read(person, page)
        await person.post(page, {"cut_off": ""}, form=page)
        await honest.exchange(CertificateFrame(stolen.certificate.encode()), BlockFrame(raw))
        assert "Written after the terminal was revoked" in await read(person, "/ledger")
        place = f"/ledger/blocks/{parse(raw).hash.hex()}"
        answer = await person.post(f"{place}/accept", {}, form=place)
        assert answer.location == "/ledger?done=accepted"
        assert await balance(depot) == 750
        assert "No block is in quarantine." in await read(person, "/ledger")


async def test_what_is_missing_is_told_until_it_comes_or_is_given_up(depot: Depot) -> None:
    bus, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    bus.taps(-250, -250), other.taps(-180)
    heads = {bus.key.replica: bus.head, other.key.replica: other.head}
    await bus.exchange(Status({"held": 2}), frontier=heads)
    async with operator(depot) as person:
        assert "Some taps are not here yet" in await read(person, "/")
        assert "1 to 2 2 entries" in await read(person, "/ledger")
        await bus.push(*bus.chain)
        assert "1 to 2" not in await read(person, "/ledger")
        place = f"/ledger/waiting/{other.key.replica.hex()}"
        assert "1 entry exists by the word of Bus 1, and nobody has brought it." in await read(person, place)
        assert (await person.post(place, {}, form=place)).location == "/ledger?done=given-up"
        assert "Nothing is missing." in await read(person, "/ledger")


async def test_who_gives_up_reads_how_far_it_goes_by_anothers_word(depot: Depot) -> None:
    """One decision is about all that is missing of an author, so all of it is told before."""
    dead, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    dead.taps(-250, -250)
    await dead.exchange(Status({"held": 2}), frontier={dead.key.replica: dead.head})
    await other.exchange(Status({"held": 0}), frontier={dead.key.replica: Head(9, bytes(32))})
    async with operator(depot) as person:
        assert "another terminal says there are more, up to 9" in await read(person, "/ledger")
        place = f"/ledger/waiting/{dead.key.replica.hex()}"
        assert "more, up to 9, and has shown none. You give those up too." in await read(person, place)
        await person.post(place, {}, form=place)
        assert "Nothing is missing." in await read(person, "/ledger")


async def test_a_terminal_that_was_put_back_is_told_until_it_is_another(depot: Depot) -> None:
    bus = await depot.pair("Bus 7")
    await bus.push(bus.taps(-250))
    await bus.exchange(Status({"held": 0}), frontier={})
    async with operator(depot) as person:
        assert "The storage of Bus 7 was put back from an old copy" in await read(person, "/")
        await bus.exchange(Status({"held": 0}), frontier={bus.key.replica: bus.head})
        assert "put back" not in await read(person, "/")  # it was a late request, and no old copy


async def test_a_revoked_terminal_that_was_put_back_is_promised_no_new_identity(depot: Depot) -> None:
    """It gets none at its next contact, whatever became of its storage."""
    bus = await depot.pair("Bus 7")
    await bus.push(bus.taps(-250))
    await bus.exchange(Status({"held": 0}), frontier={})
    async with operator(depot) as person:
        assert "at its next contact" in await read(person, "/")
        await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 7", "cut_off": None})
        assert "at its next contact" not in await read(person, "/")


async def test_flags_are_taken_off_by_who_has_seen_to_them(depot: Depot) -> None:
    bus, _ = await forked(depot)
    async with operator(depot) as person:
        assert "Bus 9" in (await read(person, "/ledger")).partition("Flagged authors")[2]
        place = f"/ledger/flags/{bus.key.replica.hex()}/fork_detected"
        assert (await person.post(place, {}, form="/ledger")).location == "/ledger"
        assert "No author did anything it may not." in await read(person, "/ledger")
        assert (await person.post(place, {}, form="/ledger")).status in {303, 403}


async def test_an_overdrawn_card_is_listed_until_it_is_paid(depot: Depot) -> None:
    """Issue: "overdrawn cards go on the hotlist by themselves and come off when paid"."""
    one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await one.push(one.taps(-250))
    await other.push(other.taps(-250))
    uid = CARD.hex().upper()
    async with operator(depot) as person:
        assert f"{uid} −5.00" in await read(person, "/ledger")
        assert "overdrawn" in await read(person, f"/cards/{uid}")
        assert f"{uid} overdrawn −5.00" in await read(person, "/cards")
        await depot.ask("POST", "/topup", {"card": uid, "amount": "5", "request": "request-1"})
        assert uid not in await read(person, "/ledger")
        assert "overdrawn" not in await read(person, f"/cards/{uid}")


async def test_a_card_whose_credit_was_taken_back_is_not_said_to_have_ridden_on_several(depot: Depot) -> None:
    """A passenger is told what the hub knows: that it owes, and not how that came about."""
    bus, stolen = await depot.pair("Bus 1"), await depot.pair("Bus 9")
    await stolen.push(stolen.taps(500, kind=Kind.OPENING))
    await bus.push(bus.taps(-250), bus.taps(-250))
    await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 9", "cut_off": 0})
    async with operator(depot) as person:
        page = await read(person, f"/cards/{CARD.hex().upper()}")
        assert "Owes more than one terminal may lend it. Terminals refuse it" in page


async def test_a_block_is_an_operators_and_an_overdrawn_card_is_refused_without_one(depot: Depot) -> None:
    """No control does nothing: nobody is offered to unblock what only a top-up takes off the hotlist."""
    one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await one.push(one.taps(-250))
    await other.push(other.taps(-250))
    place = f"/cards/{CARD.hex().upper()}"
    async with operator(depot) as person:
        page = await read(person, place)
        assert "Block this card" in page
        assert "Terminals refuse it by themselves until a top-up has paid that." in page
        await person.post(f"{place}/block", {"blocked": "yes"}, form=place)
        page = await read(person, place)
        assert "blocked overdrawn" in page
        assert "Unblock this card" in page
        assert "once it is paid, as it is overdrawn too" in page
        await person.post(f"{place}/block", {}, form=place)
        page = await read(person, place)
        assert "Block this card" in page
        assert "overdrawn" in page


async def test_a_hub_that_was_put_back_says_so_until_somebody_has_read_it(depot: Depot) -> None:
    database, former = depot.hub.database, depot.hub.ledger.replica
    await asyncio.to_thread(restoring.take_new_key, database, former, lambda seed: seed, 1)
    async with operator(depot) as person:
        for path in ("/", "/ledger"):
            page = await read(person, path)
            assert "This hub was put back from a backup" in page
            assert "All that anybody has named is here; wait until each bus has been in before" in page
        bus, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        other.taps(-180)
        await bus.exchange(Status({"held": 0}), frontier={other.key.replica: other.head})
        assert "nobody has brought everything of Bus 2 yet. Wait for that before" in await read(person, "/")
        await person.post("/ledger/notice", {}, form="/ledger")
        assert "put back" not in await read(person, "/")


async def test_the_allowance_of_a_terminal_is_told(depot: Depot) -> None:
    bus = await depot.pair("Bus 1")
    await bus.push(bus.taps(1000, kind=Kind.OPENING), bus.taps(-250))
    async with operator(depot) as person:
        page = await read(person, f"/terminals/{bus.certificate.terminal.hex()}")
        assert "Credit given 10.00 EUR of 10 000.00 EUR" in page


async def test_exposure_counts_terminals_that_are_away(depot: Depot) -> None:
    """Issue: "Exposure. The worst offline loss ..., shown on the dashboard"."""
    bus = await depot.pair("Bus 1")
    await bus.push(bus.taps(1000, kind=Kind.OPENING))
    await bus.settle()
    async with operator(depot) as person:
        page = await read(person, "/ledger")
        assert "At most in all 2.50 EUR" in page  # one lent ride of one card
        assert "One card at most 2.50 EUR" in page
        assert "By lent rides 2.50 EUR each card may ride once into the negative" in page


async def test_a_terminal_that_still_loads_its_first_balances_is_told_as_that(depot: Depot) -> None:
    """It calls, and knows of no card what others took."""
    await (await depot.pair("Bus 1")).exchange(Pull())
    async with operator(depot) as person:
        page = await read(person, "/ledger")
        assert "1 terminal without the hub's newest balances" in page
        assert "1 terminal of them online: balances are being loaded for the first time" in page


async def test_exposure_says_no_ride_is_lent_where_the_policy_lends_none(depot: Depot) -> None:
    bus = await depot.pair("Bus 1")
    await bus.push(bus.taps(1000, kind=Kind.OPENING))
    await depot.ask("POST", "/fleet", {"negative_ride": "no"})
    await bus.exchange(Status({"fares_version": (await depot.ask("GET", "/fleet"))["version"]}))
    await bus.settle()
    async with operator(depot) as person:
        page = await read(person, "/ledger")
        assert "At most in all 0.00 EUR" in page
        assert "By lent rides 0.00 EUR no card may ride into the negative" in page
        assert "Lend no ride" not in page
