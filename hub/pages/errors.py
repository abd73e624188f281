"""Refusals and failures as pages: what happened, what it means for money or service, what to do."""

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from http import HTTPStatus

from aiohttp import web

from crdt.errors import InputRefused, StoreError
from hub.errors import RequestRefused
from hub.pages.render import page

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_TITLES = {
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.UNAUTHORIZED: "You are logged out",
    HTTPStatus.FORBIDDEN: "Not allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Too much was sent",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many attempts",
    HTTPStatus.SERVICE_UNAVAILABLE: "The hub cannot do this now",
}
_STORE = (
    "{error} What is recorded stays recorded, and terminals keep taking taps and holding them. "
    "Look whether the hub's disk is full or failing, then try again."
)
_BROKEN = (
    "Something in the hub failed that should not. What is recorded stays recorded, and terminals keep taking "
    "taps. Go back and look whether your change is there before you repeat it. The hub's log has the details."
)


def error_page(request: web.Request, status: int, text: str, title: str = "") -> web.Response:
    """A refusal as a page, for whoever is or is not logged in; ``text`` says what happened and what to do."""
    known = _TITLES.get(HTTPStatus(status), "That did not work")
    return page(request, "error.html", {"title": title or known, "text": text}, status)


def refusals_as_pages(handler: Handler) -> Handler:
    """Show what goes wrong in a view as a page instead of bare text."""

    @wraps(handler)
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except RequestRefused as refusal:
            return error_page(request, refusal.status, str(refusal))
        except InputRefused as refusal:
            return error_page(request, HTTPStatus.BAD_REQUEST, str(refusal))
        except StoreError as error:
            log.exception("the database could not do what a page needs")
            return error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, _STORE.format(error=error))
        except Exception:
            log.exception("a page failed")
            return error_page(request, HTTPStatus.INTERNAL_SERVER_ERROR, _BROKEN)

    return handle
