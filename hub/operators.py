"""Operators: the password, logging in and out, and the token against cross-site requests.

What a page view uses:

- `csrf_token(request)`: goes into every form as the hidden field `csrf` (or the header `X-CSRF-Token`). The
  shield (hub.shield) refuses every unsafe request outside /api/v1 without it, /login included.
- `await request.app[OPERATORS].log_in(request, password)` -> Login; then `set_session(response, login)`.
- `await request.app[OPERATORS].log_out(request, response)`.
- `await request.app[OPERATORS].signed_in(request)`: whether the session still stands; a view that lives long
  (server-sent events) asks every now and then and ends when it does not. Asking does not keep it alive.

The shield sends whoever is not signed in from every page to /login?next=... (a plain 401 for requests that
are no page loads), except on PUBLIC_PATHS; it adds the security headers to every answer: no inline script, no
inline style, nothing from elsewhere.
"""

import asyncio
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import Connection, select

from crdt.store.store import Store
from hub import tables
from hub.errors import SetupError
from hub.ratelimit import RateLimit
from hub.sessions import TOKEN_BYTES, Sessions

SESSION_COOKIE = "__Host-farebox"
CSRF_FIELD = "csrf"
CSRF_HEADER = "X-CSRF-Token"
LOGIN_PATH = "/login"
PUBLIC_PATHS = (LOGIN_PATH, "/static/", "/api/v1/", "/favicon.ico")

OPERATOR = "operator"  # there is one account so far
MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_CHARACTERS = 256
LOGIN_WINDOW_S = 300.0
CONCURRENT_HASHES = 2  # each takes 19 MiB and a core

VISITOR = web.RequestKey("VISITOR", str)  # the browser's cookie, or the one it is about to get
NEW_VISITOR = web.RequestKey("NEW_VISITOR", bool)

_COOKIE = re.compile(f"[0-9a-f]{{{2 * TOKEN_BYTES}}}", re.ASCII)

# OWASP's argon2id parameters; 22 ms on a small server.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


@dataclass(frozen=True, slots=True)
class Login:
    """What became of a login: a session token, or a refusal sentence (and when to try again)."""

    token: str = ""
    refusal: str = ""
    retry_after_s: int = 0


def check_new_password(password: str) -> str:
    """The password, when it will do; SetupError with a sentence when not."""
    if not MIN_PASSWORD_CHARACTERS <= len(password) <= MAX_PASSWORD_CHARACTERS:
        raise SetupError(
            "The operator's password must have "
            f"{MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters."
        )
    return password


def set_password(database: Store, password: str) -> None:
    """Store the operator's password as an argon2id hash and end every session; waits for disk and hash."""
    row = {"name": OPERATOR, "password_hash": _HASHER.hash(check_new_password(password))}
    table = tables.operator

    def replace(sql: Connection) -> None:
        sql.execute(table.delete().where(table.c.name == OPERATOR))
        sql.execute(table.insert().values(row))
        sql.execute(tables.session.delete())

    database.write(replace).result()


class Operators:
    """Checks passwords and keeps sessions."""

    def __init__(
        self,
        database: Store,
        sessions: Sessions,
        cookie_key: bytes,
        login_attempts: int,
        monotonic: Callable[[], float],
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._cookie_key = cookie_key
        self._wrong = RateLimit(login_attempts, LOGIN_WINDOW_S, monotonic)
        self._hashing = asyncio.Semaphore(CONCURRENT_HASHES)

    async def log_in(self, request: web.Request, password: str) -> Login:
        """Check a password, off the event loop and rate-limited."""
        address = request.remote or ""
        wait_s = self._wrong.wait_s(address)
        if wait_s:
            return Login(refusal=f"Too many wrong passwords. Try again in {wait_s} s.", retry_after_s=wait_s)
        # Counted before the slow check, so that attempts at the same time all count.
        self._wrong.count(address)
        if not await self._matches(password):
            return Login(refusal="The password is wrong.")
        self._wrong.forget(address)
        return Login(token=await self._sessions.begin())

    async def log_out(self, request: web.Request, response: web.StreamResponse) -> None:
        """End the session, here and in the browser."""
        await self._sessions.end(cookie_of(request))
        response.del_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="Lax")

    async def signed_in(self, request: web.Request, *, touch: bool = False) -> bool:
        """Whether the request's session still stands (not logged out, not idle too long, not too old)."""
        token = cookie_of(request)
        return bool(token) and await self._sessions.stands(token, touch=touch)

    def csrf_for(self, visitor: str) -> str:
        """The token that proves that a form came from a page this visitor was given."""
        return hmac.digest(self._cookie_key, b"farebox csrf v1\n" + visitor.encode(), "sha256").hex()

    async def _matches(self, password: str) -> bool:
        query = select(tables.operator.c.password_hash).where(tables.operator.c.name == OPERATOR)
        stored = await asyncio.wrap_future(self._database.read(lambda sql: sql.execute(query).scalar_one()))
        if len(password) > MAX_PASSWORD_CHARACTERS:
            return False
        async with self._hashing:
            return await asyncio.to_thread(_verify, stored, password)


OPERATORS = web.AppKey("OPERATORS", Operators)


def cookie_of(request: web.Request) -> str:
    """The browser's cookie; empty when it has none, or one that is not of our making."""
    cookie = request.cookies.get(SESSION_COOKIE, "")
    return cookie if _COOKIE.fullmatch(cookie) else ""


def csrf_token(request: web.Request) -> str:
    """The token for forms on this page, bound to the visitor's cookie; a visitor without one gets it."""
    visitor = request.get(VISITOR, "")
    if not visitor:
        visitor = secrets.token_hex(TOKEN_BYTES)
        request[VISITOR] = visitor
        request[NEW_VISITOR] = True
    return request.app[OPERATORS].csrf_for(visitor)


def set_session(response: web.StreamResponse, login: Login) -> None:
    """Give the browser its session cookie."""
    set_cookie(response, login.token)


def set_cookie(response: web.StreamResponse, value: str) -> None:
    """Set the one cookie: for this host only, never over plain HTTP, out of reach of scripts."""
    response.set_cookie(SESSION_COOKIE, value, path="/", secure=True, httponly=True, samesite="Lax")


def _verify(stored: str, password: str) -> bool:
    try:
        return _HASHER.verify(stored, password)
    except VerificationError:
        return False
