"""The sync endpoint over real TLS: honest blocks are kept once, whatever else comes changes nothing."""

import asyncio

import pytest
from sqlalchemy import delete

from crdt.certificate import AuthorCertificate
from crdt.cursor import beginning
from crdt.documents import FLEET_DOCUMENT, FleetDocument, SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import CardId, Kind
from crdt.frames import Ack, BlockFrame, CertificateFrame, DocumentFrame, Hello, PageFrame
from crdt.frontier import Head
from crdt.protocol import CONTENT_TYPE, IDENTIFY, SYNC
from crdt.pull import Pull
from crdt.session import Ended
from crdt.settlement import verify_page
from crdt.terminal_status import Status
from hub import tables
from hub.shield import HEADERS
from tests.hub.conftest import Depot
from tests.hub.terminal import CARD, Refused, first, reference


async def test_blocks_are_acknowledged_and_the_ledger_agrees_with_the_model(depot: Depot) -> None:
    terminal = await depot.pair()
    events = await terminal.push(terminal.taps(500, kind=Kind.OPENING), terminal.taps(-250, -180))
    assert [type(event) for event in events] == [Hello, Ack, Ended]
    assert first(events, "Ack").frontier == {terminal.key.replica: terminal.head}
    assert await asyncio.wrap_future(depot.hub.ledger.balance(CARD)) == 70
    assert await depot.digest() == await reference(terminal)


async def test_the_same_exchange_twice_counts_once(depot: Depot) -> None:
    """Invariant 2: replayed blocks change nothing, and are acknowledged again."""
    terminal = await depot.pair()
    body = terminal.encode(CertificateFrame(terminal.certificate.encode()), BlockFrame(terminal.taps(-250)))
    before = await terminal.post(body)
    digest = await depot.digest()
    after, again = await asyncio.gather(terminal.post(body), terminal.post(body))
    assert first(after, "Ack") == first(again, "Ack") == first(before, "Ack")
    assert await depot.digest() == digest == await reference(terminal)


async def test_a_terminal_may_carry_the_blocks_of_another(depot: Depot) -> None:
    carrier, silent = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    block = silent.taps(-180)
    events = await carrier.exchange(CertificateFrame(silent.certificate.encode()), BlockFrame(block))
    assert first(events, "Ack").frontier == {silent.key.replica: silent.head}
    assert await depot.digest() == await reference(silent)


async def test_the_hub_tells_its_heads_of_the_replicas_named_and_of_the_terminals_own(depot: Depot) -> None:
    one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await one.push(one.taps(-250))
    await other.push(other.taps(-180))
    hello = first(await one.exchange(), "Hello")
    assert dict(hello.frontier) == {one.key.replica: one.head}
    hello = first(await one.exchange(frontier={other.key.replica: Head(9, bytes(32))}), "Hello")
    assert dict(hello.frontier) == {one.key.replica: one.head, other.key.replica: other.head}


async def test_a_pull_brings_the_signed_settlement_and_the_fares(depot: Depot) -> None:
    terminal = await depot.pair()
    await terminal.push(terminal.taps(500, kind=Kind.OPENING))
    await depot.ask("POST", "/topup", {"card": CARD.hex(), "amount": "12.50", "request": "till-1-0001"})
    await depot.ask("POST", f"/cards/{CARD.hex()}/block", {})
    events = await terminal.exchange(Pull())
    document = SignedDocument.decode(first(events, "DocumentFrame").raw).verify(terminal.hub_certificate)
    assert (document.name, document.version) == (FLEET_DOCUMENT, 1)
    assert FleetDocument.load(document.body).settings.flat_fare_minor == 250
    (page,) = await terminal.pull()
    verify_page(page, terminal.hub_certificate)
    (row,) = page.rows
    assert (row.card, row.state.balance_minor, row.hotlisted) == (CARD, 1750, True)
    assert page.heads[terminal.key.replica] == terminal.head


async def test_an_exchange_has_no_headers_that_are_for_browsers(depot: Depot) -> None:
    """A bus pays for its bytes; whatever a browser may show has them all the same."""
    terminal = await depot.pair()
    async with terminal.connect() as http:
        headers = {"Content-Type": CONTENT_TYPE}
        async with http.post(depot.url + SYNC, data=terminal.encode(), headers=headers) as answer:
            assert set(answer.headers) == {"Content-Type", "Content-Length", "Date", "Server"}
        async with http.get(depot.url + IDENTIFY) as answer:
            assert set(HEADERS) <= set(answer.headers)


async def test_a_terminal_that_begins_anew_is_told_who_signs_the_settlement(depot: Depot) -> None:
    """Before the page: its own pairing may have been with a hub of another key."""
    terminal = await depot.pair()
    events = await terminal.exchange(Pull())
    assert [type(event) for event in events] == [Hello, CertificateFrame, DocumentFrame, PageFrame, Ended]
    certificate = AuthorCertificate.decode(first(events, "CertificateFrame").raw)
    assert certificate.verify(terminal.fleet_public_key) == terminal.hub_certificate


