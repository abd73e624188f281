"""Pairing over real TLS with the hub's side of SPAKE2: what works, and a clear sentence for what does not."""

import asyncio
import os
import ssl
from collections.abc import Container
from pathlib import Path

import pytest
from aiohttp import web

from crdt.facts import CardId, TerminalId
from crdt.pairing import PairingCode
from crdt.protocol import IDENTIFY, PAIR_FINISH, PAIR_START
from crdt.store.database import Database
from edge.addresses import AddressBook, HubAddress
from edge.enrolling import MAX_ASKED, Enroller, Way
from edge.errors import CodeRefused, HubImpostor, HubUnreachable, PairedElsewhere, PairingRefused
from edge.https import Limits
from edge.identity import Identity, load_identity, new_keys
from edge.pairing import OneKey, Pairing, parse_code
from edge.terminal import Terminal
from tests.edge.authority import Fleet
from tests.edge.test_uplink import enrolled, ride
from tests.edge.testhub import TestHub, open_ledger

CODE = PairingCode.parse("4-7K2M9QX")
LIMITS = Limits(total_s=20, read_s=20)
CARD = CardId(b"\x04\x01\x02\x03")


@pytest.fixture
async def hub(hub_database: Database, fleet: Fleet) -> TestHub:
    return TestHub(fleet, await asyncio.to_thread(open_ledger, hub_database, fleet), code=CODE)


async def paired_at(
    address: HubAddress, code: str = "4-7K2M9QX", terminal: TerminalId | None = None
) -> Identity:
    keys = await asyncio.to_thread(new_keys, os.urandom)
    pairing = Pairing(address, LIMITS, "", os.urandom)
    return (await pairing.run(parse_code(code), keys, "Bus 12 front", terminal)).identity


async def test_a_code_makes_an_identity_of_the_hubs_fleet(hub: TestHub, fleet: Fleet, tmp_path: Path) -> None:
    async with hub.serving(tmp_path) as address:
        identity = await paired_at(address)
    assert identity.fleet == fleet.id
    assert identity.certificate.name == "Bus 12 front"
    assert identity.hub_certificate == fleet.hub_certificate


@pytest.mark.parametrize("typed", ["4-7k2m9qx", " 4-7K2 M9QX ", "4-7K2M9QX\n"])
async def test_the_code_may_be_typed_as_people_type(hub: TestHub, tmp_path: Path, typed: str) -> None:
    async with hub.serving(tmp_path) as address:
        await paired_at(address, typed)


@pytest.mark.parametrize("typed", ["", "hello", "4-7K2", "99999-7K2M9QX", "4-7K2M9QX-1"])
def test_what_is_no_code_is_said_before_anybody_is_asked(typed: str) -> None:
    with pytest.raises(CodeRefused, match="looks like 4-7K2M9QX"):
        parse_code(typed)


@pytest.mark.parametrize("wrong", ["4-7K2M9QY", "5-7K2M9QX"])
async def test_a_wrong_code_is_a_sentence_that_says_what_to_do(
    hub: TestHub, tmp_path: Path, wrong: str
) -> None:
    async with hub.serving(tmp_path) as address:
        with pytest.raises(CodeRefused, match=rf"does not accept the code {wrong}.*farebox-hub invite"):
            await paired_at(address, wrong)


async def test_nobody_there_is_a_sentence() -> None:
    with pytest.raises(HubUnreachable, match="No hub answers at 127.0.0.1:1"):
        await paired_at(HubAddress("127.0.0.1", 1))


async def test_a_man_in_the_middle_with_another_tls_key_fails(
    hub: TestHub, fleet: Fleet, tmp_path: Path
) -> None:
    """He relays every message of the real hub, unchanged; the key under the connection is not the hub's."""
    middle = TestHub(fleet, hub.ledger, code=CODE)
    own = await asyncio.to_thread(Fleet(8).server_context, tmp_path)
    async with middle.serving(tmp_path, context=own) as address:
        with pytest.raises(CodeRefused):
            await paired_at(address)


