"""One terminal with what is set of it, and revoking it after a question."""

from http import HTTPStatus
from typing import Any

from aiohttp import web

from hub.errors import RequestRefused
from hub.events import Topic
from hub.keys import EVIDENCE, OVERVIEW, SERVICE, SETTINGS_DESK
from hub.pages import terminal_settings
from hub.pages.forms import Form, posted
from hub.pages.gather import money_format, now_ms
from hub.pages.live import LiveView
from hub.pages.notices import after, notice
from hub.pages.render import page
from hub.terminal_row import TerminalRow


async def _row(request: web.Request) -> TerminalRow:
    wanted = request.match_info.get("terminal") or request.query.get("terminal", "")
    row = await request.app[OVERVIEW].terminal(wanted)
    if row is None:
        raise RequestRefused(
            "no_terminal", "This hub has no such terminal. The list under Terminals shows all it has.", 404
        )
    return row


async def _context(request: web.Request) -> dict[str, Any]:
    row = await _row(request)
    totals = await request.app[OVERVIEW].totals()
    context = {"row": row, "totals": totals, "now_ms": now_ms()}
    context["settings"] = await request.app[SETTINGS_DESK].show(row.terminal)
    context["allowance"] = await request.app[EVIDENCE].allowance(row.replica)
    return await money_format(request) | context


TERMINAL_VIEW = LiveView(
    parts={"terminal": "_terminal.html", "settings": "_settings.html"},
    context=_context,
    topics=frozenset({Topic.LEDGER, Topic.TERMINALS}),
)


async def terminal(request: web.Request) -> web.Response:
    """GET /terminals/{terminal}"""
    context = await _context(request)
    return _page(request, context, terminal_settings.stored(context["settings"]))


async def save_settings(request: web.Request) -> web.Response:
    """POST /terminals/{terminal}/settings: all of it or nothing."""
    form, row = await posted(request), await _row(request)
    if await terminal_settings.save(request, row.terminal, form):
        raise after(f"/terminals/{row.terminal}", "set")
    return _page(request, await _context(request), form)


def _page(request: web.Request, context: dict[str, Any], form: Form) -> web.Response:
    frame = {
        "section": "/terminals",
        "events": f"/events?view=terminal&terminal={context['row'].terminal}",
        "notice": notice(request),
        "form": form,
    }
    status = HTTPStatus.UNPROCESSABLE_ENTITY if form.errors else HTTPStatus.OK
    return page(request, "terminal.html", frame | context, status)


async def ask_revoke(request: web.Request) -> web.Response:
    """GET /terminals/{terminal}/revoke: what it means, and are you sure."""
    return page(request, "revoke.html", {"section": "/terminals"} | await _context(request))


def _cut_off(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise RequestRefused("cut_off", "A cut-off is the number of an entry. Nothing was changed.")
    return int(text)


async def revoke(request: web.Request) -> web.Response:
    """POST /terminals/{terminal}/revoke"""
    row = await _row(request)
    await request.app[SERVICE].revoke(row.terminal, _cut_off((await posted(request)).text("cut_off")))
    raise after(f"/terminals/{row.terminal}", "revoked")
