"""One terminal, and revoking it after a question."""

from typing import Any

from aiohttp import web

from hub.errors import RequestRefused
from hub.events import Topic
from hub.keys import EVIDENCE, OVERVIEW, SERVICE
from hub.overview import TerminalRow
from hub.pages.forms import posted
from hub.pages.gather import money_format, now_ms
from hub.pages.live import LiveView
from hub.pages.notices import after, notice
from hub.pages.render import page


async def _row(request: web.Request) -> TerminalRow:
    wanted = request.match_info.get("terminal") or request.query.get("terminal", "")
    for row in await request.app[OVERVIEW].terminals():
        if row.terminal == wanted.casefold():
            return row
    raise RequestRefused(
        "no_terminal", "This hub has no such terminal. The list under Terminals shows all it has.", 404
    )


async def _context(request: web.Request) -> dict[str, Any]:
    row = await _row(request)
    totals = await request.app[OVERVIEW].totals()
    context = {"row": row, "totals": totals, "now_ms": now_ms()}
    context["allowance"] = await request.app[EVIDENCE].allowance(row.replica)
    return await money_format(request) | context


TERMINAL_VIEW = LiveView(
    parts={"terminal": "_terminal.html"},
    context=_context,
    topics=frozenset({Topic.LEDGER, Topic.TERMINALS}),
)


async def terminal(request: web.Request) -> web.Response:
    """GET /terminals/{terminal}"""
    context = await _context(request)
    frame = {
        "section": "/terminals",
        "events": f"/events?view=terminal&terminal={context['row'].terminal}",
        "notice": notice(request),
    }
    return page(request, "terminal.html", frame | context)


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
