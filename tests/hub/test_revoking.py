"""Revocation with a cut-off: what counts, what waits for review, and what an operator can still decide."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import Connection

from crdt.block import parse
from crdt.certificate import AuthorCertificate
from crdt.documents import SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import Kind, ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, DocumentFrame, Heads
from crdt.frontier import MAX_FRONTIER, Head
from crdt.protocol import REVOKED_LIST
from crdt.pull import Pull
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.session import Event
from crdt.store import cutting
from crdt.store.completeness import Complete
from crdt.store.database import Database
from crdt.store.days import QUARTER_MS, Day
from crdt.store.jobs import Rank
from crdt.terminal_status import Status
from hub.cli import main
from hub.errors import RequestRefused
from tests.crdt.store.quarantined import at_rest, in_quarantine
from tests.hub.conftest import Depot
from tests.hub.terminal import CARD, NOON_MS, Refused, Terminal, first, stranger
from tests.hub.test_renewal import renewed

PATIENCE_S = 60


async def revoke(depot: Depot, name: str, cut_off: int | None = None) -> dict[str, int]:
    answer = await depot.ask("POST", "/terminals/revoke", {"terminal": name, "cut_off": cut_off})
    return dict(answer["cut_offs"])


async def carry(carrier: Terminal, author: Terminal) -> list[Event]:
    """Another terminal brings the author's whole chain."""
    frames = [BlockFrame(raw) for raw in author.chain]
    return await carrier.exchange(CertificateFrame(author.certificate.encode()), *frames)


async def balance(depot: Depot) -> int:
    books = await asyncio.wrap_future(depot.hub.ledger.books())
    assert books.balance  # invariant 3, whatever is revoked or accepted
    return await asyncio.wrap_future(depot.hub.ledger.balance(CARD))


async def test_what_the_hub_holds_counts_and_what_comes_later_waits(depot: Depot) -> None:
    """Whoever carries it: a thief's taps are not taken from honest neighbours either."""
    stolen, honest = await depot.pair("Bus 9"), await depot.pair("Bus 10")
    await stolen.push(stolen.taps(1000, kind=Kind.OPENING), stolen.taps(-250))
    stolen.taps(-250)
    assert await revoke(depot, "Bus 9") == {stolen.key.replica.hex(): 2}
    events = await carry(honest, stolen)
    assert first(events, "Refusal").code is RefusalCode.REVOKED
    assert first(events, "Ack").frontier[stolen.key.replica].seq == 2
    assert await balance(depot) == 750
    (entry,) = await asyncio.wrap_future(in_quarantine(depot.hub.ledger))
    assert (entry.reason, entry.first_seq) == (RefusalCode.REVOKED, 3)


async def test_honest_taps_that_came_late_count_once_they_are_accepted(depot: Depot) -> None:
    stolen, honest = await depot.pair("Bus 9"), await depot.pair("Bus 10")
    await stolen.push(stolen.taps(1000, kind=Kind.OPENING))
    stolen.taps(-250), stolen.taps(-180)
    await revoke(depot, "Bus 9")
    await carry(honest, stolen)
    accepted = await depot.ask("POST", "/terminals/accept", {"terminal": "Bus 9", "cut_off": 2})
    assert (accepted["cut_offs"], await balance(depot)) == ({stolen.key.replica.hex(): 2}, 750)
    await depot.ask("POST", "/terminals/accept", {"terminal": "Bus 9"})
    assert await balance(depot) == 570
    assert await asyncio.wrap_future(in_quarantine(depot.hub.ledger)) == []
    with pytest.raises(RequestRefused, match="Nothing of Bus 9 waits in quarantine"):
        await depot.ask("POST", "/terminals/accept", {"terminal": "Bus 9"})
    (row,) = [row for row in await depot.ask("GET", "/terminals") if row["name"] == "Bus 9"]
    assert row["revoked"]


