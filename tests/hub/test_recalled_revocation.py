"""A terminal that was revoked before the hub was put back is stopped again by the list that comes back."""

import asyncio
from pathlib import Path

import pytest

from crdt.documents import SignedDocument
from crdt.facts import Kind
from crdt.frames import BlockFrame, CertificateFrame, DocumentFrame
from crdt.protocol import REVOKED_LIST
from crdt.pull import Pull
from crdt.revocations import Revocations
from crdt.store import expectations
from hub.events import Topic
from hub.settings import HubSettings
from tests.hub.conftest import Depot
from tests.hub.pages.world import operator, text_of
from tests.hub.terminal import CARD, Refused, Terminal, first
from tests.hub.test_courier import bring, courier_file
from tests.hub.test_recalling import lost_list, revoke
from tests.hub.test_renewal import ask, renewed
from tests.hub.test_restoring import at, back_up, put_back, settings, up

__all__ = ["settings"]

pytestmark = pytest.mark.may_block("a start and an end of the hub wait for the disk")

Told = tuple[CertificateFrame, DocumentFrame]


async def lost_revocation(settings: HubSettings, backup: Path) -> tuple[Terminal, Terminal, Told]:
    """An honest terminal, a stolen one whose revocation is not in the backup put back, and the lost list."""
    async with up(settings) as depot:
        bus, stolen = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await stolen.push(stolen.taps(-250))
        await back_up(depot, backup)
        await revoke(depot, "Bus 2")
        told = await lost_list(depot, bus)
    put_back(settings, backup)
    return bus, stolen, told


async def balance(depot: Depot) -> int:
    return await asyncio.wrap_future(depot.hub.ledger.balance(CARD))


async def tell(depot: Depot, bus: Terminal, told: Told, way: str) -> None:
    """The lost list comes back, from a terminal or by a courier file alone."""
    if way == "session":
        await at(depot, bus).exchange(*told)
        return
    file = courier_file(bus, listed=SignedDocument.decode(told[1].raw))
    assert (await bring(depot, file))["refused"] == 0


async def given_list(terminal: Terminal) -> Revocations:
    """The list that a terminal is given whom the hub refuses."""
    async with terminal.connect() as http, http.get(terminal.url + REVOKED_LIST) as response:
        session = terminal.session()
        events = session.receive_data(await response.read()) + session.receive_eof()
    return Revocations.decode(SignedDocument.decode(first(events, "DocumentFrame").raw).body)


@pytest.mark.parametrize("way", ["session", "courier"])
async def test_the_terminal_is_stopped_and_all_that_it_was_given_since(
    settings: HubSettings, tmp_path: Path, way: str
) -> None:
    """Invariant 10: a new identity is no way around a revocation, nor is what it brought before the list."""
    bus, stolen, told = await lost_revocation(settings, tmp_path / "backup")
    async with up(settings) as depot:
        once = await renewed(at(depot, stolen))
        await once.push(once.taps(1000, kind=Kind.OPENING))
        new = await renewed(once)
        await new.push(new.taps(-70))
        assert await balance(depot) == 680
        await tell(depot, bus, told, way)
        for identity in (stolen, once, new):
            with pytest.raises(Refused, match="was revoked"):
                await identity.exchange(Pull())
            with pytest.raises(Refused, match="was revoked"):
                await ask(identity)
        assert await balance(depot) == -250
        late = CertificateFrame(new.certificate.encode()), BlockFrame(new.taps(500, kind=Kind.OPENING))
        assert "was revoked" in first(await at(depot, bus).exchange(*late), "Refusal").text
        listed = await given_list(new)
        assert listed.revoked == {one.key.replica for one in (stolen, once, new)}
        assert listed.cut_offs == {stolen.key.replica: 1, once.key.replica: 0, new.key.replica: 0}
        former = [stolen.key.replica, once.key.replica]
        expected = depot.hub.database.read(lambda sql: expectations.read(sql, former))
        assert {one.ended for one in (await asyncio.wrap_future(expected)).values()} == {True}, "no day waits"
        (row,) = [one for one in await depot.ask("GET", "/terminals") if one["name"] == "Bus 2"]
        assert row["revoked"]


@pytest.mark.parametrize("way", ["session", "courier"])
async def test_who_was_paired_by_an_operator_meanwhile_goes_on(
    settings: HubSettings, tmp_path: Path, way: str
) -> None:
    """The name goes on with another computer; what it was before has ended, and what that was given since."""
    bus, stolen, told = await lost_revocation(settings, tmp_path / "backup")
    async with up(settings) as depot:
        second = await renewed(at(depot, stolen))
        fresh = await depot.pair("Bus 2")
        await tell(depot, bus, told, way)
        for identity in (stolen, second):
            with pytest.raises(Refused, match="was revoked"):
                await identity.exchange(Pull())
        assert first(await fresh.push(fresh.taps(-70)), "Ack").frontier == {fresh.key.replica: fresh.head}
        later = await renewed(fresh)
        assert first(await later.push(later.taps(-30)), "Ack").frontier == {later.key.replica: later.head}
        assert not any(row["revoked"] for row in await depot.ask("GET", "/terminals"))
        assert await balance(depot) == -350


async def test_a_terminal_that_was_only_replaced_goes_on(settings: HubSettings, tmp_path: Path) -> None:
    """It is on the list too: its storage was put back before the hub was, and the hub forgot its renewal."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        bus, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await back_up(depot, backup)
        await renewed(bus)
        told = await lost_list(depot, other)
    put_back(settings, backup)
    async with up(settings) as depot:
        await at(depot, other).exchange(*told)
        new = await renewed(at(depot, bus))
        await new.push(new.taps(-70))
        assert await balance(depot) == -70
        assert not any(row["revoked"] for row in await depot.ask("GET", "/terminals"))


async def test_an_operator_is_told_what_stopped_it_until_it_is_paired_or_revoked_anew(
    settings: HubSettings, tmp_path: Path
) -> None:
    """On the pages, which change at once, and by command."""
    bus, stolen, told = await lost_revocation(settings, tmp_path / "backup")
    said = "was revoked before this hub was put back"
    async with up(settings) as depot, operator(depot) as person:
        with depot.bus.subscribe() as events:
            await at(depot, bus).exchange(*told)
            topics = set()
            while Topic.TERMINALS not in topics or Topic.LEDGER not in topics:
                event = await events.next(5)
                assert event is not None
                topics.add(event.topic)
        page = f"/terminals/{stolen.certificate.terminal.hex()}"
        for place in (page, "/terminals"):
            assert said in text_of((await person.get(place)).text)
        for stopped_otherwise in (depot.pair("Bus 2"), revoke(depot, "Bus 2")):
            await stopped_otherwise
            assert said not in text_of((await person.get(page)).text)


async def test_a_list_that_is_known_stops_nobody_again(settings: HubSettings, tmp_path: Path) -> None:
    """Each terminal of the fleet comes with the same one; by then the terminal may be paired anew."""
    bus, _, told = await lost_revocation(settings, tmp_path / "backup")
    async with up(settings) as depot:
        await at(depot, bus).exchange(*told)
        fresh = await depot.pair("Bus 2")
        await fresh.push(fresh.taps(-70))
        await bus.exchange(*told)
        assert first(await fresh.push(fresh.taps(-30)), "Ack").frontier == {fresh.key.replica: fresh.head}
