"""Operators: password, session cookie, cross-site request protection, security headers.

What a page view uses:

- `csrf_token(request)`: goes into every form as the hidden field `csrf` (or the header `X-CSRF-Token`). The
  middleware refuses every unsafe request outside /api/v1 without it, /login included.
- `await request.app[OPERATORS].log_in(request, password)` -> Login; then `set_session(response, login)`.
- `await request.app[OPERATORS].log_out(request, response)`.
- `await request.app[OPERATORS].signed_in(request)`: whether the session still stands; a view that lives long
  (server-sent events) asks every now and then and ends when it does not.

The middleware sends whoever is not signed in from every page to /login?next=... (a plain 401 for requests
that are no page loads), except on PUBLIC_PATHS; it adds the security headers to every answer: no inline
script, no inline style, nothing from elsewhere.
"""

from dataclasses import dataclass

from aiohttp import web

SESSION_COOKIE = "__Host-farebox"
CSRF_FIELD = "csrf"
CSRF_HEADER = "X-CSRF-Token"
LOGIN_PATH = "/login"
PUBLIC_PATHS = (LOGIN_PATH, "/static/", "/api/v1/", "/favicon.ico")


@dataclass(frozen=True, slots=True)
class Login:
    """What became of a login: a session token, or a refusal sentence (and when to try again)."""

    token: str = ""
    refusal: str = ""
    retry_after_s: int = 0


def csrf_token(request: web.Request) -> str:
    """The token for forms on this page, bound to the visitor's cookie."""
    raise NotImplementedError


class Operators:
    """Checks passwords and keeps sessions."""

    async def log_in(self, request: web.Request, password: str) -> Login:
        """Check a password, off the event loop and rate-limited."""
        raise NotImplementedError

    async def log_out(self, request: web.Request, response: web.StreamResponse) -> None:
        """End the session, here and in the browser."""
        raise NotImplementedError

    async def signed_in(self, request: web.Request) -> bool:
        """Whether the request's session still stands (not logged out, not idle too long, not too old)."""
        raise NotImplementedError


def set_session(response: web.StreamResponse, login: Login) -> None:
    """Give the browser its session cookie."""
    raise NotImplementedError