async def test_a_flag_stays_true_when_what_it_tells_of_is_accepted_and_goes_by_command(
    depot: Depot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def ledger(*arguments: str) -> tuple[int, str]:
        command = ["ledger", *arguments, "--settings", str(tmp_path / "hub.toml")]
        status = await asyncio.to_thread(main, command)
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    stolen, honest = await depot.pair("Bus 9"), await depot.pair("Bus 10")
    await stolen.push(stolen.taps(1000, kind=Kind.OPENING))
    stolen.taps(-250)
    await revoke(depot, "Bus 9")
    await carry(honest, stolen)
    await depot.ask("POST", "/terminals/accept", {"terminal": "Bus 9"})
    _, told = await ledger("forks")
    assert "what it wrote after 1 counts only if an operator says so" in told
    flag = told.split()[-1]
    assert flag == f"{stolen.key.replica.hex()}/revoked"
    assert (await ledger("dismiss", flag))[0] == 0
    assert "no author is flagged" in (await ledger("forks"))[1]
    for wrong, why in ((flag, "no such flag"), (flag.upper() + "x", "no such flag"), ("", "Say which flag")):
        status, told = await ledger("dismiss", *[wrong] * bool(wrong))
        assert (status, why in told) == (1, True)


async def test_a_cut_off_in_the_past_takes_what_came_after_out_of_the_balances(depot: Depot) -> None:
    """The theft was noticed late: nobody's card pays for the thief's rides."""
    stolen = await depot.pair("Bus 9")
    await stolen.push(stolen.taps(1000, kind=Kind.OPENING), stolen.taps(-250), stolen.taps(-250))
    assert await revoke(depot, "Bus 9", cut_off=2) == {stolen.key.replica.hex(): 2}
    assert await balance(depot) == 750


async def test_a_cut_off_within_a_block_leaves_no_place_for_a_thiefs_entries(depot: Depot) -> None:
    """Invariant 5: what was here first, or waits, is not replaced by free rides that nobody was told of."""
    stolen, honest = await depot.pair("Bus 9"), await depot.pair("Bus 10")
    await stolen.push(stolen.taps(1000, kind=Kind.OPENING))
    start = stolen.head
    await stolen.push(stolen.taps(-250, -250, -250))
    key = stolen.key.replica.hex()
    assert await revoke(depot, "Bus 9", cut_off=3) == {key: 1}
    whole = list(stolen.chain)
    stolen.head = start
    stolen.chain[1:] = [stolen.taps(0, 0)]
    await carry(honest, stolen)
    assert await balance(depot) == 1000
    with pytest.raises(RequestRefused, match="Nothing of Bus 9 waits in quarantine up to 3"):
        await depot.ask("POST", "/terminals/accept", {"terminal": "Bus 9", "cut_off": 3})
    accepted = await depot.ask("POST", "/terminals/accept", {"terminal": "Bus 9"})
    assert (accepted["cut_offs"], await balance(depot)) == ({key: 4}, 250)
    stolen.chain[:] = whole
    await carry(honest, stolen)
    assert await balance(depot) == 250


async def test_what_a_revoked_terminal_made_up_is_waited_for_no_longer(depot: Depot) -> None:
    """Invariant 8: nobody gives it up author by author, and no day waits for it, then or before."""
    good, evil = await depot.pair("Bus 9"), await depot.pair("Bus 10")
    await good.push(good.taps(-250))
    await good.exchange(Status({"held": 0}), frontier={good.key.replica: good.head})
    named = {good.key.replica: Head(2**40, bytes(range(32)))}
    await evil.exchange(Status({"held": 0}), Heads(named), frontier=named)
    (row,) = await depot.ask("GET", "/ledger/waiting")
    assert (row["terminal"], row["proven"]) == ("Bus 9", False)
    await revoke(depot, "Bus 10")
    assert await depot.ask("GET", "/ledger/waiting") == []
    start_ms = NOON_MS - NOON_MS % QUARTER_MS
    day = Day(start_ms, start_ms + QUARTER_MS, 1)
    found = depot.hub.ledger.day_of([good.key.replica], day)
    assert (await asyncio.wrap_future(found)).completeness == Complete(1)


async def test_every_identity_of_the_terminal_is_revoked(depot: Depot) -> None:
    old = await depot.pair("Bus 9")
    await old.push(old.taps(-250))
    new = await renewed(old)
    cut_offs = await revoke(depot, "Bus 9")
    assert cut_offs == {old.key.replica.hex(): 1, new.key.replica.hex(): 0}


async def test_what_a_replaced_identity_had_unsent_when_its_terminal_was_revoked_is_adopted_not_accepted(
    depot: Depot,
) -> None:
    """Invariant 5: some of it was written again before, so moving the cut-off would count that twice."""
    old, honest = await depot.pair("Bus 9"), await depot.pair("Bus 1")
    await old.push(old.taps(1000, kind=Kind.OPENING))
    unsent = old.taps(-250, -180)
    new = await renewed(old)
    await new.push(new.taps(-250))
    await revoke(depot, "Bus 9")
    listed = await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT))
    assert listed is not None
    assert Revocations.decode(listed.body).revoked == {old.key.replica, new.key.replica}
    await carry(honest, old)
    with pytest.raises(RequestRefused, match="Nothing of Bus 9 waits in quarantine"):
        await depot.ask("POST", "/terminals/accept", {"terminal": "Bus 9"})
    assert await balance(depot) == 750
    await depot.ask("POST", "/ledger/adopt", {"block": parse(unsent).hash.hex()})
    assert await balance(depot) == 570


