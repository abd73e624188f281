"""Logging in and out."""

import re
from http import HTTPStatus

from aiohttp import web

from hub.keys import OPERATORS
from hub.operators import set_session
from hub.pages.forms import posted
from hub.pages.render import page

# A path on this server: "//host" and "/\host" would lead a browser elsewhere.
_OWN_PATH = re.compile(r"/(?![/\\])[^\\\x00-\x20]{0,500}", re.ASCII)


async def show_login(request: web.Request) -> web.Response:
    """GET /login; whoever is in already goes on."""
    onward = _onward(request.query.get("next", ""))
    if await request.app[OPERATORS].signed_in(request):
        raise web.HTTPSeeOther(onward)
    return page(request, "login.html", {"refusal": "", "next": onward})


async def log_in(request: web.Request) -> web.Response:
    """POST /login"""
    form = await posted(request)
    onward = _onward(form.text("next"))
    login = await request.app[OPERATORS].log_in(request, form.values.get("password", ""))
    if login.token:
        response = web.HTTPSeeOther(onward)
        set_session(response, login)
        raise response
    status = HTTPStatus.TOO_MANY_REQUESTS if login.retry_after_s else HTTPStatus.FORBIDDEN
    refused = page(request, "login.html", {"refusal": login.refusal, "next": onward}, status)
    if login.retry_after_s:
        refused.headers["Retry-After"] = str(login.retry_after_s)
    return refused


async def log_out(request: web.Request) -> web.Response:
    """POST /logout"""
    response = web.HTTPSeeOther("/login")
    await request.app[OPERATORS].log_out(request, response)
    raise response


def _onward(wanted: str) -> str:
    return wanted if _OWN_PATH.fullmatch(wanted) else "/"
