"""Each page over the real hub: what an operator sees and does, and what it means for the ledger."""

import asyncio
import time

import pytest

from crdt.facts import NO_CONTEXT, CardId, Context, Kind
from crdt.terminal_status import Status
from hub import tables
from hub.excerpt import PAGE_ROWS as LISTED_ROWS
from hub.overview import CardPage
from hub.pages.cards import PAGE_ROWS
from hub.pages.render import part
from tests.hub.conftest import Depot
from tests.hub.pages.world import Visitor, hidden_fields, operator, projected, tap, text_of
from tests.hub.terminal import Refused, Terminal

CARD = "04A1B2C3D4E5F6"
HARBOUR = Context(route="7", stop="Harbour")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def read(person: Visitor, path: str) -> str:
    answer = await person.get(path)
    assert answer.status == 200, answer.text
    return text_of(answer.text)


async def ride(depot: Depot, bus: Terminal, kind: Kind, amount_minor: int, where: Context = HARBOUR) -> None:
    await bus.push(tap(bus, CARD, kind, amount_minor, now_ms(), where))
    await projected(depot)


async def top_up(person: Visitor, amount: str, request: str = "") -> str:
    page = f"/cards/{CARD}"
    chosen = {"request": request} if request else {}
    answer = await person.post(f"{page}/topup", {"amount": amount} | chosen, form=page)
    assert answer.status == 303, text_of(answer.text)
    return await read(person, answer.location)


async def test_an_empty_hub_says_what_to_do(depot: Depot) -> None:
    """Clear empty states: what is missing and how it gets there."""
    async with operator(depot) as person:
        overview = await read(person, "/")
        assert "No terminal is paired yet. Make a pairing code here" in overview
        assert "No taps yet." in overview
        assert "No card is known yet." in await read(person, "/cards")
        assert "No terminal is paired yet." in await read(person, "/terminals")


async def test_terminal_from_pairing_code_to_revocation(depot: Depot) -> None:
    """Issue: "terminals with last seen, held taps and head"; revocation is checked on every request."""
    async with operator(depot) as person:
        assert (await person.post("/invite", {}, form="/invite")).location == "/invite"
        page = (await person.get("/invite")).text
        code = page.partition('class="pair-code">')[2].partition("<")[0]
        assert f"farebox-tech pair {code} --hub {depot.url.removeprefix('https://')}" in text_of(page)

        bus = await Terminal.pair(depot.url, code, "Bus 12, front door")
        assert code not in await read(person, "/invite")
        assert "Bus 12, front door paired, not seen yet" in await read(person, "/")

        await ride(depot, bus, Kind.OPENING, 500)
        here = {bus.key.replica: bus.head}
        held = Status({"held": 3, "held_minor": -750, "head_seq": 4, "position": 1, "route": "7"})
        await bus.exchange(held, frontier=here)
        overview = await read(person, "/")
        assert "Terminals online 1 of 1" in overview
        assert "Bus 12, front door Route 7 3 taps held" in overview
        none = Status({"held": 0, "held_minor": 0, "head_seq": 4, "position": 1})
        await bus.exchange(none, frontier=here)
        assert "all taps in" in await read(person, "/terminals")

        terminal = bus.certificate.terminal.hex()
        detail = await read(person, f"/terminals/{terminal}")
        assert "Last entry 1 of 4 written" in detail
        address = f"/terminals/{terminal}/revoke"
        assert "Revoke Bus 12, front door?" in await read(person, address)
        answer = await person.post(address, {}, form=address)
        assert "The hub refuses this terminal from now on." in await read(person, answer.location)
        with pytest.raises(Refused):
            await bus.push()
        assert "Every terminal is revoked." in await read(person, "/")
        assert "revoked" in await read(person, "/terminals")
        page = await read(person, f"/terminals/{bus.certificate.terminal.hex()}")
        assert "What it wrote up to its cut-off counts" in page
        assert "pair it again under the name Bus" in page
        assert "Revoke this terminal" not in page