async def test_terminals_are_told_and_the_list_grows(depot: Depot) -> None:
    """The list is signed, and newer each time: an older one never replaces it."""
    honest = await depot.pair("Bus 1")
    versions: list[int] = []
    for name in ("Bus 8", "Bus 9"):
        stolen = await depot.pair(name)
        await revoke(depot, name)
        events = await honest.exchange(Pull(documents={"fleet": 1, REVOKED_DOCUMENT: len(versions)}))
        document = SignedDocument.decode(first(events, "DocumentFrame").raw).verify(honest.hub_certificate)
        assert document.name == REVOKED_DOCUMENT
        assert stolen.key.replica in Revocations.decode(document.body).cut_offs
        versions.append(document.version)
    assert versions == [1, 2]
    assert len(Revocations.decode(document.body).cut_offs) == 2


@pytest.mark.parametrize("cut_off", [-1, 2**48, "2", True])
async def test_a_cut_off_that_is_none_stops_nothing(depot: Depot, cut_off: object) -> None:
    await depot.pair("Bus 9")
    with pytest.raises(RequestRefused, match="cut-off"):
        await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 9", "cut_off": cut_off})
    (row,) = await depot.ask("GET", "/terminals")
    assert not row["revoked"]


async def test_pairing_again_brings_the_terminal_back_under_another_identity(depot: Depot) -> None:
    stolen = await depot.pair("Bus 9")
    await revoke(depot, "Bus 9")
    found = await depot.pair("Bus 9")
    events = await found.push(found.taps(-250))
    assert first(events, "Ack").frontier == {found.key.replica: found.head}
    assert found.key.replica != stolen.key.replica


@pytest.mark.in_file("the writer is held")
@pytest.mark.may_block("the writer is held until both have asked")
async def test_a_terminal_that_is_revoked_again_while_its_chain_is_cut_loses_no_less(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut-off far below its head takes a while; what is held until then is not what counts."""
    monkeypatch.setattr(cutting, "STEP_FACTS", 1)
    stolen = await depot.pair("Bus 9")
    await stolen.push(stolen.taps(1000, kind=Kind.OPENING), *(stolen.taps(-250) for _ in range(4)))
    async with writer_held(depot) as database:
        once = asyncio.create_task(revoke(depot, "Bus 9", cut_off=2))
        await queued(database, 1)
        again = asyncio.create_task(revoke(depot, "Bus 9"))
        await queued(database, 2)
    assert await once == await again == {stolen.key.replica.hex(): 2}
    await asyncio.to_thread(at_rest, depot.hub.ledger)
    assert await balance(depot) == 750


@pytest.mark.in_file("the writer is held")
@pytest.mark.may_block("the writer is held until both have asked")
async def test_a_terminal_paired_anew_while_it_is_revoked_is_the_one_or_the_other(depot: Depot) -> None:
    """Invariant 10: its new identity is not on the list of those that ended while the registry lets it in."""
    await depot.pair("Bus 9")
    invite = await depot.invite()
    async with writer_held(depot) as database:
        revoking = asyncio.create_task(revoke(depot, "Bus 9"))
        await queued(database, 1)
        pairing = asyncio.create_task(Terminal.pair(depot.url, invite, "Bus 9"))
        await queued(database, 2)
    cut_offs, found = await revoking, await pairing
    (row,) = await depot.ask("GET", "/terminals")
    assert not row["revoked"]
    assert found.key.replica.hex() not in cut_offs
    events = await found.push(found.taps(-250))
    assert first(events, "Ack").frontier == {found.key.replica: found.head}


@contextlib.asynccontextmanager
async def writer_held(depot: Depot) -> AsyncIterator[Database]:
    """Nothing is written to the hub's database meanwhile."""
    held, go = threading.Event(), threading.Event()

    def hold(_connection: Connection) -> None:
        held.set()
        assert go.wait(PATIENCE_S)

    database = depot.hub.database
    assert isinstance(database, Database)
    holding = database.write(hold)
    assert held.wait(PATIENCE_S)
    try:
        yield database
    finally:
        go.set()
        await asyncio.wrap_future(holding)


async def queued(database: Database, count: int) -> None:
    """Wait until so many writes wait."""
    waiting = database._writes._ranks[Rank.NORMAL]
    while len(waiting) < count:  # noqa: ASYNC110  (a queue has no event for it)
        await asyncio.sleep(0.001)


async def test_a_full_list_of_revocations_does_not_let_a_thief_go_on(depot: Depot) -> None:
    """It comes no more to the hub, and the operator is told what the list would have been for."""
    stolen = await depot.pair("Bus 9")
    ended = {ReplicaId(number.to_bytes(16, "big")): 0 for number in range(1, MAX_FRONTIER + 1)}
    ledger, authority = depot.hub.ledger, depot.hub.authority
    body = Revocations(ended).encode()
    listed = SignedDocument.seal(authority.ledger_key, authority.fleet, REVOKED_DOCUMENT, 1, body)
    await asyncio.wrap_future(ledger.put_document(listed))
    with pytest.raises(RequestRefused, match="Bus 9 comes no more to this hub, but the list.*is full"):
        await revoke(depot, "Bus 9")
    (row,) = await depot.ask("GET", "/terminals")
    assert row["revoked"]
    with pytest.raises(Refused, match="was revoked"):
        await stolen.push(stolen.taps(-250))


async def test_a_revoked_terminal_is_given_the_list_that_says_so(depot: Depot) -> None:
    """By which it takes itself out of service; strangers are given nothing."""
    stolen = await depot.pair("Bus 9")
    await revoke(depot, "Bus 9")
    with pytest.raises(Refused, match="was revoked: it takes no fares until it is paired anew"):
        await stolen.exchange(Pull())
    async with stolen.connect() as http, http.get(depot.url + REVOKED_LIST) as response:
        assert response.status == 200
        session = stolen.session()
        events = session.receive_data(await response.read()) + session.receive_eof()
    document = SignedDocument.decode(first(events, "DocumentFrame").raw)
    signer = AuthorCertificate.decode(first(events, "CertificateFrame").raw)
    document.verify(signer.verify(stolen.fleet_public_key))
    assert stolen.key.replica in Revocations.decode(document.body).revoked
    connector = aiohttp.TCPConnector(ssl=stranger())
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get(depot.url + REVOKED_LIST) as response,
    ):
        assert response.status == 403


