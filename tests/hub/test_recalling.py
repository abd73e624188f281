"""A hub that was put back goes on above the documents that terminals have, and takes in what it had ended."""

import asyncio
from pathlib import Path

import pytest

from crdt.block import contents, parse, seal
from crdt.documents import FLEET_DOCUMENT, MAX_VERSION, SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import Kind, ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, DocumentFrame, Heads, Message, Refusal
from crdt.frontier import MAX_FRONTIER
from crdt.pull import Pull
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.session import Event
from crdt.signing import SigningKey
from hub.recalling import MAX_BELIEVED
from hub.settings import HubSettings
from tests.hub.conftest import Depot
from tests.hub.terminal import CARD, Terminal, first
from tests.hub.test_courier import bring, courier_file
from tests.hub.test_renewal import renewed
from tests.hub.test_restoring import at, back_up, put_back, settings, top_up, up
from tests.hub.test_whole_state_put_back import copy
from tests.hub.test_whole_state_put_back import put_back as put_all_back

__all__ = ["settings"]
HIGH = 2**40  # above whatever a hub that was put back chooses by itself


def documents(events: list[Event]) -> dict[str, SignedDocument]:
    """What came of them, by name."""
    found = [SignedDocument.decode(one.raw) for one in events if isinstance(one, DocumentFrame)]
    return {document.name: document for document in found}


async def revoke(depot: Depot, name: str) -> None:
    await depot.ask("POST", "/terminals/revoke", {"terminal": name})


