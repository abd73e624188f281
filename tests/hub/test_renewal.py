"""A new identity for a restored terminal, over real TLS: same terminal, other author, no new allowance."""

import asyncio
import os
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Update, func, select

from crdt.block import parse
from crdt.certificate import AuthorCertificate
from crdt.documents import SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import Kind
from crdt.frames import BlockFrame, CertificateFrame
from crdt.frontier import GENESIS, Head
from crdt.protocol import RENEW
from crdt.pull import Pull
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.signing import SigningKey
from crdt.store import copies, quarantine
from crdt.terminal_status import Status
from hub import enrolling, tables
from hub.app import Hub
from hub.errors import RequestRefused
from tests.crdt.store.quarantined import in_quarantine
from tests.hub.conftest import Depot, running
from tests.hub.terminal import CARD, Refused, Terminal, first, post_json
from tests.hub.tls import client_context, new_tls_key


async def ask(terminal: Terminal, **changes: Any) -> dict[str, str]:
    """One renewal by the terminal's present certificate, with a fresh key unless the test brings one."""
    csr = (await asyncio.to_thread(new_tls_key)).csr_pem
    body = {"public_key": SigningKey(os.urandom(32)).public_key.hex(), "csr": csr, "reissued": []}
    async with terminal.connect() as http:
        return await post_json(http, terminal.url + RENEW, body | changes)


async def renewed(terminal: Terminal) -> Terminal:
    """The terminal under a new identity."""
    key, tls_key = SigningKey(os.urandom(32)), await asyncio.to_thread(new_tls_key)
    given = await ask(terminal, public_key=key.public_key.hex(), csr=tls_key.csr_pem)
    tls = await asyncio.to_thread(
        client_context, given["tls_root"], tls_key.key_pem, given["tls_certificate"]
    )
    certificate = AuthorCertificate.decode(bytes.fromhex(given["certificate"]))
    return replace(
        terminal,
        key=key,
        tls=tls,
        certificate=certificate.verify(terminal.fleet_public_key),
        chain=[],
        head=Head(0, GENESIS),
    )


async def test_a_new_identity_is_the_same_terminal_and_goes_on_at_once(depot: Depot) -> None:
    """Invariant 5: no number of the old identity is used again, and nothing is paired by hand."""
    old = await depot.pair("Bus 7")
    await old.push(old.taps(-250))
    new = await renewed(old)
    assert (new.certificate.terminal, new.certificate.name) == (old.certificate.terminal, "Bus 7")
    assert new.certificate.replica != old.certificate.replica
    events = await new.push(new.taps(-180))
    assert first(events, "Ack").frontier == {new.key.replica: new.head}
    (row,) = await depot.ask("GET", "/terminals")
    assert (row["name"], row["replica"], row["revoked"]) == ("Bus 7", new.key.replica.hex(), False)


async def test_a_renewed_terminal_hears_of_every_identity_it_may_have_written_as(depot: Depot) -> None:
    """Invariant 5: another life of its storage may have written again what it has open."""
    old = await depot.pair("Bus 7")
    await depot.pair("Bus 8")
    first_life = await renewed(old)
    given = await ask(old)
    assert given["former"].split() == sorted(one.key.replica.hex() for one in (old, first_life))


async def test_the_old_certificate_ends_with_the_first_use_of_the_new_one(depot: Depot) -> None:
    """Not before: an answer that is lost must not leave the terminal without any."""
    old = await depot.pair()
    new = await renewed(old)
    assert first(await old.exchange(Pull()), "PageFrame")
    await new.exchange(Pull())
    with pytest.raises(Refused, match="has a newer certificate") as caught:
        await old.exchange(Pull())
    assert (caught.value.status, caught.value.code) == (403, "revoked")