async def test_a_long_list_of_terminals_is_shown_page_by_page(depot: Depot) -> None:
    """Of 10,000 a page would be megabytes; those that need a look come first, by name."""
    rows = [
        {"terminal": number.to_bytes(16, "big"), "name": f"Bus {number:03}", "replica": bytes(16)}
        for number in range(LISTED_ROWS + 1)
    ]
    enter = tables.terminal.insert().values(paired_ms=0)
    database = depot.hub.database
    await asyncio.wrap_future(database.write(lambda found: found.execute(enter, rows) and None))
    async with operator(depot) as person:
        first, last = await read(person, "/terminals"), await read(person, "/terminals?page=2")
        assert "Bus 000" in first
        assert "Bus 199" in first
        assert "Bus 200" not in first
        assert "1 to 200 of 201 · those after" in first
        assert "Bus 199" not in last
        assert "Bus 200" in last
        assert "201 to 201 of 201 · those before" in last
        assert "Terminals online 0 of 201" in await read(person, "/")
        html = (await person.get("/terminals?page=2")).text
        assert 'data-events="/events?view=terminals&amp;page=2"' in html


async def test_a_terminal_whose_earlier_storage_is_lost_is_not_said_to_have_all_its_taps_in(
    depot: Depot,
) -> None:
    """Nobody can vouch for what that wrote last, until an operator gives it up."""
    old = await depot.pair("Bus 1")
    await old.push(old.taps(-250))
    new = await depot.pair("Bus 1")
    await new.exchange(Status({"held": 0}))
    async with operator(depot) as person:
        page = await read(person, "/terminals")
        assert "all taps in" not in page
        assert "taps in, as far as anybody knows" in page
        await depot.ask("POST", "/ledger/give-up", {"replica": old.key.replica.hex()})
        assert "all taps in" in await read(person, "/terminals")


async def test_card_shows_balance_history_and_voided_openings(depot: Depot) -> None:
    """Invariant 11 as people see it: two buses gave an opening balance, one counts, the other is marked."""
    first, second = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await ride(depot, first, Kind.OPENING, 300)
    await ride(depot, second, Kind.OPENING, 500)
    await ride(depot, second, Kind.FARE, -250)
    async with operator(depot) as person:
        page = await read(person, f"/cards/{CARD.lower()}")
        assert "Balance 2.50 EUR" in page
        assert "Fare Bus 2 Route 7, Harbour −2.50" in page
        assert "Opening balance Bus 2 Route 7, Harbour +5.00" in page
        assert page.count("voided") == 1
        assert "only the highest counts. Bus 1 Route 7, Harbour +3.00" in page
        assert "2.50" in await read(person, "/cards")
        assert (await person.get(f"/cards?uid={CARD}")).location == f"/cards/{CARD}"


@pytest.mark.parametrize("behind", [True, False])
def test_a_history_that_lags_says_so(behind: bool) -> None:
    """The balance is there with the commit, the history a moment later: the page never contradicts itself."""
    card = CardPage(
        CARD, known=True, balance_minor=500, blocked=False, overdrawn=False, history=(), behind=behind
    )
    shown = text_of(part("_history.html", {"card": card, "currency": "EUR", "exponent": 2}))
    assert ("The newest entries follow in a moment" in shown) is behind
    assert ("Nothing has happened on this card." in shown) is not behind


async def test_of_equal_opening_balances_one_counts(depot: Depot) -> None:
    """The usual case: both buses give what the fleet's policy says. Exactly one is marked, on both pages."""
    for name in ("Bus 1", "Bus 2"):
        await ride(depot, await depot.pair(name), Kind.OPENING, 500)
    async with operator(depot) as person:
        page = await read(person, f"/cards/{CARD}")
        assert "Balance 5.00 EUR" in page
        assert page.count("voided") == 1
        assert "Opening balance voided , Bus 2" in await read(person, "/")


