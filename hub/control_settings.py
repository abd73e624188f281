"""The control socket's requests about what is set of a terminal."""

from dataclasses import asdict
from typing import Any

from aiohttp import web

from hub.bodies import json_object
from hub.errors import RequestRefused
from hub.keys import SETTINGS_DESK
from hub.settings_desk import SettingsView


def settings_routes() -> list[web.RouteDef]:
    """For the control socket's application."""
    return [web.get("/terminals/settings", show), web.post("/terminals/settings", change)]


async def show(request: web.Request) -> web.Response:
    """GET /terminals/settings?terminal=NAME-OR-ID"""
    return _answer(await request.app[SETTINGS_DESK].show(request.query.get("terminal", "")))


async def change(request: web.Request) -> web.Response:
    """POST /terminals/settings {"terminal": name or id, "changes": {"route": "12", ...}}"""
    body = await json_object(request)
    terminal, changes = body.get("terminal"), _texts(body.get("changes"))
    if not isinstance(terminal, str) or changes is None:
        raise RequestRefused(
            "malformed", "The request needs `terminal` as text, `changes` as names and texts."
        )
    return _answer(await request.app[SETTINGS_DESK].change(terminal, changes))


def _texts(changes: Any) -> dict[str, str] | None:
    whole = isinstance(changes, dict) and all(isinstance(text, str) for text in changes.values())
    return changes if whole else None


def _answer(view: SettingsView) -> web.Response:
    return web.json_response(asdict(view))
