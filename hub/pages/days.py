"""Days of service: whether all taps of one are here, its takings, and closing it."""

from dataclasses import fields
from datetime import date, timedelta
from typing import Any

from aiohttp import web

from hub.day_page import DayPage
from hub.events import Topic
from hub.keys import DAYBOOK
from hub.pages.gather import money_format
from hub.pages.live import LiveView
from hub.pages.notices import after, notice
from hub.pages.render import page


async def _context(request: web.Request) -> dict[str, Any]:
    wanted = request.match_info.get("day") or request.query.get("day", "")
    found = await request.app[DAYBOOK].report(wanted)
    shown = {each.name: getattr(found, each.name) for each in fields(DayPage)}
    return await money_format(request) | shown | {"complete": found.complete}


DAY_VIEW = LiveView(
    parts={"day": "_day.html"},
    context=_context,
    topics=frozenset({Topic.LEDGER, Topic.TERMINALS, Topic.FLEET}),
)


async def days(request: web.Request) -> web.Response:
    """GET /days?day=2026-11-21: that one's; today's where it says none."""
    wanted = await request.app[DAYBOOK].named(request.query.get("day") or "today")
    raise web.HTTPSeeOther(f"/days/{wanted.isoformat()}")


async def day(request: web.Request) -> web.Response:
    """GET /days/{day}"""
    context = await _context(request)
    asked = await request.app[DAYBOOK].named(request.match_info["day"])
    shown = date.fromisoformat(context["day"])  # another where closed days left nothing of the one asked for
    following = max(asked, shown) + timedelta(days=1)
    frame = {
        "section": "/days",
        "events": f"/events?view=day&day={context['day']}",
        "notice": notice(request),
        "before": (min(asked, shown) - timedelta(days=1)).isoformat(),
        "following": following.isoformat() if context["ended"] else "",
    }
    return page(request, "day.html", frame | context)


async def close(request: web.Request) -> web.Response:
    """POST /days/{day}/close"""
    closed = await request.app[DAYBOOK].close(request.match_info["day"])
    raise after(f"/days/{closed.day}", "closed")