def again(new: Terminal, raw: bytes) -> bytes:
    """The facts of an earlier identity's block, written again under this one."""
    block = parse(raw)
    facts = contents(block).deltas(new.key.replica, new.head.seq + 1)
    written = seal(new.key, new.fleet, facts, new.head.hash)
    new.chain.append(written.raw)
    new.head = written.head
    return written.raw


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_a_terminal_is_given_what_is_decided_now_whatever_version_it_has(
    settings: HubSettings, tmp_path: Path
) -> None:
    """The same backup was put back before, and the terminal has the documents that the hub signed then."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        bus, _ = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await back_up(depot, backup)
        await top_up(depot, "request-1")
    put_back(settings, backup)
    async with up(settings) as depot:
        await revoke(depot, "Bus 2")
        await depot.ask("POST", "/fleet", {"flat_fare": "9.99"})
        held = {FLEET_DOCUMENT: HIGH, REVOKED_DOCUMENT: HIGH}
        given = documents(await at(depot, bus).exchange(Pull(documents=held)))
        newest = {name: document.version for name, document in given.items()}
        assert newest == dict.fromkeys(held, HIGH + 1)
        assert Revocations.decode(given[REVOKED_DOCUMENT].body).cut_offs
        assert documents(await bus.exchange(Pull(documents=newest))) == {}


async def test_a_hub_that_has_lost_nothing_believes_no_version(depot: Depot) -> None:
    """Invariant 8: else any terminal could use up the numbers."""
    bus = await depot.pair()
    version = (await depot.ask("GET", "/fleet"))["version"]
    assert documents(await bus.exchange(Pull(documents={FLEET_DOCUMENT: HIGH}))) == {}
    assert (await depot.ask("GET", "/fleet"))["version"] == version


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_what_was_written_again_counts_once_after_the_hub_forgot_that_it_was(
    settings: HubSettings, tmp_path: Path
) -> None:
    """Invariant 5: a stick has what the ended identity wrote last, and the terminal wrote it again."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        bus, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await bus.push(bus.taps(1000, kind=Kind.OPENING))
        await back_up(depot, backup)
        stick_has = bus.taps(-250)
        stick = courier_file(other, bus)
        new = await renewed(bus)
        await new.push(again(new, stick_has))
        (page,) = await other.pull()
        listed = documents(await other.exchange(Pull(documents={REVOKED_DOCUMENT: 0})))[REVOKED_DOCUMENT]
    put_back(settings, backup)
    async with up(settings) as depot:
        lost: list[Message] = [
            CertificateFrame(other.hub_certificate.encode()),
            DocumentFrame(listed.encode()),
        ]
        await at(depot, other).exchange(Heads(page.heads), *lost)
        papers = [CertificateFrame(one.certificate.encode()) for one in (bus, new)]
        await other.exchange(*papers, BlockFrame(bus.chain[0]), BlockFrame(new.chain[0]))
        assert (await bring(depot, stick))["refused"] == 1
        assert await asyncio.wrap_future(depot.hub.ledger.balance(CARD)) == 750
        given = documents(await other.exchange(Pull(documents={REVOKED_DOCUMENT: listed.version})))
        joined = given[REVOKED_DOCUMENT]
        assert joined.signer == depot.hub.ledger.replica
        assert Revocations.decode(joined.body) == Revocations.decode(listed.body)
        await other.exchange(*lost)
        newest = Pull(documents={REVOKED_DOCUMENT: joined.version})
        assert REVOKED_DOCUMENT not in documents(await other.exchange(newest)), "again it changes nothing"


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_a_stick_with_both_chains_of_a_replaced_terminal_brings_the_list_with_them(
    settings: HubSettings, tmp_path: Path
) -> None:
    """Invariant 5: no terminal has spoken with the hub since it was put back."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        bus, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await bus.push(bus.taps(1000, kind=Kind.OPENING))
        await back_up(depot, backup)
        lost = bus.taps(-250)
        new = await renewed(bus)
        await new.push(again(new, lost))
        listed = documents(await other.exchange(Pull(documents={REVOKED_DOCUMENT: 0})))[REVOKED_DOCUMENT]
    put_back(settings, backup)
    async with up(settings) as depot:
        stick = courier_file(other, bus, new, listed=listed)
        for _ in range(2):
            done = await bring(depot, stick)
            assert (done["refused"], done["trouble"]) == (1, ""), "what the ended identity wrote last"
            assert await asyncio.wrap_future(depot.hub.ledger.balance(CARD)) == 750


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_a_revocation_does_not_move_where_a_replaced_identity_ended(
    settings: HubSettings, tmp_path: Path
) -> None:
    """Invariant 4: a hub that was put back holds less of it, and what terminals have of it still counts."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        bus, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await back_up(depot, backup)
        await bus.push(bus.taps(1000, kind=Kind.OPENING))
        await renewed(bus)
        (page,) = await other.pull()
        listed = documents(await other.exchange(Pull(documents={REVOKED_DOCUMENT: 0})))[REVOKED_DOCUMENT]
    put_back(settings, backup)
    async with up(settings) as depot:
        hub = CertificateFrame(other.hub_certificate.encode())
        await at(depot, other).exchange(Heads(page.heads), hub, DocumentFrame(listed.encode()))
        await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 1"})
        await other.exchange(CertificateFrame(bus.certificate.encode()), BlockFrame(bus.chain[0]))
        assert await asyncio.wrap_future(depot.hub.ledger.balance(CARD)) == 1000


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_a_revocation_comes_back_although_nothing_else_was_lost(
    settings: HubSettings, tmp_path: Path
) -> None:
    """A stolen terminal stays revoked: no mark of a chain tells that, for no chain had moved."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        bus, stolen = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await stolen.push(stolen.taps(-250))
        await back_up(depot, backup)
        former = depot.hub.ledger.replica
        await revoke(depot, "Bus 2")
        listed = documents(await bus.exchange(Pull(documents={REVOKED_DOCUMENT: 0})))[REVOKED_DOCUMENT]
    put_back(settings, backup)
    async with up(settings) as depot:
        assert depot.hub.ledger.replica != former
        lost = CertificateFrame(bus.hub_certificate.encode()), DocumentFrame(listed.encode())
        await at(depot, bus).exchange(*lost)
        found = await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT))
        assert found is not None
        assert Revocations.decode(found.body) == Revocations.decode(listed.body)


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_a_list_that_was_lost_before_the_hub_was_put_back_twice_is_joined_too(
    settings: HubSettings, tmp_path: Path
) -> None:
    """Its number is lower than that of the list in the second backup, which knows nothing of it."""
    first_backup, second_backup = tmp_path / "backup", tmp_path / "second"
    async with up(settings) as depot:
        bus, stolen = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await depot.pair("Bus 3")
        await back_up(depot, first_backup)
        await revoke(depot, "Bus 2")
        listed = documents(await bus.exchange(Pull(documents={REVOKED_DOCUMENT: 0})))[REVOKED_DOCUMENT]
    put_back(settings, first_backup)
    async with up(settings) as depot:
        await revoke(depot, "Bus 3")
        await back_up(depot, second_backup)
        await top_up(depot, "request-1")
    put_back(settings, second_backup)
    async with up(settings) as depot:
        held = await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT))
        assert held is not None
        assert held.version > listed.version
        lost = CertificateFrame(bus.hub_certificate.encode()), DocumentFrame(listed.encode())
        await at(depot, bus).exchange(*lost)
        joined = await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT))
        assert joined is not None
        ended = Revocations.decode(joined.body).cut_offs
        assert ended == {**Revocations.decode(held.body).cut_offs, **Revocations.decode(listed.body).cut_offs}
        assert stolen.key.replica in ended


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_nobody_but_a_hub_ends_an_identity(settings: HubSettings, tmp_path: Path) -> None:
    """Invariants 8 and 10: a list of a terminal's, of a stranger's, and one that the backup has already."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        bus, victim = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await depot.pair("Bus 3")
        await revoke(depot, "Bus 3")
        await back_up(depot, backup)
        hub_key = depot.hub.authority.ledger_key
        await top_up(depot, "request-1")
    put_back(settings, backup)
    body = Revocations({victim.key.replica: 0}).encode()

    def listed(key: SigningKey, version: int) -> DocumentFrame:
        return DocumentFrame(SignedDocument.seal(key, bus.fleet, REVOKED_DOCUMENT, version, body).encode())

    async with up(settings) as depot:
        certificate = CertificateFrame(bus.certificate.encode())
        for key, code in (
            (bus.key, RefusalCode.NOT_PERMITTED),
            (SigningKey(b"s" * 32), RefusalCode.UNKNOWN_AUTHOR),
        ):
            events = await at(depot, bus).exchange(certificate, listed(key, HIGH))
            assert first(events, "Refusal").code is code
        await bus.exchange(listed(hub_key, 1))  # what it said before the backup may have been taken back
        events = await at(depot, victim).push(victim.taps(-250))
        assert first(events, "Ack").frontier == {victim.key.replica: victim.head}