async def test_a_hub_that_does_not_know_the_code_is_found_out(hub: TestHub, tmp_path: Path) -> None:
    """A stranger answers as if the code were right: what he seals does not open."""
    guess = PairingCode.parse("4-0000000")
    stranger = TestHub(hub.fleet, hub.ledger, code=guess)
    stranger.accepts_anything = True
    async with stranger.serving(tmp_path) as address:
        with pytest.raises(HubImpostor, match="does not know the code"):
            await paired_at(address)


def test_a_tls_key_that_changes_half_way_ends_the_connection() -> None:
    seen = OneKey()
    seen(b"one")
    seen(b"one")
    with pytest.raises(ssl.SSLError):
        seen(b"two")


async def test_a_server_that_changes_its_key_half_way_is_no_hub(tmp_path: Path, fleet: Fleet) -> None:
    """The second connection is answered with another certificate."""
    contexts = [await asyncio.to_thread(one.server_context, tmp_path) for one in (fleet, Fleet(8))]

    async def hang_up(_request: web.Request) -> web.Response:
        response = web.json_response({})
        response.force_close()
        return response

    app = web.Application()
    app.add_routes([web.get(IDENTIFY, hang_up), web.post(PAIR_START, hang_up)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    first, second = contexts

    def switch(tls: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        switches.append(1)
        if len(switches) > 1:
            tls.context = second

    switches: list[int] = []
    first.sni_callback = switch
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=first)
    await site.start()
    try:
        port = runner.addresses[0][1]
        with pytest.raises(HubImpostor, match="changed its TLS key"):
            await paired_at(HubAddress("localhost", port))
    finally:
        await runner.cleanup()
    assert len(switches) == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"certificate": ""}, "certificates cannot be used"),
        ({"tls_root": "x"}, "certificates cannot be used"),
        ({"fleet_public_key": "00" * 32}, "certificates cannot be used"),
    ],
)
async def test_certificates_that_do_not_fit_are_refused(
    hub: TestHub, tmp_path: Path, given: dict[str, str], says: str
) -> None:
    hub.given = given
    async with hub.serving(tmp_path) as address:
        with pytest.raises(PairingRefused, match=says):
            await paired_at(address)


