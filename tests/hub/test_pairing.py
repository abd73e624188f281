"""Pairing over real TLS with crdt's own terminal side: one code, one terminal, few tries."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from crdt.certificate import Role
from crdt.errors import RefusalCode
from crdt.facts import Kind
from crdt.protocol import PAIR_FINISH, PAIR_START
from crdt.pull import Pull
from crdt.signing import SigningKey
from hub import tables
from hub.cli import main
from hub.invites import Invites
from hub.pairing import MAX_OPEN
from tests.hub.conftest import Depot
from tests.hub.pages.world import operator, text_of
from tests.hub.terminal import CARD, Refused, Terminal, attempt, first, post_json, stranger
from tests.hub.tls import new_tls_key

WRONG = "9" * 7


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=stranger())) as session:
        yield session


async def wanted(name: str = "Bus 1 front", **changes: str) -> dict[str, str]:
    key, tls_key = SigningKey(os.urandom(32)), await asyncio.to_thread(new_tls_key)
    request = {"public_key": key.public_key.hex(), "csr": tls_key.csr_pem, "name": name, "terminal": ""}
    return request | changes


def mistyped(code: str) -> str:
    nameplate, secret = code.split("-")
    return f"{nameplate}-{WRONG if secret != WRONG else '8' * 7}"


async def names(depot: Depot) -> list[str]:
    return [row["name"] for row in await depot.ask("GET", "/terminals")]


async def test_a_code_ends_in_certificates_and_mutual_tls(depot: Depot) -> None:
    terminal = await depot.pair("Bus 12, front door")
    certificate = terminal.certificate
    assert (certificate.name, certificate.role) == ("Bus 12, front door", Role.TERMINAL)
    assert certificate.public_key == terminal.key.public_key
    assert terminal.hub_certificate.role is Role.HUB
    assert terminal.hub_certificate.replica == depot.hub.ledger.replica
    assert first(await terminal.exchange(Pull()), "PageFrame")


@pytest.mark.parametrize(
    "founded",
    ["enrolment.max_debit_minor = 700\nenrolment.max_credit_minor = 300\nenrolment.allowance = 5000\n"],
    indirect=True,
)
async def test_the_certificate_has_the_limits_of_the_settings(depot: Depot) -> None:
    """Invariant 10: what a terminal may write is fixed at enrolment."""
    certificate = (await depot.pair()).certificate
    assert certificate.permits(Kind.FARE, -700)
    assert certificate.permits(Kind.OPENING, 300)
    assert not certificate.permits(Kind.FARE, -701)
    assert not certificate.permits(Kind.OPENING, 301)
    assert not any(certificate.permits(kind, 1) for kind in (Kind.TOPUP, Kind.REFUND, Kind.ADJUSTMENT))
    assert certificate.limits.allowance_minor == 5000


async def test_a_code_pairs_once(depot: Depot, http: aiohttp.ClientSession) -> None:
    code = await depot.invite()
    await (await attempt(depot.url, code, http)).run(await wanted("Bus 1"))
    with pytest.raises(Refused) as caught:
        await (await attempt(depot.url, code, http)).run(await wanted("Bus 2"))
    assert (caught.value.status, caught.value.code) == (404, "no_code")
    assert await names(depot) == ["Bus 1"]


async def test_a_code_is_burned_after_three_wrong_tries(depot: Depot, http: aiohttp.ClientSession) -> None:
    code = await depot.invite()
    for left in ("2 more tries", "1 more tries", "burned"):
        with pytest.raises(Refused, match=left) as caught:
            await (await attempt(depot.url, mistyped(code), http)).run(await wanted())
        assert (caught.value.status, caught.value.code) == (403, "wrong_code")
    with pytest.raises(Refused) as caught:
        await (await attempt(depot.url, code, http)).run(await wanted())
    assert caught.value.code == "no_code"
    assert await names(depot) == []


async def test_tries_started_before_the_code_burned_do_not_count_more_often(
    depot: Depot, http: aiohttp.ClientSession
) -> None:
    """Starting many pairings first and guessing afterwards gives three guesses and no more."""
    code = await depot.invite()
    tries = [await attempt(depot.url, mistyped(code), http) for _ in range(3)]
    tries.append(await attempt(depot.url, code, http))
    messages = [await one.start() for one in tries]
    for one, message in zip(tries, messages, strict=True):
        with pytest.raises(Refused) as caught:
            await one.finish(one.crypto.seal_request(message, await wanted()))
    assert caught.value.code == "code_gone"
    assert await names(depot) == []


async def test_one_started_pairing_gives_one_guess(depot: Depot, http: aiohttp.ClientSession) -> None:
    one = await attempt(depot.url, mistyped(await depot.invite()), http)
    message = await one.start()
    sealed = one.crypto.seal_request(message, await wanted())
    for request, code in ((sealed, "wrong_code"), (sealed, "no_code"), (os.urandom(60), "no_code")):
        with pytest.raises(Refused) as caught:
            await one.finish(request)
        assert caught.value.code == code


async def test_a_man_in_the_middle_with_another_tls_key_fails(
    depot: Depot, http: aiohttp.ClientSession
) -> None:
    one = await attempt(depot.url, await depot.invite(), http)
    one.spki = bytes(32)
    with pytest.raises(Refused) as caught:
        await one.run(await wanted())
    assert caught.value.code == "wrong_code"


async def test_an_invite_expires(depot: Depot) -> None:
    invites = Invites(depot.hub.database, expiry_s=600, tries=3)
    invite = await invites.create(lambda nameplate: f"{nameplate}-AAAAAAA", now_ms=1_000)
    assert invite.expires_at_ms == 601_000
    assert await invites.code("1", now_ms=600_999) == "1-AAAAAAA"
    assert await invites.code("1", now_ms=601_000) is None
    again = await invites.create(lambda nameplate: f"{nameplate}-BBBBBBB", now_ms=601_000)
    assert again.code == "1-BBBBBBB"  # the nameplate is free again
    assert await invites.open(now_ms=601_000) == [again]


async def test_a_terminal_that_lost_the_response_gets_it_again_and_nobody_else_does(
    depot: Depot, http: aiohttp.ClientSession
) -> None:
    one = await attempt(depot.url, await depot.invite(), http)
    message = await one.start()
    sealed = one.crypto.seal_request(message, await wanted())
    given = await one.finish(sealed)
    assert await one.finish(sealed) == given
    with pytest.raises(Refused) as caught:
        await one.finish(sealed + b"\0")
    assert caught.value.code == "no_code"
    assert len(await names(depot)) == 1


async def test_the_same_name_is_the_same_terminal_with_a_new_replica(depot: Depot) -> None:
    old = await depot.pair("Bus 1")
    await old.push(old.taps(-250))
    new = await depot.pair("Bus 1")
    assert new.certificate.terminal == old.certificate.terminal
    assert new.key.replica != old.key.replica
    # The old certificate is good until the new one is used: pairing may have broken off at the last moment.
    await old.push(old.taps(-250))
    await new.exchange()
    with pytest.raises(Refused, match="has a newer certificate") as caught:
        await old.exchange()
    assert caught.value.code == "revoked"
    await new.push(new.taps(-100))
    (row,) = await depot.ask("GET", "/terminals")
    assert (row["terminal"], row["head_seq"]) == (new.certificate.terminal.hex(), 1)


async def test_another_computer_with_an_earlier_certificate_is_told(
    depot: Depot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two buses paired under one name: the first is refused from then on, and its operator has to know. What
    a terminal says under its old certificate while it changes to the new one is nothing to tell."""
    first = await depot.pair("Bus 1")
    await (await depot.pair("Bus 1")).exchange()
    with pytest.raises(Refused, match="has a newer certificate"):
        await first.exchange()
    (row,) = await depot.ask("GET", "/terminals")
    assert row["earlier_ms"] is None
    paired_long_ago = tables.terminal.update().values(paired_ms=0)
    await asyncio.wrap_future(depot.hub.database.write(lambda sql: sql.execute(paired_long_ago) and None))
    (row,) = await depot.ask("GET", "/terminals")
    assert row["earlier_ms"] > 0
    async with operator(depot) as person:
        for page in ("/terminals", f"/terminals/{row['terminal']}"):
            told = text_of((await person.get(page)).text)
            assert "another computer calls under this name with an earlier certificate, last" in told
    await asyncio.to_thread(main, ["--settings", str(tmp_path / "hub.toml"), "terminals"])
    said = capsys.readouterr().out
    assert "Bus 1: another computer calls under this name with an earlier certificate, last 20" in said
    assert "pair that one under a name of its own" in said