@pytest.mark.parametrize("again", ["renewed", "paired"])
async def test_the_old_certificate_ends_though_the_hubs_clock_went_back(depot: Depot, again: str) -> None:
    """Invariant 9: it had stood a year ahead when the old one was issued."""
    old, table = await depot.pair(), tables.client_certificate
    ahead = table.update().values(issued_ms=table.c.issued_ms + 365 * 86_400_000)
    await asyncio.wrap_future(depot.hub.database.write(lambda connection: connection.execute(ahead) and None))
    new = await (renewed(old) if again == "renewed" else depot.pair())
    await new.exchange(Pull())
    with pytest.raises(Refused, match="has a newer certificate"):
        await old.exchange(Pull())


async def test_what_comes_late_of_the_old_identity_waits_for_an_operator(depot: Depot) -> None:
    """Invariant 5: the new identity may have written it again. The terminal itself is not revoked."""
    old = await depot.pair()
    await old.push(old.taps(-250))
    held, late = old.head, old.taps(-180)
    new = await renewed(old)
    events = await new.exchange(CertificateFrame(old.certificate.encode()), BlockFrame(late))
    assert first(events, "Ack").frontier == {old.key.replica: held}
    (row,) = (await depot.ask("GET", "/ledger/forks"))["blocks"]
    assert (row["revoked"], row["replaced"], row["first_seq"], row["resolution"]) == (False, True, 2, "")
    assert "replaced after a restore" in first(events, "Refusal").text
    await new.push(new.taps(-70))
    with pytest.raises(RequestRefused, match="Nothing of"):
        await depot.ask("POST", "/terminals/accept", {"terminal": "Bus 1 front"})


async def test_a_cut_off_of_a_replaced_identity_stays_when_the_terminal_is_revoked(depot: Depot) -> None:
    """Accepting what a revoked terminal wrote accepts nothing that may have been written again."""
    old = await depot.pair()
    late = old.taps(-180)
    new = await renewed(old)
    beyond = new.taps(-70)
    await depot.ask("POST", "/terminals/revoke", {"terminal": old.certificate.name})
    other = await depot.pair("Bus 2")
    papers = [CertificateFrame(one.certificate.encode()) for one in (old, new)]
    await other.exchange(*papers, BlockFrame(late), BlockFrame(beyond))
    await depot.ask("POST", "/terminals/accept", {"terminal": old.certificate.name})
    (row,) = (await depot.ask("GET", "/ledger/forks"))["blocks"]
    assert (row["replica"], row["revoked"], row["replaced"]) == (old.key.replica.hex(), False, True)


