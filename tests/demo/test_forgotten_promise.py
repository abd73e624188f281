"""A real terminal whose promised identity a real hub has forgotten mends itself (invariants 4 and 5)."""

import asyncio
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from crdt.errors import RefusalCode
from crdt.facts import CardId
from crdt.frames import Message
from crdt.protocol import RENEW
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store.database import Database
from edge.addresses import AddressBook, HubAddress
from edge.enrolling import Enroller, Way
from edge.errors import HubRefused, HubUnreachable
from edge.exchange import Answer, ExchangeClient
from edge.identity import Identity, new_keys
from edge.pairing import Pairing, parse_code
from edge.promised import Promised
from edge.renewal import renewed_identity
from edge.sync import Exchange, Sync
from edge.terminal import Terminal
from edge.tls import client_context
from edge.uplink import UplinkStatus
from hub.settings import HubSettings
from tests.demo.test_settings_documents import KEY, LIMITS, enrolled
from tests.edge.jobs import running
from tests.edge.test_uplink import ride, uplink_of
from tests.hub import conftest as hub_fixtures
from tests.hub.conftest import Depot
from tests.hub.test_restoring import back_up, put_back, settings, up, waiting

__all__ = ["settings"]
write_settings = hub_fixtures.write_settings

pytestmark = pytest.mark.may_block("a start and an end of the hub wait for the disk")

SETTLED, LATE, OPEN = (CardId(bytes([4, 0, 0, number])) for number in (1, 2, 3))


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Terminal]:
    with Database.open(tmp_path / "bus.db", KEY) as database:
        yield Terminal(database)


def address_of(depot: Depot) -> HubAddress:
    place = URL(depot.url)
    return HubAddress(str(place.host), int(place.port or 0))


async def pair(depot: Depot, terminal: Terminal) -> None:
    keys = await asyncio.to_thread(new_keys, os.urandom)
    code = parse_code(await depot.invite())
    promised = await Pairing(address_of(depot), LIMITS, "", os.urandom).run(code, keys, "Bus 1", None)
    await asyncio.to_thread(terminal.enrol, promised.identity)


async def sync(depot: Depot, terminal: Terminal) -> UplinkStatus:
    uplink = uplink_of(terminal, AddressBook(address_of(depot), None))
    async with running(uplink):
        return await uplink.sync_now()


async def promise(depot: Depot, terminal: Terminal) -> Promised:
    """The hub promises a new identity, and the terminal goes out of reach before it takes it up."""
    before = enrolled(terminal).identity
    await asyncio.to_thread(enrolled(terminal).ledger.suspend)
    async with await client(before) as asking:

        async def ask(request: Mapping[str, Any]) -> dict[str, Any]:
            return await asking.ask(address_of(depot), RENEW, request)

        promised = await renewed_identity(ask, before, [], os.urandom)
    await asyncio.to_thread(terminal.promise, promised, before)
    return promised


async def client(identity: Identity) -> ExchangeClient:
    context = await asyncio.to_thread(client_context, identity)
    return ExchangeClient(identity.fleet, identity.replica, context, LIMITS)


async def balances(depot: Depot) -> list[int]:
    return [await asyncio.wrap_future(depot.hub.ledger.balance(card)) for card in (SETTLED, LATE, OPEN)]


async def listed(depot: Depot) -> Revocations:
    document = await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT))
    assert document is not None
    return Revocations.decode(document.body)


async def test_a_promise_that_a_hub_has_forgotten_needs_no_technician(
    settings: HubSettings, bus: Terminal, tmp_path: Path
) -> None:
    """What was settled after the backup, what was open, what the hub had given: once each, in one run."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        await pair(depot, bus)
        await sync(depot, bus)
        await back_up(depot, backup)
        for card in (SETTLED, LATE):
            await asyncio.to_thread(ride, bus, card)
            assert not (await sync(depot, bus)).trouble
        first = enrolled(bus).identity
        promised = await promise(depot, bus)
        await asyncio.to_thread(ride, bus, OPEN)
    put_back(settings, backup)
    async with up(settings) as depot:
        status = await sync(depot, bus)
        assert (status.online, status.trouble, status.disputed) == (True, "", "")
        assert await balances(depot) == [750, 750, 750]
        now = enrolled(bus)
        assert now.identity.replica not in (first.replica, promised.identity.replica)
        assert bus.promised is None
        ended = await listed(depot)
        assert ended.replaced == {first.replica, promised.identity.replica}
        assert ended.cut_offs[promised.identity.replica] == 0, "a copy that took it up counts no more"
        mine = await asyncio.to_thread(now.ledger.digest)
        assert mine == await asyncio.wrap_future(depot.hub.ledger.digest())
        assert await waiting(depot) == {}


async def test_who_had_ended_is_known_when_another_is_taken_up(
    settings: HubSettings, bus: Terminal, tmp_path: Path
) -> None:
    """Invariant 5: the terminal leaves the depot as soon as it is another, and meets doors with blocks of its
    former identities, and of a stolen terminal. So it has a list that names them all by then."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        stolen = await depot.pair("Bus 2")
        await pair(depot, bus)
        await sync(depot, bus)
        await back_up(depot, backup)
        await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 2"})
        await asyncio.to_thread(ride, bus, SETTLED)
        await sync(depot, bus)
        first, promised = enrolled(bus).identity, await promise(depot, bus)
    put_back(settings, backup)
    async with up(settings) as depot, AsyncExitStack() as held:
        address = address_of(depot)

        async def way(identity: Identity) -> Exchange:
            speaking = await held.enter_async_context(await client(identity))

            async def exchange(messages: Sequence[Message]) -> Answer:
                if enrolled(bus).identity is not first:
                    raise HubUnreachable("The hub is out of reach.")
                return await speaking.exchange(address, messages)

            return exchange

        async def renew(reissued: Sequence[bytes]) -> Exchange:
            asking = await held.enter_async_context(await client(first))
            another = await renewed_identity(
                lambda request: asking.ask(address, RENEW, request), first, reissued, os.urandom, bus.promised
            )
            await asyncio.to_thread(bus.promise, another, first)
            return await way(another.identity)

        run = Sync(bus, enrolled(bus), await way(promised.identity), dict, renew=renew)
        run.former = lambda: way(first)
        with pytest.raises(HubUnreachable):
            await run.run()
        assert enrolled(bus).identity is not first
        known = await asyncio.to_thread(enrolled(bus).ledger.revocations)
        assert {first.replica, promised.identity.replica} <= known.replaced
        assert stolen.key.replica in known.revoked