async def test_a_re_paired_terminal_hands_in_what_its_old_replica_held(depot: Depot) -> None:
    old = await depot.pair("Bus 1")
    block = old.taps(-250)
    new = await depot.pair("Bus 1")
    await new.exchange()
    assert first(await new.push(block), "Ack").frontier == {old.key.replica: old.head}


async def test_pairing_again_ends_a_revocation(depot: Depot) -> None:
    await depot.pair("Bus 1")
    await depot.ask("POST", "/terminals/revoke", {"terminal": "Bus 1"})
    again = await depot.pair("Bus 1")
    assert first(await again.exchange(Pull()), "PageFrame")
    (row,) = await depot.ask("GET", "/terminals")
    assert (row["revoked"], row["online"]) == (False, True)


async def test_a_terminal_keeps_its_id_when_it_comes_from_another_hub(depot: Depot) -> None:
    assert (await depot.pair("Bus 5", claimed=b"5" * 16)).certificate.terminal == b"5" * 16


async def test_two_bus_computers_made_from_one_image_are_two_terminals(depot: Depot) -> None:
    first_bus = await depot.pair("Bus 5", claimed=b"5" * 16)
    second_bus = await depot.pair("Bus 6", claimed=b"5" * 16)
    assert second_bus.certificate.terminal != first_bus.certificate.terminal
    assert first(await first_bus.exchange(), "Hello")
    assert first(await second_bus.exchange(), "Hello")