@pytest.mark.parametrize(
    "reply",
    [
        web.Response(text="not JSON"),
        web.json_response([]),
        web.json_response({}),
        web.json_response({"session": "s", "message": "!"}),
        web.json_response({"session": "s", "message": "AAAA"}),
        web.json_response({"session": 7, "message": "AAAA"}),
        web.Response(body=b"x" * 100_000),
        web.json_response({"error": "too_often", "message": "Try again in 9 s."}, status=429),
    ],
    ids=range(8),
)
async def test_garbage_at_the_pairing_address_is_refused(
    reply: web.Response, fleet: Fleet, tmp_path: Path
) -> None:
    """Invariant 8: whatever answers there."""
    text, status = bytes(reply.body or b""), reply.status  # type: ignore[arg-type]  # bytes in all of these

    async def say(_request: web.Request) -> web.Response:
        return web.Response(body=text, status=status)

    app = web.Application()
    app.add_routes([web.get(IDENTIFY, say), web.post(PAIR_START, say), web.post(PAIR_FINISH, say)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    context = await asyncio.to_thread(fleet.server_context, tmp_path)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        with pytest.raises(PairingRefused):
            await paired_at(HubAddress("127.0.0.1", runner.addresses[0][1]))
    finally:
        await runner.cleanup()


def enroller_of(terminal: Terminal, book: AddressBook, kept: list[HubAddress]) -> Enroller:
    return Enroller(terminal, book, "Bus 12 front", Way(LIMITS, ""), kept.append, os.urandom)


async def test_the_terminal_pairs_with_the_hub_it_finds_past_a_neighbours(
    terminal: Terminal, hub: TestHub, tmp_path: Path, database: Database
) -> None:
    kept: list[HubAddress] = []
    neighbour = TestHub(Fleet(9), hub.ledger)
    async with hub.serving(tmp_path) as address, neighbour.serving(tmp_path) as other:
        book = AddressBook(None, None)
        book.hint([other, HubAddress("127.0.0.1", 1), address])
        await enroller_of(terminal, book, kept).pair("4-7K2M9QX", None)
    assert kept == [address]
    assert enrolled(terminal).identity.fleet == hub.fleet.id
    stored = await asyncio.to_thread(load_identity, database)
    assert stored == enrolled(terminal).identity


async def test_it_waits_a_moment_for_a_hub_to_be_announced(
    terminal: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    async with hub.serving(tmp_path) as address:
        book = AddressBook(None, None)
        enroller = enroller_of(terminal, book, [])
        waiting = asyncio.create_task(enroller.pair("4-7K2M9QX", None))
        await asyncio.sleep(0)
        book.hint([address])
        enroller.hinted()
        await waiting
    assert terminal.enrolment is not None


async def test_a_neighbours_hub_that_is_heard_first_does_not_end_the_search(
    terminal: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """Discovery hears one hub at a time; the one that knows the code may be the second."""
    neighbour = TestHub(Fleet(9), hub.ledger)
    async with hub.serving(tmp_path) as address, neighbour.serving(tmp_path) as other:
        book = AddressBook(None, None)
        book.hint([other])
        enroller = enroller_of(terminal, book, [])
        waiting = asyncio.create_task(enroller.pair("4-7K2M9QX", None))
        await neighbour.code_refused.wait()
        book.hint([other, address])
        enroller.hinted()
        await waiting
    assert enrolled(terminal).identity.fleet == hub.fleet.id


async def test_when_no_other_hub_is_heard_the_refusal_is_told(
    terminal: Terminal, hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.enrolling.LATE_S", 0.01)
    neighbour = TestHub(Fleet(9), hub.ledger)
    async with neighbour.serving(tmp_path) as other:
        book = AddressBook(None, None)
        book.hint([other])
        with pytest.raises(CodeRefused):
            await enroller_of(terminal, book, []).pair("4-7K2M9QX", None)


async def test_made_up_hubs_do_not_keep_the_technician_waiting_for_ever(terminal: Terminal) -> None:
    """Invariant 8: a new one after each that was tried, and each may guess at the code once."""
    tried = 0

    class Lies(AddressBook):
        def candidates(self, but: Container[HubAddress] = ()) -> list[HubAddress]:
            nonlocal tried
            tried += 1
            self.hint([HubAddress(f"127.2.0.{tried}", 1)])
            return super().candidates(but)

    with pytest.raises(HubUnreachable, match="Too many hubs.* --hub HOST:PORT"):
        await enroller_of(terminal, Lies(None, None), []).pair("4-7K2M9QX", None)
    assert tried == MAX_ASKED
    assert terminal.enrolment is None


async def test_no_hub_announced_says_how_to_name_one(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.enrolling.FIND_TIMEOUT_S", 0.01)
    with pytest.raises(HubUnreachable, match="--hub HOST:PORT"):
        await enroller_of(terminal, AddressBook(None, None), []).pair("4-7K2M9QX", None)


async def test_pairing_again_keeps_the_terminal_and_its_unsettled_taps(
    paired: Terminal, hub: TestHub, tmp_path: Path
) -> None:
    """Re-pairing replaces identity and keeps every unsettled delta."""
    before = enrolled(paired)
    await asyncio.to_thread(ride, paired, CARD)
    async with hub.serving(tmp_path) as address:
        await enroller_of(paired, AddressBook(None, None), []).pair("4-7K2M9QX", address)
    after = enrolled(paired)
    assert after.identity.certificate.terminal == before.identity.certificate.terminal
    assert after.identity.replica != before.identity.replica
    assert after.ledger.held() == (2, 750)
    assert (after.fares, after.fares_version) == (before.fares, before.fares_version)


async def test_another_fleets_hub_does_not_get_a_terminal_with_a_ledger(
    paired: Terminal, hub: TestHub, tmp_path: Path, database: Database
) -> None:
    before = enrolled(paired)
    await asyncio.to_thread(ride, paired, CARD)
    foreign = TestHub(Fleet(9), hub.ledger, code=CODE)
    async with foreign.serving(tmp_path) as address:
        with pytest.raises(PairedElsewhere, match="holds 2 taps.*empty state_directory"):
            await enroller_of(paired, AddressBook(None, None), []).pair("4-7K2M9QX", address)
    assert paired.enrolment is before
    assert await asyncio.to_thread(load_identity, database) == before.identity