async def lost_list(depot: Depot, terminal: Terminal) -> tuple[CertificateFrame, DocumentFrame]:
    """The hub's list as this terminal has it now, to be handed over."""
    given = documents(await terminal.exchange(Pull(documents={REVOKED_DOCUMENT: 0})))[REVOKED_DOCUMENT]
    signer = depot.hub.ledger.authors()[given.signer]
    return CertificateFrame(signer.encode()), DocumentFrame(given.encode())


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_a_list_that_was_taken_is_answered_by_the_hubs_own_above_it(
    settings: HubSettings, tmp_path: Path
) -> None:
    """The acknowledgement: it says all that was told, and by its number it is held instead of that. Where the
    list was taken before, the hub's is the answer as well."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        bus, _ = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await back_up(depot, backup)
        await revoke(depot, "Bus 2")
        told = await lost_list(depot, bus)
    put_back(settings, backup)
    async with up(settings) as depot:
        lost = SignedDocument.decode(told[1].raw)
        for _ in range(2):
            events = await at(depot, bus).exchange(*told)
            answered = documents(events)[REVOKED_DOCUMENT]
            assert answered.version > lost.version
            assert answered.signer == depot.hub.ledger.replica
            assert not Revocations.decode(answered.body).lacking(Revocations.decode(lost.body))
            assert not any(isinstance(one, Refusal) for one in events)


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_what_an_operator_accepts_after_the_list_came_back_is_not_undone_by_the_next_terminal(
    settings: HubSettings, tmp_path: Path
) -> None:
    """A list is joined once: every other terminal of the fleet comes with the same one."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        bus, other, late = [await depot.pair(f"Bus {number}") for number in (1, 2, 3)]
        await other.push(other.taps(-250))
        await back_up(depot, backup)
        await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 2", "cut_off": 0})
        told = await lost_list(depot, bus)
    put_back(settings, backup)
    async with up(settings) as depot:
        await at(depot, bus).exchange(*told)
        assert await asyncio.wrap_future(depot.hub.ledger.balance(CARD)) == 0
        accepted = await depot.ask("POST", "/terminals/accept", {"terminal": "Bus 2"})
        assert accepted["cut_offs"] == {other.key.replica.hex(): 1}
        answered = documents(await at(depot, late).exchange(*told))[REVOKED_DOCUMENT]
        assert Revocations.decode(answered.body).cut_offs == {other.key.replica: 1}
        assert await asyncio.wrap_future(depot.hub.ledger.balance(CARD)) == -250


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
@pytest.mark.parametrize("earlier", [True, False], ids=["one of several", "the only one"])
async def test_a_hub_whose_marks_went_back_too_hears_from_a_terminal_what_it_had_signed(
    settings: HubSettings, tmp_path: Path, earlier: bool
) -> None:
    """A stolen terminal stays revoked, where nothing was booked in the time that is lost. By a number alone
    a list is not believed: the terminal is shown the older one, and hands over its own."""
    image = tmp_path / "image"
    async with up(settings) as depot:
        bus, stolen = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await depot.pair("Bus 3")
        if earlier:
            await revoke(depot, "Bus 3")
    copy(settings.state_directory, image)
    async with up(settings) as depot:
        await revoke(depot, "Bus 2")
        told = await lost_list(depot, at(depot, bus))
    put_all_back(image, settings.state_directory)
    async with up(settings) as depot:
        lost = SignedDocument.decode(told[1].raw)
        held = Pull(documents={REVOKED_DOCUMENT: lost.version})
        shown = documents(await at(depot, bus).exchange(held))[REVOKED_DOCUMENT]
        assert shown.version <= lost.version
        assert Revocations.decode(shown.body).lacking(Revocations.decode(lost.body)) == {stolen.key.replica}
        answered = documents(await bus.exchange(*told))[REVOKED_DOCUMENT]
        assert answered.version > lost.version
        assert stolen.key.replica in Revocations.decode(answered.body).cut_offs


