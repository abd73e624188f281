"""Where a view finds the hub's parts: `request.app[OVERVIEW]`, and so on.

For pages: OVERVIEW, EVIDENCE, EXPOSURES, DAYBOOK (read), SERVICE (change), SETTINGS_DESK (both), EVENTS (what
changed, live), OPERATORS (login). For the control socket also LEDGER, BACKUPS and RECALL.
`hub.pages.routes() -> list[web.RouteDef]` is mounted at the root by hub.app; /api/v1 is the terminals'.
A RequestRefused that leaves a view becomes its status and its sentence as plain text.
"""

from dataclasses import dataclass

from aiohttp import web

from crdt.store.hub import HubLedger
from hub.backup import Backups
from hub.daybook import Daybook
from hub.events import EventBus
from hub.evidence import Evidence
from hub.exposure import Exposures
from hub.operators import OPERATORS
from hub.overview import Overview
from hub.recalling import Recall
from hub.service import Service
from hub.settings_desk import SettingsDesk

OVERVIEW = web.AppKey("OVERVIEW", Overview)


@dataclass(frozen=True, slots=True)
class About:
    """What this hub is."""

    fleet: str  # hex
    name: str  # as it is announced
    url: str  # where it answers on this machine
    version: str  # of Farebox


ABOUT = web.AppKey("ABOUT", About)
SERVICE = web.AppKey("SERVICE", Service)
LEDGER = web.AppKey("LEDGER", HubLedger)
EVIDENCE = web.AppKey("EVIDENCE", Evidence)
EXPOSURES = web.AppKey("EXPOSURES", Exposures)
DAYBOOK = web.AppKey("DAYBOOK", Daybook)
SETTINGS_DESK = web.AppKey("SETTINGS_DESK", SettingsDesk)
BACKUPS = web.AppKey("BACKUPS", Backups)
RECALL = web.AppKey("RECALL", Recall)
EVENTS = web.AppKey("EVENTS", EventBus)

__all__ = [
    "ABOUT",
    "BACKUPS",
    "DAYBOOK",
    "EVENTS",
    "EVIDENCE",
    "EXPOSURES",
    "LEDGER",
    "OPERATORS",
    "OVERVIEW",
    "RECALL",
    "SERVICE",
    "SETTINGS_DESK",
]
