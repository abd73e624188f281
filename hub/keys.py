"""Where a view finds the hub's parts: `request.app[OVERVIEW]`, and so on.

For pages: OVERVIEW (read), SERVICE (change), EVENTS (what changed, live), OPERATORS (login).
`hub.pages.routes() -> list[web.RouteDef]` is mounted at the root by hub.app; /api/v1 is the terminals'.
A RequestRefused that leaves a view becomes its status and its sentence as plain text.
"""

from aiohttp import web

from hub.events import EventBus
from hub.operators import OPERATORS
from hub.overview import Overview
from hub.service import Service

OVERVIEW = web.AppKey("OVERVIEW", Overview)
SERVICE = web.AppKey("SERVICE", Service)
EVENTS = web.AppKey("EVENTS", EventBus)

__all__ = ["EVENTS", "OPERATORS", "OVERVIEW", "SERVICE"]
