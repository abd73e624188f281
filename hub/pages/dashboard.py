"""The overview: totals, terminals, latest taps; and the list of all terminals. Both live."""

from typing import Any

from aiohttp import web

from hub.events import Topic
from hub.excerpt import page_number
from hub.keys import OVERVIEW
from hub.pages.gather import alerts, money_format, terminal_lists
from hub.pages.live import LiveView
from hub.pages.render import page

LISTED_TERMINALS = 25
LATEST_TAPS = 15


async def _overview_context(request: web.Request) -> dict[str, Any]:
    taps = await request.app[OVERVIEW].latest(LATEST_TAPS)
    lists = await terminal_lists(request, LISTED_TERMINALS) | await alerts(request)
    return await money_format(request) | lists | {"taps": taps}


async def _terminals_context(request: web.Request) -> dict[str, Any]:
    return await money_format(request) | await terminal_lists(request)


OVERVIEW_VIEW = LiveView(
    parts={
        "alerts": "_alerts.html",
        "totals": "_totals.html",
        "terminals": "_terminals.html",
        "taps": "_taps.html",
    },
    context=_overview_context,
    topics=frozenset({Topic.LEDGER, Topic.TERMINALS, Topic.FLEET}),
)
TERMINALS_VIEW = LiveView(
    parts={"terminals": "_terminals.html"},
    context=_terminals_context,
    topics=frozenset({Topic.LEDGER, Topic.TERMINALS}),
)


async def overview(request: web.Request) -> web.Response:
    """GET /"""
    frame = {"section": "/", "events": "/events?view=overview"}
    return page(request, "overview.html", frame | await _overview_context(request))


async def terminals(request: web.Request) -> web.Response:
    """GET /terminals?page=NUMBER; the first page where it says none"""
    shown = page_number(request.query.get("page"))
    frame = {"section": "/terminals", "events": f"/events?view=terminals&page={shown}"}
    return page(request, "terminals.html", frame | await _terminals_context(request))
