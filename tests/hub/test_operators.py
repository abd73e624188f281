"""Operators over real TLS: password, session, cross-site requests, headers."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import select
from yarl import URL

from crdt.store.database import Database
from hub import tables
from hub.errors import SetupError
from hub.operators import CSRF_FIELD, CSRF_HEADER, SESSION_COOKIE, check_new_password, set_password
from hub.sessions import MAX_SESSIONS, Sessions
from tests.hub.conftest import PASSWORD, Depot

HTML = {"Accept": "text/html"}


class Browser:
    """Keeps cookies, fills forms, follows no redirects."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = url

    async def get(self, path: str, **headers: str) -> tuple[aiohttp.ClientResponse, str]:
        async with self.http.get(self.url + path, headers=HTML | headers, allow_redirects=False) as response:
            return response, await response.text()

    async def post(self, path: str, fields: dict[str, str], **headers: str) -> aiohttp.ClientResponse:
        async with self.http.post(
            self.url + path, data=fields, headers=HTML | headers, allow_redirects=False
        ) as response:
            await response.read()
            return response

    async def token(self, path: str = "/login") -> str:
        _, page = await self.get(path)
        found = re.search(rf'name="{CSRF_FIELD}"\s+value="([0-9a-f]+)"', page)
        assert found, page
        return found[1]

    async def log_in(self, password: str = PASSWORD) -> aiohttp.ClientResponse:
        return await self.post("/login", {CSRF_FIELD: await self.token(), "password": password})

    @property
    def cookie(self) -> str:
        return next((morsel.value for morsel in self.http.cookie_jar if morsel.key == SESSION_COOKIE), "")


@asynccontextmanager
async def browsing(depot: Depot) -> AsyncIterator[Browser]:
    connector = aiohttp.TCPConnector(ssl=await depot.browser_tls())
    jar = aiohttp.CookieJar(unsafe=True)  # cookies for an IP address too, as browsers do
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar) as http:
        yield Browser(http, depot.url)


@pytest_asyncio.fixture
async def browser(depot: Depot) -> AsyncIterator[Browser]:
    async with browsing(depot) as browser:
        yield browser


async def test_who_is_not_signed_in_is_sent_to_the_login_page_and_back(browser: Browser) -> None:
    response, _ = await browser.get("/cards?after=04&limit=5")
    onward = URL(response.headers["Location"])
    assert (response.status, onward.path) == (303, "/login")
    assert dict(onward.query) == {"next": "/cards?after=04&limit=5"}
    response, _ = await browser.get("/no/such/page")
    assert response.status == 303


async def test_signing_in_opens_the_pages_and_signing_out_closes_them(browser: Browser) -> None:
    response = await browser.log_in()
    assert (response.status, response.headers["Location"]) == (303, "/")
    response, page = await browser.get("/")
    assert response.status == 200
    token = re.search(rf'name="{CSRF_FIELD}"\s+value="([0-9a-f]+)"', page)
    assert token
    stolen = browser.cookie
    assert (await browser.post("/logout", {CSRF_FIELD: token[1]})).status == 303
    assert browser.cookie == ""
    response, _ = await browser.get("/", Cookie=f"{SESSION_COOKIE}={stolen}")
    assert response.status == 303  # the session is over, not only forgotten by the browser


async def test_the_cookie_is_for_this_host_only_secure_and_out_of_reach_of_scripts(browser: Browser) -> None:
    response = await browser.log_in()
    (cookie,) = response.headers.getall("Set-Cookie")
    name, *attributes = cookie.split("; ")
    assert name.startswith("__Host-farebox=")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]


async def test_signing_in_makes_a_new_session(depot: Depot, browser: Browser) -> None:
    """A cookie that somebody planted before the login is worth nothing after it."""
    await browser.token()
    before = browser.cookie
    await browser.log_in()
    assert before != browser.cookie != ""
    async with browsing(depot) as thief:
        response, _ = await thief.get("/", Cookie=f"{SESSION_COOKIE}={before}")
        assert response.status == 303
        response, _ = await thief.get("/", Cookie=f"{SESSION_COOKIE}={browser.cookie}")
        assert response.status == 200


async def test_a_wrong_password_signs_nobody_in(browser: Browser) -> None:
    for password in ("wrong", "", PASSWORD + " ", "x" * 60_000):
        assert (await browser.log_in(password)).status == 403
    response, _ = await browser.get("/")
    assert response.status == 303


@pytest.mark.parametrize("founded", ["operators.login_attempts = 3\n"], indirect=True)
async def test_wrong_passwords_are_rate_limited_also_when_tried_at_once(browser: Browser) -> None:
    token = await browser.token()
    fields = {CSRF_FIELD: token, "password": "wrong"}
    answers = await asyncio.gather(*(browser.post("/login", fields) for _ in range(6)))
    assert sorted(answer.status for answer in answers) == [403] * 3 + [429] * 3
    right = await browser.log_in()
    assert right.status == 429
    assert int(right.headers["Retry-After"]) > 0