async def test_however_many_identities_are_asked_for_there_is_one_allowance(depot: Depot) -> None:
    """Invariant 10: from one old certificate, without using the new ones or bringing the old chain first."""
    old = await depot.pair()
    allowance_minor = old.certificate.limits.allowance_minor
    news = [await renewed(old) for _ in range(3)]
    each = [2000] * (allowance_minor // 2000)
    authors = [old, *news]
    openings = [one.taps(*each[:500], kind=Kind.OPENING) for one in authors]
    papers = [CertificateFrame(one.certificate.encode()) for one in authors]
    events = await news[-1].exchange(*papers, *map(BlockFrame, openings))
    counted = {replica for replica, head in first(events, "Ack").frontier.items() if head.seq}
    assert counted == {news[-1].key.replica}
    last = await renewed(news[-1])
    assert last.certificate.limits.allowance_minor == max(0, allowance_minor - 2000 * len(each[:500]))


async def test_renewals_at_once_get_one_allowance_between_them(depot: Depot) -> None:
    """Invariant 10: however they meet, each ends the identity of the one before it."""
    old, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    news = await asyncio.gather(*(renewed(old) for _ in range(4)))
    given = [one.taps(2000, kind=Kind.OPENING) for one in news]
    papers = [CertificateFrame(one.certificate.encode()) for one in news]
    events = await other.exchange(*papers, *map(BlockFrame, given))
    heads = first(events, "Ack").frontier
    counted = [one for one in news if one.key.replica in heads and heads[one.key.replica].seq]
    assert len(counted) == 1
    (row,) = [row for row in await depot.ask("GET", "/terminals") if row["name"] == "Bus 1"]
    assert row["replica"] == counted[0].key.replica.hex()


async def test_no_identity_escapes_a_revocation_that_meets_its_renewal(depot: Depot) -> None:
    """Invariant 10: whichever comes first, nothing of the stolen terminal counts afterwards."""
    carrier = await depot.pair("Carrier")

    async def steal(name: str) -> Terminal | None:
        stolen = await depot.pair(name)
        revoking = asyncio.create_task(depot.ask("POST", "/terminals/revoke", {"terminal": name}))
        try:
            return await renewed(stolen)
        except Refused as refused:
            assert refused.code == "revoked"
            return None
        finally:
            await revoking

    found = await asyncio.gather(*(steal(f"Bus {number}") for number in range(6)))
    for thief in [one for one in found if one is not None]:
        certificate = CertificateFrame(thief.certificate.encode())
        events = await carrier.exchange(certificate, BlockFrame(thief.taps(2000, kind=Kind.OPENING)))
        assert "was revoked" in first(events, "Refusal").text


async def test_what_a_hub_put_back_learns_was_revoked_takes_no_new_identity(depot: Depot) -> None:
    """Invariant 10: the list says so, though the registry does not."""
    stolen = await depot.pair("Bus 1")
    body = Revocations({stolen.key.replica: 0}).encode()
    key, fleet = depot.hub.authority.ledger_key, depot.hub.authority.fleet
    document = SignedDocument.seal(key, fleet, REVOKED_DOCUMENT, 1, body)
    await asyncio.wrap_future(depot.hub.ledger.put_document(document))
    with pytest.raises(Refused) as caught:
        await ask(stolen)
    assert (caught.value.status, caught.value.code) == (403, "revoked")


async def test_a_new_identity_is_no_new_allowance(depot: Depot) -> None:
    """Invariant 10: else a stolen terminal would mint its allowance again with each identity."""
    old = await depot.pair()
    await old.push(old.taps(1500, 500, kind=Kind.OPENING), old.taps(-250))
    new = await renewed(old)
    assert new.certificate.limits == replace(
        old.certificate.limits, allowance_minor=old.certificate.limits.allowance_minor - 2000
    )


async def test_a_forgotten_identity_brings_back_no_limits_of_an_earlier_pairing(founded: Hub) -> None:
    """Invariant 10: its certificate travels with blocks, so anybody has it; what it allows has ended."""
    async with running(founded) as depot:
        first = await depot.pair("Bus 7")
    strict = replace(founded, settings=replace(founded.settings, max_credit_minor=0, allowance_minor=0))
    async with running(strict) as depot:
        now = await depot.pair("Bus 7", claimed=first.certificate.terminal)
        given = await ask(now, forgotten=first.certificate.encode().hex())
    new = AuthorCertificate.decode(bytes.fromhex(given["certificate"]))
    assert new.limits == now.certificate.limits != first.certificate.limits


async def test_what_a_forgotten_identity_gave_is_off_the_allowance_for_good(depot: Depot) -> None:
    """Invariant 10: also with the renewals after, and though it belongs to no pairing that the hub knows."""
    old, carrier = await depot.pair("Bus 7"), await depot.pair("Bus 8")
    key, limits = SigningKey(os.urandom(32)), old.certificate.limits
    certificate = depot.hub.authority.terminal_certificate(
        old.certificate.terminal, "Bus 7", key.public_key, limits
    )
    forgotten = replace(old, key=key, certificate=certificate, chain=[], head=Head(0, GENESIS))
    block = forgotten.taps(1500, 500, kind=Kind.OPENING)
    await carrier.exchange(CertificateFrame(certificate.encode()), BlockFrame(block))
    given = await ask(old, forgotten=certificate.encode().hex())
    left = AuthorCertificate.decode(bytes.fromhex(given["certificate"])).limits.allowance_minor
    assert left == limits.allowance_minor - 2000
    again = (await renewed(await renewed(old))).certificate.limits.allowance_minor
    assert again == left


async def test_who_had_a_copy_ends_nobody_who_has_brought_all_by_naming_him(depot: Depot) -> None:
    """Invariant 8: his certificate travels with blocks, so whoever has stolen a copy's key has it."""
    honest, thief = await depot.pair("Bus 7"), await depot.pair("Bus 8")
    one, other = thief.certificate.terminal, honest.certificate.terminal
    await asyncio.wrap_future(
        depot.hub.ledger.amend(lambda amendment: copies.note(amendment.connection, one, other))
    )
    await honest.push(honest.taps(-250))
    await honest.exchange(Status({"open": 0}), frontier={honest.key.replica: honest.head})
    await ask(thief, forgotten=honest.certificate.encode().hex())
    document = await asyncio.wrap_future(depot.hub.ledger.document(REVOKED_DOCUMENT))
    assert document is not None
    assert Revocations.decode(document.body).cut_offs.keys() == {thief.key.replica}


async def test_the_same_request_again_gets_the_same_author(depot: Depot) -> None:
    """The answer was lost on the way: the terminal asks again with the keys that it has kept."""
    old = await depot.pair()
    key = SigningKey(os.urandom(32)).public_key.hex()
    one, two = await ask(old, public_key=key), await ask(old, public_key=key)
    assert one["certificate"] == two["certificate"]
    assert one["tls_certificate"] != two["tls_certificate"]


async def forked(depot: Depot, name: str) -> tuple[Terminal, bytes]:
    """A terminal whose image was put back after its first block, and what it sealed then."""
    terminal = await depot.pair(name)
    await terminal.push(terminal.taps(-250))
    terminal.head = Head(0, GENESIS)
    return terminal, terminal.taps(-180, -180)


@pytest.mark.parametrize("early", [True, False])
async def test_what_was_written_again_is_told_from_what_is_not(depot: Depot, early: bool) -> None:
    """Invariant 5, before the evidence is here or after; of another terminal's blocks nobody is heard."""
    one, branch = await forked(depot, "Bus 1")
    other, foreign = await forked(depot, "Bus 2")
    await other.push(foreign)
    if not early:
        await one.push(branch)
    await ask(one, reissued=[parse(raw).hash.hex() for raw in (branch, foreign)])
    await one.push(branch)
    entries = await asyncio.wrap_future(in_quarantine(depot.hub.ledger))
    assert {entry.replica: entry.resolution for entry in entries} == {
        one.key.replica: "said",
        other.key.replica: "",
    }


async def test_what_a_terminal_named_and_never_brought_can_be_booked(depot: Depot) -> None:
    """Invariants 3 and 4: the bus burns down between its renewal and what it has written again."""
    one, branch = await forked(depot, "Bus 1")
    block = parse(branch).hash.hex()
    await ask(one, reissued=[block])
    await one.push(branch)
    assert await depot.ask("POST", "/ledger/adopt", {"block": block}) == {"entries": 2}
    assert await asyncio.wrap_future(depot.hub.ledger.balance(CARD)) == -250 - 2 * 180


async def test_the_word_alone_takes_nothing_back_that_was_booked(depot: Depot) -> None:
    """Invariant 3: only what is in the ledger twice is taken out of it."""
    one, branch = await forked(depot, "Bus 1")
    await one.push(branch)
    block = parse(branch).hash.hex()
    await depot.ask("POST", "/ledger/adopt", {"block": block})
    await ask(one, reissued=[block])
    other = await depot.pair("Bus 2")
    await other.push(other.taps(-70))
    await depot.projected()
    assert await asyncio.wrap_future(depot.hub.ledger.balance(CARD)) == -250 - 2 * 180 - 70
    with pytest.raises(RequestRefused, match="in the ledger already"):
        await depot.ask("POST", "/ledger/adopt", {"block": block})


@pytest.mark.parametrize("founded", ["enrolment.renewals_per_hour = 2\n"], indirect=True)
async def test_a_terminal_that_asks_too_often_is_put_off(depot: Depot) -> None:
    old, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await ask(old)
    await ask(old)
    with pytest.raises(Refused, match="Its taps are safe") as caught:
        await ask(old)
    assert (caught.value.status, caught.value.code) == (429, "too_often")
    await ask(other)


@pytest.mark.parametrize("founded", ["enrolment.renewals_per_day = 2\n"], indirect=True)
async def test_only_so_many_identities_are_taken_in_a_day_and_an_operator_is_told(founded: Hub) -> None:
    """Each stays on the list of those that ended, which is bounded. Starting the hub again is no way out."""
    async with running(founded) as depot:
        old, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
        key = SigningKey(os.urandom(32)).public_key.hex()
        await ask(old)
        await ask(old, public_key=key)
        await ask(old, public_key=key)  # the answer was lost: it is the same identity
    async with running(founded) as depot:
        old.url = other.url = depot.url
        with pytest.raises(Refused, match="2 new identities within a day.* taps are safe") as caught:
            await ask(old)
        assert (caught.value.status, caught.value.code) == (429, "too_often")
        (flag,) = await asyncio.wrap_future(depot.hub.ledger.flags())
        assert flag.replica == old.key.replica
        assert flag.sentence in str(caught.value)
        await ask(other)
        await ask(await depot.pair("Bus 1"))


@pytest.mark.parametrize("founded", ["enrolment.renewals_per_day = 1\n"], indirect=True)
@pytest.mark.parametrize("hours", [-24, 24], ids=["a day ago", "by a clock that was ahead"])
async def test_what_was_not_within_the_last_day_does_not_count(depot: Depot, hours: int) -> None:
    """Invariant 9: an honest terminal is not put off because the hub's clock had stood wrong."""
    old, table = await depot.pair(), tables.client_certificate
    await ask(old)
    moved = table.update().values(issued_ms=table.c.issued_ms + hours * 3_600_000)
    await asyncio.wrap_future(depot.hub.database.write(lambda connection: connection.execute(moved) and None))
    await ask(old)


@pytest.mark.parametrize("founded", ["enrolment.renewals_per_day = 2\n"], indirect=True)
async def test_a_hub_that_begins_at_one_date_again_and_again_puts_no_honest_terminal_off(
    depot: Depot,
) -> None:
    """Invariant 9: without a battery each start of the hub lies within the same day by its clock."""
    old, table = await depot.pair(), tables.client_certificate
    for hours_before_the_next in (1, 2):  # the second came earlier in its start than the first had in its own
        await ask(old)
        newest = select(func.max(table.c.number)).scalar_subquery()
        moved = table.update().values(issued_ms=table.c.issued_ms - hours_before_the_next * 3_600_000)
        await _execute(depot, moved.where(table.c.number == newest))
    await ask(old)
    await _execute(depot, table.update().values(issued_ms=table.c.number))  # a clock that went on, long ago
    await ask(old)


@pytest.mark.parametrize(
    ("newest_first_min", "kept"),
    [
        ([90, 80, 70], 3),
        ([90, 90, 70], 3),
        ([20, 80, 70], 1),
        ([111, 90, 80], 0),
        ([], 0),
        ([101, 90, 94, 80], 4),
        ([90, 99, 108], 2),
    ],
    ids=[
        "a clock that went on",
        "at once",
        "started at an earlier date",
        "set back just now",
        "none",
        "by processes whose clocks differ",
        "set back little by little",
    ],
)
def test_what_came_before_the_clock_went_back_is_left_out(newest_first_min: list[int], kept: int) -> None:
    """Several hub processes on one database have a clock each, and no two agree to the millisecond."""
    newest_first = [at_min * 60_000 for at_min in newest_first_min]
    assert enrolling.in_step(newest_first, 100 * 60_000) == newest_first[:kept]


@pytest.mark.parametrize("founded", ["enrolment.renewals_per_day = 2\n"], indirect=True)
async def test_processes_of_a_hub_whose_clocks_differ_give_no_more_identities(depot: Depot) -> None:
    """Invariant 8: the most in a day is the most, whichever process each request reached."""
    old, table = await depot.pair(), tables.client_certificate
    for seconds_ahead in (5, 0):
        await ask(old)
        newest = select(func.max(table.c.number)).scalar_subquery()
        moved = table.update().values(issued_ms=table.c.issued_ms + seconds_ahead * 1_000)
        await _execute(depot, moved.where(table.c.number == newest))
    with pytest.raises(Refused, match="2 new identities within a day"):
        await ask(old)


async def _execute(depot: Depot, statement: Update) -> None:
    await asyncio.wrap_future(depot.hub.database.write(lambda found: found.execute(statement) and None))


async def test_all_identities_of_a_terminal_have_one_share_of_the_quarantine(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 8: a terminal that was never restored renews, forks, and renews again."""
    one, branch = await forked(depot, "Bus 1")
    await one.push(branch)
    (entry,) = await asyncio.wrap_future(in_quarantine(depot.hub.ledger))
    monkeypatch.setattr(quarantine, "MAX_QUARANTINED_BYTES", entry.size_bytes * 3 // 2)
    again = await renewed(one)
    await again.push(again.taps(-250))
    again.head = Head(0, GENESIS)
    await again.push(again.taps(-180, -180))
    (kept,) = await asyncio.wrap_future(in_quarantine(depot.hub.ledger))
    assert kept.hash == entry.hash
    flags = await asyncio.wrap_future(depot.hub.ledger.flags())
    assert [one.replica for one in flags if one.code is RefusalCode.TOO_LARGE] == [again.key.replica]
    other, branch = await forked(depot, "Bus 2")
    await other.push(branch)
    entries = await asyncio.wrap_future(in_quarantine(depot.hub.ledger))
    assert {each.replica for each in entries} == {one.key.replica, other.key.replica}


async def test_a_key_that_somebody_has_is_refused(depot: Depot) -> None:
    one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    for taken in (one.key, other.key, depot.hub.authority.ledger_key):
        with pytest.raises(Refused) as caught:
            await ask(one, public_key=taken.public_key.hex())
        assert (caught.value.status, caught.value.code) == (400, "key_in_use")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"public_key": "zz"}, "public_key"),
        ({"public_key": None}, "public_key"),
        ({"csr": "none"}, "csr"),
        ({"csr": 5}, "csr"),
        ({"reissued": "ff"}, "reissued"),
        ({"reissued": ["ff"]}, "reissued"),
        ({"reissued": [5]}, "reissued"),
        ({"reissued": ["00" * 32] * 901}, "reissued"),
    ],
)
async def test_a_request_that_is_not_right_changes_nothing(
    depot: Depot, changes: dict[str, Any], code: str
) -> None:
    """Invariant 8."""
    terminal = await depot.pair()
    with pytest.raises(Refused) as caught:
        await ask(terminal, **changes)
    assert (caught.value.status, caught.value.code) == (400, code)
    (row,) = await depot.ask("GET", "/terminals")
    assert row["replica"] == terminal.key.replica.hex()


async def test_only_a_terminal_in_good_standing_gets_one(depot: Depot) -> None:
    """Invariant 10."""
    revoked, stranger = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 1"})
    stranger.tls = await depot.browser_tls()
    for terminal, code in ((revoked, "revoked"), (stranger, "unknown_author")):
        with pytest.raises(Refused) as caught:
            await ask(terminal)
        assert (caught.value.status, caught.value.code) == (403, code)