async def test_top_up_is_booked_once_however_often_it_is_sent(depot: Depot) -> None:
    """A double click, a resent form, a reload: invariant 3 holds and the page says what happened."""
    async with operator(depot) as person:
        page = f"/cards/{CARD}"
        assert "No terminal has met this card." in await read(person, page)
        request = hidden_fields((await person.get(page)).text, f"{page}/topup")["request"]
        assert "Topped up" in await top_up(person, "12,50", request)
        repeated = await top_up(person, "12,50", request)
        assert "This top-up was already booked" in repeated
        assert "Balance 12.50 EUR" in repeated
        assert "Balance 20.00 EUR" in await top_up(person, "7.5")
    assert await asyncio.wrap_future(depot.hub.ledger.balance(CardId(bytes.fromhex(CARD)))) == 2000


async def test_wrong_amount_books_nothing_and_says_why(depot: Depot) -> None:
    async with operator(depot) as person:
        page = f"/cards/{CARD}"
        for amount in ("", "0", "-5", "ten", "1.234", "1,000", "99999999999999", "<b>"):
            answer = await person.post(f"{page}/topup", {"amount": amount}, form=page)
            assert answer.status == 422, amount
            assert 'aria-invalid="true" aria-describedby="amount-wrong"' in answer.text, amount
            assert "<b>" not in answer.text
        assert "Balance 0.00 EUR" in await read(person, page)


async def test_an_amount_that_looks_like_a_slip_is_asked_about(depot: Depot) -> None:
    """20000 for 200.00: more than a hundred rides are booked only when exactly that amount is confirmed."""
    async with operator(depot) as person:
        page = f"/cards/{CARD}"
        for confirmed in ({}, {"large": "1"}):
            answer = await person.post(f"{page}/topup", {"amount": "20000"} | confirmed, form=page)
            assert answer.status == 422
            assert "Nothing was booked yet" in answer.text
            assert "Yes, put 20 000.00 EUR on this card" in text_of(answer.text)
        answer = await person.post(f"{page}/topup", {"amount": "20000", "large": "2000000"}, form=page)
        assert "20 000.00 EUR" in await read(person, answer.location)
        assert "Balance 20 250.00 EUR" in await top_up(person, "250")


async def test_blocking_a_card_and_taking_it_back(depot: Depot) -> None:
    async with operator(depot) as person:
        await top_up(person, "5")
        page = f"/cards/{CARD}"
        answer = await person.post(f"{page}/block", {}, form=page)
        assert "Terminals refuse this card." in await read(person, answer.location)
        assert "blocked" in await read(person, "/cards")
        answer = await person.post(f"{page}/block", {}, form=page)
        assert answer.location == f"{page}?done=unblocked"
        assert "blocked" not in await read(person, "/cards")


async def test_many_cards_come_in_pages_and_by_their_first_digits(depot: Depot) -> None:
    cards = [CardId((0x04A10000 + number).to_bytes(4, "big")) for number in range(PAGE_ROWS + 20)]
    bus = await depot.pair()
    await bus.push(*(bus.taps(500, card=card, kind=Kind.OPENING) for card in [*cards, CardId(b"\xde" * 7)]))
    async with operator(depot) as person:
        page = (await person.get("/cards")).text
        assert page.count("/cards/04A1") == PAGE_ROWS
        following = page.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0]
        rest = (await person.get(following.replace("&amp;", "&"))).text
        assert rest.count("/cards/04A1") == 20
        assert "DE" * 7 in rest
        found = await read(person, "/cards?uid=04:a1:00:1")
        assert "04A10010" in found
        assert "04A10020" not in found
        assert "No card starts with 04A2." in await read(person, "/cards?uid=04A2")
        wrong = await person.get("/cards?uid=xyz")
        assert wrong.status == 422
        assert "A UID has up to 32 of the digits" in wrong.text