@pytest.mark.parametrize("path", ["/login", "/logout", "/invite", "/fleet", "/cards/04A1B2C3D4E5F6/topup"])
async def test_a_form_without_this_visitors_token_changes_nothing(depot: Depot, path: str) -> None:
    async with browsing(depot) as victim, browsing(depot) as attacker:
        await victim.log_in()
        await attacker.log_in()
        foreign = await attacker.token("/invite")
        fields = {"amount": "10", "request_id": "0123456789", "password": PASSWORD}
        for token in ({}, {CSRF_FIELD: ""}, {CSRF_FIELD: foreign}, {CSRF_FIELD: "ä"}):
            assert (await victim.post(path, fields | token)).status == 403
    assert await depot.ask("GET", "/cards") == []
    assert (await depot.ask("GET", "/fleet"))["version"] == 1


async def test_the_token_may_come_in_a_header(browser: Browser) -> None:
    await browser.log_in()
    token = await browser.token("/invite")
    response = await browser.post("/invite", {}, **{CSRF_HEADER: token})
    assert response.status == 303


async def test_only_plain_forms_are_read(browser: Browser) -> None:
    """A multipart body would be written to the disk, by whoever asks."""
    await browser.log_in()
    body = aiohttp.FormData({CSRF_FIELD: await browser.token("/invite")}, default_to_multipart=True)
    async with browser.http.post(browser.url + "/invite", data=body) as response:
        assert response.status == 403


async def test_a_program_without_a_session_gets_a_plain_no(browser: Browser) -> None:
    response, _ = await browser.get("/events?view=overview", Accept="text/event-stream")
    assert response.status == 401


@pytest.mark.parametrize("path", ["/", "/login", "/api/v1/identify", "/no/such/page", "/api/v1/nothing"])
async def test_every_answer_carries_the_security_headers(browser: Browser, path: str) -> None:
    response, _ = await browser.get(path)
    policy = dict(
        part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "max-age" in response.headers["Strict-Transport-Security"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert response.headers["Cache-Control"] == "no-store"


async def test_a_page_larger_than_the_hub_reads_is_refused(browser: Browser) -> None:
    token = await browser.token()
    response = await browser.post("/login", {CSRF_FIELD: token, "password": "x" * 100_000})
    assert response.status == 413


async def test_a_new_password_ends_every_session(depot: Depot, browser: Browser) -> None:
    await browser.log_in()
    await depot.ask("POST", "/password", {"password": "another one"})
    response, _ = await browser.get("/")
    assert response.status == 303
    assert (await browser.log_in()).status == 403
    assert (await browser.log_in("another one")).status == 303


async def test_sessions_outlive_a_restart_of_the_hub(depot: Depot, browser: Browser) -> None:
    """They are in the database: kill -9 and a start later the operator is still signed in."""
    await browser.log_in()
    rows = await asyncio.wrap_future(
        depot.hub.database.read(lambda sql: sql.execute(select(tables.session)).all())
    )
    assert len(rows) == 1
    assert browser.cookie.encode() not in rows[0].token_hash


def test_the_password_is_kept_as_argon2id(tmp_path: Path) -> None:
    with Database.open(tmp_path / "ledger.db", bytes(32)) as database:
        database.create(tables.metadata)
        set_password(database, "correct horse")
        query = select(tables.operator.c.password_hash)
        stored = database.read(lambda sql: sql.execute(query).scalar_one()).result()
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize("password", ["", "short", "x" * 257])
def test_a_password_that_is_too_short_or_too_long_is_refused(password: str) -> None:
    with pytest.raises(SetupError, match="8 to 256 characters"):
        check_new_password(password)


class Clock:
    now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms

    def sleep(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)


@asynccontextmanager
async def sessions(path: Path, clock: Clock) -> AsyncIterator[Sessions]:
    counter = iter(range(1, 10_000))
    database = await asyncio.to_thread(Database.open, path / "ledger.db", bytes(32))
    try:
        await asyncio.to_thread(database.create, tables.metadata)
        yield Sessions(database, 100, 250, clock, lambda size: next(counter).to_bytes(size, "big"))
    finally:
        await asyncio.to_thread(database.close)


async def test_a_session_ends_when_it_is_idle(tmp_path: Path) -> None:
    clock = Clock()
    async with sessions(tmp_path, clock) as kept:
        token = await kept.begin()
        clock.sleep(99)
        assert await kept.stands(token, touch=True)
        clock.sleep(99)
        assert await kept.stands(token, touch=False)  # asking does not keep it alive
        clock.sleep(2)
        assert not await kept.stands(token, touch=True)


async def test_a_session_ends_in_any_case(tmp_path: Path) -> None:
    clock = Clock()
    async with sessions(tmp_path, clock) as kept:
        token = await kept.begin()
        for _ in range(5):
            clock.sleep(50)
            assert await kept.stands(token, touch=True)
        clock.sleep(1)
        assert not await kept.stands(token, touch=True)


async def test_unknown_and_ended_tokens_do_not_stand(tmp_path: Path) -> None:
    async with sessions(tmp_path, Clock()) as kept:
        token = await kept.begin()
        await kept.end("no such token")
        assert await kept.stands(token, touch=True)
        await kept.end(token)
        assert not await kept.stands(token, touch=True)
        assert not await kept.stands("", touch=True)


async def test_sessions_are_bounded_and_the_longest_silent_one_gives_way(tmp_path: Path) -> None:
    clock = Clock()
    async with sessions(tmp_path, clock) as kept:
        tokens = []
        for _ in range(MAX_SESSIONS + 1):
            clock.now_ms += 1
            tokens.append(await kept.begin())
        assert not await kept.stands(tokens[0], touch=False)
        assert await kept.stands(tokens[1], touch=False)