async def test_a_technician_who_pairs_it_ends_the_forgotten_identity_too(
    settings: HubSettings, bus: Terminal, tmp_path: Path
) -> None:
    """Invariant 5: a copy of the storage may have taken the promise up, and write again what is open."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        await pair(depot, bus)
        await asyncio.to_thread(ride, bus, SETTLED)
        await sync(depot, bus)
        await back_up(depot, backup)
        first = enrolled(bus).identity
        promised = await promise(depot, bus)
        await asyncio.to_thread(ride, bus, OPEN)
    put_back(settings, backup)
    async with up(settings) as depot:
        book, way = AddressBook(None, None), Way(LIMITS, "")
        enroller = Enroller(bus, book, "Bus 1", way, lambda _address: None, os.urandom)
        await enroller.pair(await depot.invite(), address_of(depot))
        assert not (await sync(depot, bus)).trouble
        assert await balances(depot) == [750, 0, 750]
        ended = await listed(depot)
        assert ended.replaced == {first.replica, promised.identity.replica}
        assert ended.cut_offs[promised.identity.replica] == 0
        assert bus.promised is None


async def test_a_technician_who_pairs_it_ends_what_it_was_where_the_hub_has_forgotten_that(
    settings: HubSettings, bus: Terminal, tmp_path: Path
) -> None:
    """Invariant 5: another copy of the storage may have sealed what is open here, and is no restored one."""
    backup, image = tmp_path / "backup", tmp_path / "image.db"
    async with up(settings) as depot:
        await back_up(depot, backup)
        await pair(depot, bus)
        await asyncio.to_thread(ride, bus, SETTLED)
        await sync(depot, bus)
        await asyncio.to_thread(ride, bus, OPEN)
    for suffix in ("", "-wal"):
        await asyncio.to_thread(shutil.copy, tmp_path / f"bus.db{suffix}", f"{image}{suffix}")
    sealed = await asyncio.to_thread(enrolled(bus).ledger.seal)
    assert sealed is not None
    put_back(settings, backup)
    async with up(settings) as depot:
        with await asyncio.to_thread(Database.open, image, KEY) as opened:
            copy = await asyncio.to_thread(Terminal, opened)
            before = enrolled(copy).identity
            await asyncio.to_thread(enrolled(copy).ledger.suspend)
            enroller = Enroller(
                copy, AddressBook(None, None), "Bus 1", Way(LIMITS, ""), lambda _address: None, os.urandom
            )
            await enroller.pair(await depot.invite(), address_of(depot))
            assert not (await sync(depot, copy)).trouble
        assert (await listed(depot)).replaced == {before.replica}
        taken = await asyncio.wrap_future(depot.hub.ledger.merge([sealed.raw], [before.certificate]))
        assert [refused.error.code for refused in taken.refused] == [RefusalCode.REVOKED]
        assert await balances(depot) == [750, 0, 750]


async def test_a_hub_that_knows_neither_identity_says_what_to_do(
    settings: HubSettings, bus: Terminal, tmp_path: Path
) -> None:
    """ "every error a person can meet says what to do next": the promise is kept until somebody pairs it."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        await back_up(depot, backup)
        await pair(depot, bus)
        await sync(depot, bus)
        promised = await promise(depot, bus)
    put_back(settings, backup)
    async with up(settings) as depot:
        status = await sync(depot, bus)
        assert not status.online
        assert "pair the terminal again" in status.trouble
        assert bus.promised is promised


async def test_only_a_certificate_of_the_same_terminal_is_ended(settings: HubSettings, bus: Terminal) -> None:
    """Invariants 8 and 10: nobody ends another's identity by calling it forgotten."""
    async with up(settings) as depot:
        await pair(depot, bus)
        other = await depot.pair("Bus 2")
        own = enrolled(bus).identity
        async with await client(own) as asking:
            for named in (other.certificate.encode(), depot.hub.authority.hub_certificate.encode(), b"?"):
                with pytest.raises(HubRefused, match="certificate of the same terminal"):
                    await renewal(depot, asking, named)
            forged = bytearray(own.certificate.encode())
            forged[-1] ^= 1
            with pytest.raises(HubRefused, match="not signed by the fleet's key"):
                await renewal(depot, asking, bytes(forged))
        assert await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT)) is None


async def renewal(depot: Depot, asking: ExchangeClient, forgotten: bytes) -> None:
    """Ask for a new identity in place of one with this certificate."""
    keys = await asyncio.to_thread(new_keys, os.urandom)
    request = {
        "public_key": keys.signing.public_key.hex(),
        "csr": await asyncio.to_thread(keys.certificate_request, "Bus 1"),
        "forgotten": forgotten.hex(),
    }
    await asking.ask(address_of(depot), RENEW, request)