async def test_fares_are_saved_as_typed_or_not_at_all(depot: Depot) -> None:
    async with operator(depot) as person:
        right = {"flat_fare": "3", "route-0": "7", "fare-0": "1,80", "route-1": "", "fare-1": ""}
        policy = {
            "unknown_card": "refuse",
            "opening_balance": "0",
            "low_balance": "4.00",
            "negative_ride": "no",
            "passback_window_s": "90",
            "timezone": "Asia/Kolkata",
            "day_starts_at_h": "4",
            "retention_days": "40",
        }
        answer = await person.post("/fleet", right | policy, form="/fleet")
        assert answer.location == "/fleet?done=saved"
        page = (await person.get("/fleet")).text
        for shown in (
            'value="3.00"',
            'value="1.80"',
            'value="7"',
            'value="4.00"',
            'value="90"',
            'value="Asia/Kolkata"',
        ):
            assert shown in page
        assert 'value="refuse" checked' in page

        answer = await person.post("/fleet", right | policy | {"timezone": "Moon/Base"}, form="/fleet")
        assert answer.status == 422
        assert "is no time zone here" in text_of(answer.text)

        wrong = {"flat_fare": "free", "passback_window_s": "-1", "route-1": "7", "fare-1": "2"}
        answer = await person.post("/fleet", right | policy | wrong, form="/fleet")
        assert answer.status == 422
        sentences = text_of(answer.text)
        assert "Enter an amount in digits, for example 10.00." in sentences
        assert "Enter a whole number from 0 to 86400." in sentences
        assert "Route 7 has a fare further up already." in sentences
        assert 'value="3.00"' in (await person.get("/fleet")).text


async def test_two_people_changing_fares_do_not_undo_each_other(depot: Depot) -> None:
    async with operator(depot) as one, operator(depot) as other:
        opened = hidden_fields((await other.get("/fleet")).text, "/fleet")
        policy = {
            "flat_fare": "3",
            "unknown_card": "register",
            "opening_balance": "0",
            "low_balance": "4.00",
            "negative_ride": "yes",
            "passback_window_s": "90",
            "timezone": "Asia/Kolkata",
            "day_starts_at_h": "4",
            "retention_days": "40",
        }
        assert (await one.post("/fleet", policy, form="/fleet")).status == 303
        answer = await other.post("/fleet", opened | policy | {"flat_fare": "9"})
        assert answer.status == 422
        assert "Somebody saved other fares since you opened this page." in text_of(answer.text)
        assert 'value="9.00"' not in (await one.get("/fleet")).text


async def test_hostile_names_reach_the_page_as_text(depot: Depot) -> None:
    """Invariant 8: a terminal's name and a tap's stop are whatever somebody typed."""
    name = '<script>alert("x")</script>'
    bus = await depot.pair(name)
    await ride(depot, bus, Kind.OPENING, 100, Context(route="<b>7", stop="<img src=x>"))
    await bus.exchange(Status({"held": 1, "route": "</table><svg>"}))
    async with operator(depot) as person:
        for path in ("/", "/terminals", f"/terminals/{bus.certificate.terminal.hex()}", f"/cards/{CARD}"):
            page = (await person.get(path)).text
            assert "<script>" not in page
            assert "<img" not in page
            assert "<b>" not in page
            assert "</table><svg>" not in page
        assert name in await read(person, "/terminals")


async def test_odd_clocks_do_not_break_a_page(depot: Depot) -> None:
    """Invariant 9: a terminal's clock may say 1970, or the year 10889; both are shown, neither is trusted."""
    bus = await depot.pair()
    for at_ms in (0, 2**48 - 1):
        await bus.push(tap(bus, CARD, Kind.FARE, -100, at_ms, NO_CONTEXT))
    await projected(depot)
    async with operator(depot) as person:
        page = (await person.get(f"/cards/{CARD}")).text
    assert 'datetime="1970-01-01T00:00:00Z"' in page
    assert page.count("<time") == 2