async def test_a_key_is_certified_once(depot: Depot, http: aiohttp.ClientSession) -> None:
    request = await wanted("Bus 1")
    await (await attempt(depot.url, await depot.invite(), http)).run(request)
    with pytest.raises(Refused, match="Pair with a new key") as caught:
        await (await attempt(depot.url, await depot.invite(), http)).run(request | {"name": "Bus 2"})
    assert caught.value.code == "key_in_use"
    assert await names(depot) == ["Bus 1"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"public_key": "00" * 31}, "public_key"),
        ({"public_key": "zz"}, "public_key"),
        ({"terminal": "00"}, "terminal"),
        ({"csr": "no request"}, "csr"),
    ],
)
async def test_an_unsound_request_is_refused_and_leaves_the_code_open(
    depot: Depot, http: aiohttp.ClientSession, changes: dict[str, str], code: str
) -> None:
    invite = await depot.invite()
    with pytest.raises(Refused) as caught:
        await (await attempt(depot.url, invite, http)).run(await wanted(**changes))
    assert (caught.value.status, caught.value.code) == (400, code)
    assert await names(depot) == []
    await (await attempt(depot.url, invite, http)).run(await wanted())


@pytest.mark.parametrize("founded", ["enrolment.max_debit_minor = 249\n"], indirect=True)
async def test_nobody_is_paired_for_less_than_the_fare(depot: Depot) -> None:
    """Each of its taps would be refused. Nothing is enrolled, and the code stays good."""
    code = await depot.invite()
    for _ in range(2):
        with pytest.raises(Refused, match=r"at most 2\.49, and the fleet's is 2\.50") as caught:
            await Terminal.pair(depot.url, code, "Bus 1")
        assert (caught.value.status, caught.value.code) == (409, "limit")
    assert await names(depot) == []


NONSENSE = [
    b"",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"nameplate": "1"}',
    b'{"nameplate": "\\ud800", "message": "AAAA"}',
    b'{"session": "\\ud800", "request": "AAAA"}',
    b'{"nameplate": ' + b"9" * 5000 + b', "message": "AAAA"}',
    b'{"nameplate": {}, "message": "AAAA"}',
    b'{"nameplate": "1", "message": "not base64!"}',
    b'{"nameplate": "1", "message": 7}',
    b'{"session": [], "request": "AAAA"}',
    b'{"session": "unknown", "request": "AAAA"}',
    b"[" * 50_000,
]


@pytest.mark.parametrize("path", [PAIR_START, PAIR_FINISH])
@pytest.mark.parametrize("body", NONSENSE)
async def test_nonsense_is_refused_by_name(
    depot: Depot, http: aiohttp.ClientSession, path: str, body: bytes
) -> None:
    await depot.invite()
    async with http.post(depot.url + path, data=body) as response:
        assert response.status in (400, 404)
        assert (await response.json())["error"] in {"malformed", "no_code"}


async def test_a_message_that_is_no_curve_point_is_refused(depot: Depot, http: aiohttp.ClientSession) -> None:
    await depot.invite()
    for message in (b"", b"B" + bytes(32), b"A" + b"\xff" * 32, os.urandom(1000)):
        body = {"nameplate": "1", "message": base64.b64encode(message).decode()}
        with pytest.raises(Refused) as caught:
            await post_json(http, depot.url + PAIR_START, body)
        assert (caught.value.status, caught.value.code) == (400, "malformed")