@pytest.mark.may_block("a start and an end of the hub wait for the disk")
async def test_a_list_of_a_life_of_the_hub_that_it_has_never_heard_of_is_joined(
    settings: HubSettings, tmp_path: Path
) -> None:
    """One backup is put back twice: of the key that the hub had in between it knows nothing."""
    backup = tmp_path / "backup"
    async with up(settings) as depot:
        bus, stolen = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        await back_up(depot, backup)
        await top_up(depot, "request-1")
    put_back(settings, backup)
    async with up(settings) as depot:
        between = depot.hub.ledger.replica
        await revoke(depot, "Bus 2")
        told = await lost_list(depot, at(depot, bus))
        await top_up(depot, "request-2")
    put_back(settings, backup)
    async with up(settings) as depot:
        assert between not in depot.hub.ledger.authors()
        answered = documents(await at(depot, bus).exchange(*told))[REVOKED_DOCUMENT]
        assert answered.version > SignedDocument.decode(told[1].raw).version
        assert stolen.key.replica in Revocations.decode(answered.body).cut_offs


async def test_a_list_for_which_there_is_no_room_is_refused_and_changes_nothing(depot: Depot) -> None:
    """Invariant 8: not a part of it. The terminal is told that this is for good, with no list beside it."""
    bus = await depot.pair()
    ledger, authority = depot.hub.ledger, depot.hub.authority
    full = Revocations({ReplicaId(number.to_bytes(16, "big")): 0 for number in range(1, MAX_FRONTIER + 1)})
    key = authority.ledger_key
    listed = SignedDocument.seal(key, bus.fleet, REVOKED_DOCUMENT, 5, full.encode())
    await asyncio.wrap_future(ledger.put_document(listed))
    body = Revocations({ReplicaId(b"one more identity"[:16]): 0}).encode()
    lost = SignedDocument.seal(key, bus.fleet, REVOKED_DOCUMENT, 6, body)
    events = await bus.exchange(DocumentFrame(lost.encode()))
    assert first(events, "Refusal").code is RefusalCode.TOO_LARGE
    assert documents(events) == {}
    assert await asyncio.wrap_future(ledger.document(REVOKED_DOCUMENT)) == listed


async def test_no_list_uses_up_the_numbers(depot: Depot) -> None:
    """Invariant 8: the hub can go on above one that it signed after a terminal's lie, and not above whatever
    a key that was stolen with an old backup has signed."""
    bus, key = await depot.pair(), depot.hub.authority.ledger_key
    for version in (MAX_BELIEVED + 1, MAX_VERSION):
        lost = SignedDocument.seal(key, bus.fleet, REVOKED_DOCUMENT, version, NONE_REVOKED.encode())
        events = await bus.exchange(DocumentFrame(lost.encode()))
        if version == MAX_VERSION:
            assert first(events, "Refusal").code is RefusalCode.TOO_LARGE
        else:
            assert documents(events)[REVOKED_DOCUMENT].version == version + 1