async def test_the_list_is_read_once_for_all_who_ask_until_it_changes(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have sixteen thousand entries, and all who are on it ask; none is given an old one."""
    stolen = [await depot.pair(f"Bus {number}") for number in range(3)]
    asked: list[str] = []
    read = depot.hub.ledger.document

    def counting(name: str) -> Future[SignedDocument | None]:
        asked.append(name)
        return read(name)

    monkeypatch.setattr(depot.hub.ledger, "document", counting)
    assert await given(stolen[0]) == set()
    for number, bus in enumerate(stolen):
        await revoke(depot, f"Bus {number}")
        asked.clear()
        for _ in range(3):
            assert await given(bus) == {one.key.replica for one in stolen[: number + 1]}
        assert asked == [REVOKED_DOCUMENT]


async def given(terminal: Terminal) -> set[ReplicaId]:
    """Who is revoked by the list that the terminal is given; nobody without one."""
    async with terminal.connect() as http, http.get(terminal.url + REVOKED_LIST) as response:
        session = terminal.session()
        events = session.receive_data(await response.read()) + session.receive_eof()
    found = [one.raw for one in events if isinstance(one, DocumentFrame)]
    return {one for raw in found for one in Revocations.decode(SignedDocument.decode(raw).body).revoked}


# ---- A fork whose terminal is gone ----


async def test_what_a_dead_terminals_branch_says_is_booked_once(depot: Depot) -> None:
    """Invariants 3 and 5: only what the counting chain has not, and never twice."""
    dead, other = await depot.pair("Bus 9"), await depot.pair("Bus 1")
    await dead.push(dead.taps(1000, kind=Kind.OPENING), dead.taps(-250))
    dead.head = parse(dead.chain[0]).head
    raw = dead.taps(-250, -180)
    await other.exchange(CertificateFrame(dead.certificate.encode()), BlockFrame(raw))
    assert await balance(depot) == 750
    hash_ = parse(raw).hash.hex()
    adopted = await depot.ask("POST", "/ledger/adopt", {"block": hash_})
    assert adopted == {"entries": 1}  # the first ride is in both branches, alike
    assert await balance(depot) == 570
    with pytest.raises(RequestRefused, match="in the ledger already"):
        await depot.ask("POST", "/ledger/adopt", {"block": hash_})
    assert await balance(depot) == 570
