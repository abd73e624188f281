"""What stands before every view: who may come in, whether a form is ours, and safe headers."""

import hmac
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import quote

from aiohttp import hdrs, web

from crdt.errors import InputRefused, Overloaded, RefusalCode, StoreError
from crdt.protocol import SYNC
from hub.bodies import FORM, form_fields
from hub.connections import Guard
from hub.errors import RequestRefused
from hub.operators import (
    CSRF_FIELD,
    CSRF_HEADER,
    LOGIN_PATH,
    NEW_VISITOR,
    OPERATORS,
    PUBLIC_PATHS,
    SESSION_COOKIE,
    VISITOR,
    cookie_of,
    set_cookie,
)

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MACHINES = "/api/v1/"  # terminals: certificates instead of cookies
SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
FORBIDDEN = frozenset(
    {RefusalCode.NOT_PERMITTED, RefusalCode.REVOKED, RefusalCode.UNKNOWN_AUTHOR, RefusalCode.WRONG_CODE}
)

OVERLOADED_S = 5  # until a request is worth repeating that found the ledger's queue full

JSON_ERRORS = web.AppKey("JSON_ERRORS", bool)  # the whole application is for programs
ErrorPage = Callable[[web.Request, int, str], web.Response]
# How a refusal looks to a person: (request, status, sentence) -> page.
ERROR_PAGE: web.AppKey[ErrorPage] = web.AppKey("ERROR_PAGE")

SENTENCES: dict[int, str] = {
    HTTPStatus.NOT_FOUND: "There is nothing at this address.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This address does not take such a request.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request is larger than this hub reads.",
}

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


@web.middleware
async def deadlines(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection's guard where in a request it is."""
    guard = request.transport.get_protocol() if request.transport is not None else None
    if not isinstance(guard, Guard):
        return await handler(request)
    guard.request_began(request.content.is_eof)
    try:
        return await handler(request)
    finally:
        guard.request_ended()


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A refused request is an answer with a sentence: JSON for terminals, plain text for people."""
    try:
        return await handler(request)
    except RequestRefused as refused:
        answer = _explain(request, refused.code, str(refused), refused.status)
        if refused.retry_after_s is not None:
            answer.headers[hdrs.RETRY_AFTER] = str(refused.retry_after_s)
        return answer
    except InputRefused as refused:
        status = HTTPStatus.FORBIDDEN if refused.code in FORBIDDEN else HTTPStatus.BAD_REQUEST
        return _explain(request, refused.code.name.lower(), str(refused), status)
    except Overloaded as error:
        log.warning("more work waits than the ledger takes on: a request was told to come again")
        answer = _explain(request, "busy", str(error), HTTPStatus.SERVICE_UNAVAILABLE)
        answer.headers[hdrs.RETRY_AFTER] = str(OVERLOADED_S)
        return answer
    except StoreError as error:
        log.exception("the database could not do what a request needs")
        sentence = f"The hub cannot do this now: {error}"
        return _explain(request, "store", sentence, HTTPStatus.SERVICE_UNAVAILABLE)
    except web.HTTPError as error:
        code = error.reason.lower().replace(" ", "_")
        return _explain(request, code, SENTENCES.get(error.status, f"{error.reason}."), error.status)


@web.middleware
async def operators_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Pages are for who is signed in, and changes are for forms from our own pages."""
    if request.path.startswith(MACHINES):
        return await handler(request)
    request[VISITOR] = cookie_of(request)
    if request.method not in SAFE_METHODS:
        await _check_form(request)
    if not request.path.startswith(PUBLIC_PATHS) and not await _signed_in(request):
        return _to_login(request)
    response = await handler(request)
    if request.get(NEW_VISITOR) and not response.prepared and SESSION_COOKIE not in response.cookies:
        set_cookie(response, request[VISITOR])
    return response


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: security headers on everything that a browser may show.

    An exchange is none of that; it is asked for often, and a bus pays for its bytes.
    """
    if request.path == SYNC:
        return
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if not request.path.startswith("/static/"):
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")


def _for_programs(request: web.Request) -> bool:
    return request.path.startswith(MACHINES) or request.app.get(JSON_ERRORS, False)


def _explain(request: web.Request, code: str, sentence: str, status: int) -> web.Response:
    if _for_programs(request):
        return web.json_response({"error": code, "message": sentence}, status=status)
    error_page = request.app.get(ERROR_PAGE)
    if error_page is not None:
        return error_page(request, status, sentence)
    return web.Response(text=sentence, status=status)


async def _signed_in(request: web.Request) -> bool:
    live = "text/event-stream" in request.headers.get(hdrs.ACCEPT, "")  # an open page is not a person at work
    return await request.app[OPERATORS].signed_in(request, touch=not live)


async def _check_form(request: web.Request) -> None:
    given = request.headers.get(CSRF_HEADER, "")
    if request.content_type == FORM:
        fields = await form_fields(request)
        given = given or str(fields.get(CSRF_FIELD, ""))
    elif not given or request.can_read_body:
        raise RequestRefused("csrf", "Changes come from this hub's own forms only.", HTTPStatus.FORBIDDEN)
    wanted = request.app[OPERATORS].csrf_for(request[VISITOR])
    if not request[VISITOR] or not hmac.compare_digest(given.encode(errors="replace"), wanted.encode()):
        log.warning("refused a form from %s without this visitor's token", request.remote)
        raise RequestRefused(
            "csrf", "This form is too old or not from this hub. Go back, reload the page and try again.", 403
        )


def _to_login(request: web.Request) -> web.StreamResponse:
    wants_page = "text/html" in request.headers.get(hdrs.ACCEPT, "")
    if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD) or not wants_page:
        raise RequestRefused("sign_in", "Sign in first.", HTTPStatus.UNAUTHORIZED)
    raise web.HTTPSeeOther(f"{LOGIN_PATH}?next={quote(request.path_qs, safe='')}")
