"""What an operator does, over the real control socket: money exactly and once, cards, terminals, fares."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.facts import MAX_AMOUNT_MINOR, Kind
from crdt.fleet import FleetSettings
from hub.cardids import parse_card
from hub.control_client import ask
from hub.errors import HubFailed, HubNotRunning, RequestRefused
from hub.fleettext import as_text, format_money, from_text, parse_money
from hub.overview import Overview
from tests.hub.conftest import Depot
from tests.hub.terminal import CARD

UID = "04A1B2C3D4E5F6"


async def top_up(depot: Depot, amount: str, request: str, card: str = UID) -> Any:
    return await depot.ask("POST", "/topup", {"card": card, "amount": amount, "request": request})


async def test_a_top_up_is_booked_once_per_request(depot: Depot) -> None:
    first = await top_up(depot, "12.50", "request-1")
    assert first == {"card": UID, "amount_minor": 1250, "balance_minor": 1250, "repeated": False}
    again = await asyncio.gather(*(top_up(depot, "12.50", "request-1") for _ in range(3)))
    assert [(each["repeated"], each["balance_minor"]) for each in again] == [(True, 1250)] * 3
    assert (await top_up(depot, "0.05", "request-2"))["balance_minor"] == 1255


@pytest.mark.parametrize(("amount", "card"), [("12.51", UID), ("12.50", "04FFFFFFFFFFFF")])
async def test_a_request_id_that_booked_something_else_is_a_conflict_and_books_nothing(
    depot: Depot, amount: str, card: str
) -> None:
    """Nobody is told that money is on a card where it is not."""
    await top_up(depot, "1", "request-0")
    await top_up(depot, "12.50", "request-1")
    before = await depot.ask("GET", "/status")
    with pytest.raises(RequestRefused, match=f"request-1 has booked 12.50 on {UID} before") as caught:
        await top_up(depot, amount, "request-1", card)
    assert (caught.value.code, caught.value.status) == ("request_used", 409)
    assert await depot.ask("GET", "/status") == before
    await top_up(depot, "2", "request-2")
    assert (await top_up(depot, "12.50", "request-1"))["repeated"]


async def test_a_booking_is_in_the_ledger_with_its_history(depot: Depot) -> None:
    await top_up(depot, "5", "request-1")
    await depot.projected()
    card = await depot.ask("GET", f"/cards/{UID}")
    (row,) = card["history"]
    assert (card["balance_minor"], card["known"], card["blocked"]) == (500, True, False)
    assert (row["kind"], row["amount_minor"], row["terminal"], row["seq"]) == ("topup", 500, "hub", 1)


@pytest.mark.parametrize(
    ("amount", "sentence"),
    [
        ("", "is not an amount"),
        ("-5", "is not an amount"),
        ("1e3", "is not an amount"),
        ("12,50", "is not an amount"),
        ("1_000", "is not an amount"),
        ("٣", "is not an amount"),
        ("0x10", "is not an amount"),
        ("inf", "is not an amount"),
        ("12.505", "too many decimals"),
        ("99999999999", "more than one entry may be"),
        ("0.00", "more than zero"),
    ],
)
async def test_an_amount_that_is_none_books_nothing(depot: Depot, amount: str, sentence: str) -> None:
    with pytest.raises(RequestRefused, match=sentence):
        await top_up(depot, amount, "request-1")
    assert await depot.ask("GET", "/cards") == []


@pytest.mark.parametrize("request_id", ["", "short", "x" * 41, "with space", "ümlaut-ümlaut"])
async def test_a_top_up_without_a_proper_request_id_is_refused(depot: Depot, request_id: str) -> None:
    with pytest.raises(RequestRefused, match="request id"):
        await top_up(depot, "5", request_id)


@pytest.mark.parametrize("card", ["04A1", "zz", "04" * 17, "04A1B2C3D", "０４Ａ１Ｂ２Ｃ３"])
async def test_what_is_no_card_is_refused(depot: Depot, card: str) -> None:
    with pytest.raises(RequestRefused, match="is not a card id"):
        await top_up(depot, "5", "request-1", card)


def test_a_card_may_be_typed_in_the_usual_ways() -> None:
    for text in ("04a1b2c3d4e5f6", "04:A1:B2:C3:D4:E5:F6", " 04 A1 B2 C3 D4 E5 F6 ", "04-a1-b2-c3-d4-e5-f6"):
        assert parse_card(text) == CARD


async def test_cards_are_blocked_and_unblocked(depot: Depot) -> None:
    await depot.ask("POST", f"/cards/{UID}/block", {})
    await depot.ask("POST", f"/cards/{UID}/block", {})
    (row,) = await depot.ask("GET", "/cards")
    assert row == {"card": UID, "balance_minor": 0, "blocked": True, "overdrawn": False}
    await depot.ask("POST", f"/cards/{UID}/unblock", {})
    assert await depot.ask("GET", "/cards") == []  # no terminal and no operator has met it
    await depot.ask("POST", "/topup", {"card": UID, "amount": "5.00", "request": "request-1"})
    await depot.ask("POST", f"/cards/{UID}/block", {})
    await depot.ask("POST", f"/cards/{UID}/unblock", {})
    assert await depot.ask("GET", "/cards") == [
        {"card": UID, "balance_minor": 500, "blocked": False, "overdrawn": False}
    ]


async def test_cards_are_listed_page_by_page(depot: Depot) -> None:
    for number in range(5):
        await top_up(depot, "1", f"request-{number}", f"040000{number:02X}")
    page = await depot.ask("GET", "/cards?limit=3")
    rest = await depot.ask("GET", f"/cards?limit=3&after={page[-1]['card']}")
    assert [row["card"] for row in page + rest] == [f"040000{number:02X}" for number in range(5)]


async def test_an_unknown_terminal_cannot_be_revoked(depot: Depot) -> None:
    with pytest.raises(RequestRefused, match="no terminal 'Bus 99'"):
        await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 99"})


async def test_the_books_of_all_that_happened_balance(depot: Depot) -> None:
    """Invariant 3, and 11: of two openings of one card the larger counts, and the other is told as voided."""
    one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await one.push(one.taps(500, kind=Kind.OPENING), one.taps(-250))
    await other.push(other.taps(300, kind=Kind.OPENING), other.taps(-180))
    await top_up(depot, "12.50", "request-1")
    status = await depot.ask("GET", "/status")
    assert (status["deltas"], status["deltas_minor"]) == (5, 500 - 250 + 300 - 180 + 1250)
    assert (status["balances_minor"], status["voided_minor"]) == (500 - 250 - 180 + 1250, 300)
    assert (status["balanced"], status["cards"], status["terminals"]) == (True, 1, 2)
    assert status["digest"] == (await depot.digest()).hex()


async def test_the_latest_facts_come_newest_first(depot: Depot) -> None:
    terminal = await depot.pair("Bus 1")
    await terminal.push(terminal.taps(-250, -180))
    await top_up(depot, "1", "request-1")
    await depot.projected()
    rows = await depot.ask("GET", "/latest")
    assert [(row["terminal"], row["amount_minor"]) for row in rows] == [
        ("hub", 100),
        ("Bus 1", -180),
        ("Bus 1", -250),
    ]


async def test_fares_change_as_a_new_version_of_the_document(depot: Depot) -> None:
    changes = {"flat_fare": "3.10", "route_fares": "7=1.80\nAirport=4.20", "negative_ride": "no"}
    view = await depot.ask("POST", "/fleet", changes)
    assert view["version"] == 2
    assert {name: view["values"][name] for name in changes} == changes
    assert await depot.ask("GET", "/fleet") == view


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("flat", "3", "no fleet setting 'flat'"),
        ("flat_fare", "3.105", "flat_fare: .* too many decimals"),
        ("flat_fare", "-1", "flat_fare: .* is not an amount"),
        ("route_fares", "7", "route_fares: '7' is not a new route and its fare"),
        ("route_fares", "7=1\n7=2", "route_fares: '7=2' is not a new route"),
        ("negative_ride", "maybe", "negative_ride: write yes or no"),
        ("unknown_card", "eat", "unknown_card must be"),
        ("passback_window_s", "1.5", "passback_window_s: write a whole number"),
        ("passback_window_s", "99999999", "passback_window_s must be"),
        ("currency", "euro", "currency must be"),
        ("timezone", "Moon/Base", "timezone: 'Moon/Base' is no time zone here"),
        ("timezone", "../../../etc/localtime", "is no time zone here"),
        ("timezone", "Europe", "is no time zone here"),
        ("timezone", "", "is no time zone here"),
        ("day_starts_at_h", "24", "day_starts_at_h must be .* hours from 0 to 23"),
        ("retention_days", "0", "retention_days must be .* days from 1"),
    ],
)
async def test_a_wrong_fleet_setting_changes_nothing(
    depot: Depot, name: str, text: str, sentence: str
) -> None:
    before = await depot.ask("GET", "/fleet")
    with pytest.raises(RequestRefused, match=sentence):
        await depot.ask("POST", "/fleet", {"low_balance": "1.00", name: text})
    assert await depot.ask("GET", "/fleet") == before


async def test_a_fare_that_a_paired_terminal_may_not_write_is_refused(depot: Depot) -> None:
    await depot.pair("Bus 1")
    for name, text in (("flat_fare", "100.01"), ("route_fares", "7=100.01"), ("opening_balance", "20.01")):
        with pytest.raises(RequestRefused, match="Bus 1 was paired for a .* of at most"):
            await depot.ask("POST", "/fleet", {name: text})
    await depot.ask("POST", "/fleet", {"flat_fare": "100.00", "opening_balance": "20.00"})


async def test_a_fare_that_the_next_terminal_may_not_write_is_refused_before_there_is_one(
    depot: Depot,
) -> None:
    """Else each tap of the first terminal paired after it would be refused."""
    for name, text, side in (("flat_fare", "100.01", "debit"), ("opening_balance", "20.01", "credit")):
        sentence = f"Terminals are paired for a .* of at most .* Raise enrolment.max_{side}_minor"
        with pytest.raises(RequestRefused, match=sentence) as caught:
            await depot.ask("POST", "/fleet", {name: text})
        assert (caught.value.code, caught.value.status) == ("limit", 409)


async def test_the_currency_is_set_before_there_is_money(depot: Depot) -> None:
    view = await depot.ask("POST", "/fleet", {"currency": "JPY", "exponent": "0", "flat_fare": "210"})
    assert (view["currency"], view["exponent"], view["values"]["flat_fare"]) == ("JPY", 0, "210")
    await top_up(depot, "1000", "request-1")
    with pytest.raises(RequestRefused, match="only before the first card"):
        await depot.ask("POST", "/fleet", {"exponent": "2"})


@pytest.mark.parametrize("body", ["[]", "", "{", '{"card": 1}', "\\", "[" * 50_000, '{"card": "\\ud800"}'])
async def test_nonsense_on_the_control_socket_is_refused(depot: Depot, body: str) -> None:
    connector = aiohttp.UnixConnector(str(depot.hub.settings.control_socket))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.post("http://localhost/topup", data=body) as response,
    ):
        assert (response.status, (await response.json())["error"]) == (400, "malformed")


async def test_the_control_socket_is_for_the_hubs_own_user(depot: Depot) -> None:
    assert depot.hub.settings.control_socket.stat().st_mode & 0o777 == 0o600
    assert depot.hub.settings.state_directory.stat().st_mode & 0o777 == 0o700


async def test_a_command_without_a_hub_says_so(depot: Depot) -> None:
    nowhere = depot.hub.settings.state_directory / "nowhere.sock"
    with pytest.raises(HubNotRunning, match="farebox-hub run"):
        await asyncio.to_thread(ask, nowhere, "GET", "/status")


async def test_a_hub_that_runs_and_fails_is_not_called_stopped(tmp_path: Path) -> None:
    """Who is told to start it would do that, and be told that it runs."""
    path = tmp_path / "control.sock"
    for answer, error, says in (
        (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops", HubFailed, "HTTP 500"),
        (b"", HubNotRunning, "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", HubNotRunning, "broke off"),
    ):

        async def fail(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes = answer
        ) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        async with await asyncio.start_unix_server(fail, path):
            with pytest.raises(error, match=says) as failure:
                await asyncio.to_thread(ask, path, "GET", "/status")
        assert "Start it" not in str(failure.value)
        path.unlink(missing_ok=True)


async def test_sums_are_made_again_after_every_change(depot: Depot) -> None:
    clock = iter(range(10_000))
    overview = Overview(depot.hub.ledger, None, 90, lambda: 0, lambda: float(next(clock)))  # type: ignore[arg-type]
    first = await overview._sums.get()
    assert await overview._sums.get() is first
    await top_up(depot, "1", "request-1")
    for _ in range(50):  # they rest after each time for a while: the clock here ticks with every look
        sums, _ = await overview._sums.get()
    assert sums.books.balances_minor == 100


@given(st.integers(-(2**63), 2**63), st.integers(0, 4))
def test_money_as_text_and_back_is_exact(amount_minor: int, exponent: int) -> None:
    """Invariant 3: no float touches money."""
    text = format_money(amount_minor, exponent)
    if 0 <= amount_minor <= MAX_AMOUNT_MINOR:
        assert parse_money(text, exponent) == amount_minor
    else:
        with pytest.raises(RequestRefused):
            parse_money(text, exponent)


_AMOUNTS = st.integers(0, MAX_AMOUNT_MINOR)
_ROUTES = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=20)


@given(
    st.builds(
        FleetSettings,
        exponent=st.integers(0, 4),
        flat_fare_minor=_AMOUNTS,
        route_fares=st.dictionaries(_ROUTES, _AMOUNTS, max_size=5),
        unknown_card=st.sampled_from(["register", "refuse"]),
        opening_balance_minor=_AMOUNTS,
        low_balance_minor=_AMOUNTS,
        negative_ride=st.booleans(),
        passback_window_s=st.integers(0, 86_400),
        timezone=st.sampled_from(["UTC", "Europe/Berlin", "Etc/GMT+12"]),
        day_starts_at_h=st.integers(0, 23),
        retention_days=st.integers(1, 3650),
    )
)
def test_fleet_settings_as_text_and_back_are_the_same(settings: FleetSettings) -> None:
    values = from_text(as_text(settings), settings.exponent)
    assert FleetSettings(**values) == settings  # type: ignore[arg-type]  # it checks every type itself