async def test_a_request_larger_than_a_pairing_is_refused(depot: Depot, http: aiohttp.ClientSession) -> None:
    with pytest.raises(Refused) as caught:
        await post_json(http, depot.url + PAIR_START, {"nameplate": "1", "message": "A" * 70_000})
    assert (caught.value.status, caught.value.code) == (413, "request_entity_too_large")


@pytest.mark.parametrize("founded", ["pairing.attempts_per_minute = 3\n"], indirect=True)
async def test_attempts_are_rate_limited(depot: Depot, http: aiohttp.ClientSession) -> None:
    codes = []
    for _ in range(4):
        with pytest.raises(Refused) as caught:
            await post_json(http, depot.url + PAIR_START, {"nameplate": "77", "message": "AAAA"})
        codes.append((caught.value.status, caught.value.code))
    assert codes == [(404, "no_code")] * 3 + [(429, "too_often")]


@pytest.mark.parametrize("founded", ["pairing.attempts_per_minute = 1000\n"], indirect=True)
async def test_open_pairings_are_bounded(depot: Depot, http: aiohttp.ClientSession) -> None:
    code = await depot.invite()
    eldest = await attempt(depot.url, code, http)
    message = await eldest.start()
    for _ in range(MAX_OPEN):
        await (await attempt(depot.url, code, http)).start()
    with pytest.raises(Refused) as caught:
        await eldest.finish(eldest.crypto.seal_request(message, await wanted()))
    assert caught.value.code == "no_code"


async def test_a_restored_terminal_that_pairs_anew_ends_what_it_was(
    depot: Depot, http: aiohttp.ClientSession
) -> None:
    """Invariant 5: its next identity may write again what somebody else brings of the former one later."""
    before = await depot.pair("Bus 1")
    await before.push(before.taps(-100))
    request = await wanted(
        "Bus 1", terminal=before.certificate.terminal.hex(), restored=before.key.replica.hex()
    )
    await (await attempt(depot.url, await depot.invite(), http)).run(request)
    late = before.taps(-200)
    report = await asyncio.wrap_future(depot.hub.ledger.merge([late]))
    assert [refused.error.code for refused in report.refused] == [RefusalCode.REVOKED]
    assert await asyncio.wrap_future(depot.hub.ledger.balance(CARD)) == -100


@pytest.mark.parametrize("claimed", ["own", "none"])
async def test_nobody_ends_another_terminals_identity_by_pairing(
    depot: Depot, http: aiohttp.ClientSession, claimed: str
) -> None:
    """Invariant 8: whoever has a code pairs one terminal, and stops no other."""
    victim, own = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    terminal = own.certificate.terminal.hex() if claimed == "own" else ""
    request = await wanted("Bus 2", terminal=terminal, restored=victim.key.replica.hex())
    request["certificate"] = victim.certificate.encode().hex()
    await (await attempt(depot.url, await depot.invite(), http)).run(request)
    await victim.push(victim.taps(-100))
    assert await asyncio.wrap_future(depot.hub.ledger.balance(CARD)) == -100


@pytest.mark.parametrize("whose", ["another's", "nobody's"])
async def test_nobody_ends_another_terminals_identity_by_calling_it_forgotten(
    depot: Depot, http: aiohttp.ClientSession, whose: str
) -> None:
    """Invariant 8: and the code stays good."""
    victim, own = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    forgotten = victim.certificate.encode().hex() if whose == "another's" else "3f"
    terminal, restored = own.certificate.terminal.hex(), own.key.replica.hex()
    code = await depot.invite()
    request = await wanted("Bus 2", terminal=terminal, restored=restored, forgotten=forgotten)
    with pytest.raises(Refused) as caught:
        await (await attempt(depot.url, code, http)).run(request)
    assert (caught.value.status, caught.value.code) == (400, "forgotten")
    await victim.push(victim.taps(-100))
    await own.push(own.taps(-100))
    await (await attempt(depot.url, code, http)).run(await wanted("Bus 2"))


@pytest.mark.parametrize("field", ["restored", "certificate"])
async def test_a_restored_identity_that_is_none_is_refused(
    depot: Depot, http: aiohttp.ClientSession, field: str
) -> None:
    with pytest.raises(Refused) as caught:
        await (await attempt(depot.url, await depot.invite(), http)).run(await wanted(**{field: "0g"}))
    assert (caught.value.status, caught.value.code) == (400, field)