async def test_fares_that_the_terminal_has_are_not_sent_again(depot: Depot) -> None:
    terminal = await depot.pair()
    await terminal.push(terminal.taps(-250))
    (page,) = await terminal.pull()
    installed = Pull(page.series, page.position, beginning(page.position), {"fleet": 1})
    events = await terminal.exchange(installed)
    assert [type(event) for event in events] == [Hello, PageFrame, Ended]
    await depot.ask("POST", "/fleet", {"flat_fare": "3.10"})
    document = SignedDocument.decode(
        first(await terminal.exchange(Pull(documents={"fleet": 1})), "DocumentFrame").raw
    )
    assert document.version == 2
    assert FleetDocument.load(document.body).settings.flat_fare_minor == 310


@pytest.mark.parametrize("founded", ["sync.page_rows = 2\n"], indirect=True)
async def test_a_long_settlement_comes_in_pages_that_follow_each_other(depot: Depot) -> None:
    terminal = await depot.pair()
    cards = [CardId(bytes([4, 0, 0, number])) for number in range(5)]
    for card in cards:
        terminal.taps(100, card=card, kind=Kind.OPENING)
    await terminal.push(*terminal.chain)
    pages = await terminal.pull()
    assert [len(page.rows) for page in pages] == [2, 2, 1]
    assert sorted(row.card for page in pages for row in page.rows) == cards


async def test_what_a_terminal_says_of_itself_is_shown(depot: Depot) -> None:
    terminal = await depot.pair("Bus 7")
    (row,) = await depot.ask("GET", "/terminals")
    assert (row["online"], row["last_seen_ms"], row["held"]) == (False, None, None)
    await terminal.push(terminal.taps(-250, -250))
    said = Status({"held": 3, "held_minor": -750, "head_seq": 5, "position": 0, "x": "y"})
    await terminal.exchange(said, frontier={terminal.key.replica: terminal.head})
    (row,) = await depot.ask("GET", "/terminals")
    assert (row["name"], row["online"], row["address"]) == ("Bus 7", True, "127.0.0.1")
    assert (row["held"], row["held_minor"], row["reported_seq"], row["head_seq"]) == (3, -750, 5, 2)


async def test_a_status_of_nonsense_is_shown_as_unknown(depot: Depot) -> None:
    terminal = await depot.pair()
    await terminal.exchange(Status({"held": "many", "position": True, "head_seq": None, "held_minor": [1]}))
    (row,) = await depot.ask("GET", "/terminals")
    assert (row["held"], row["position"], row["reported_seq"], row["held_minor"]) == (None, None, None, None)


# ---- Who may speak ----


async def test_without_a_certificate_nothing_is_taken(depot: Depot) -> None:
    terminal = await depot.pair()
    terminal.tls = await depot.browser_tls()
    with pytest.raises(Refused) as caught:
        await terminal.push(terminal.taps(-250))
    assert (caught.value.status, caught.value.code) == (403, "unknown_author")


async def test_a_revoked_terminal_is_refused_at_once_also_on_an_open_connection(depot: Depot) -> None:
    terminal = await depot.pair("Bus 9")
    async with terminal.connect() as http:
        await terminal.push(terminal.taps(-250), http=http)
        digest = await depot.digest()
        await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 9"})
        with pytest.raises(Refused) as caught:
            await terminal.push(terminal.taps(-250), http=http)
        assert len(http.connector._conns) == 1  # type: ignore[union-attr]  # it was the same connection
    assert (caught.value.status, caught.value.code) == (403, "revoked")
    with pytest.raises(Refused):
        await terminal.exchange(Pull())
    assert await depot.digest() == digest
    (row,) = await depot.ask("GET", "/terminals")
    assert row["revoked"]


async def test_a_certificate_of_the_fleet_that_the_registry_does_not_know_is_refused(depot: Depot) -> None:
    terminal = await depot.pair()
    gone = delete(tables.client_certificate)
    await asyncio.wrap_future(depot.hub.database.write(lambda sql: sql.execute(gone) and None))
    with pytest.raises(Refused, match="pair the terminal again") as caught:
        await terminal.exchange(Pull())
    assert (caught.value.status, caught.value.code) == (403, "unknown_author")


async def test_the_hub_says_how_a_certificate_stands(depot: Depot) -> None:
    terminal = await depot.pair("Bus 1")

    async def standing() -> object:
        async with terminal.connect() as http, http.get(depot.url + "/api/v1/identify") as response:
            return (await response.json())["certificate"]

    assert await standing() == "good"
    await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 1"})
    assert await standing() == "revoked"
    terminal.tls = await depot.browser_tls()
    assert await standing() == "none"


async def test_hello_must_name_the_replica_of_the_certificate(depot: Depot) -> None:
    one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    block = other.taps(-250)
    body = other.encode(CertificateFrame(other.certificate.encode()), BlockFrame(block))
    events = await one.post(body)
    assert first(events, "Refusal").code is RefusalCode.NOT_PERMITTED
    assert await asyncio.wrap_future(depot.hub.ledger.heads()) == {}
