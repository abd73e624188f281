"""Pairing codes: make one, read it to the technician."""

from aiohttp import web

from hub.keys import SERVICE
from hub.pages.notices import after
from hub.pages.render import page


async def invite(request: web.Request) -> web.Response:
    """GET /invite: the codes that are open now, newest first, with the command that uses them."""
    invites = await request.app[SERVICE].open_invites()
    context = {"section": "/terminals", "invites": invites, "hub": request.host}
    return page(request, "invite.html", context)


async def make_invite(request: web.Request) -> web.Response:
    """POST /invite"""
    await request.app[SERVICE].invite()
    raise after("/invite")
