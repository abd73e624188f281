"""What several pages show, gathered once: the money format, the terminals, the clock of this rendering."""

import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from hub.keys import EVIDENCE, OVERVIEW, SERVICE
from hub.overview import TerminalRow
from hub.pages.words import by_urgency


@dataclass(frozen=True, slots=True)
class Held:
    """Taps still on terminals, by their last reports; ``silent`` when one of those is offline now."""

    taps: int
    silent: bool


def now_ms() -> int:
    """The hub's clock, for "not seen for 3 h"; a page's words, never a record's time."""
    return time.time_ns() // 1_000_000


async def money_format(request: web.Request) -> dict[str, Any]:
    """The context every page with an amount needs: ``currency`` and ``exponent``."""
    fleet = await request.app[SERVICE].fleet.show()
    return {"currency": fleet.currency, "exponent": fleet.exponent}


async def alerts(request: web.Request) -> dict[str, Any]:
    """The context of what an operator must see wherever it looks: what is missing, undecided, put back."""
    evidence = request.app[EVIDENCE]
    restoration = await evidence.restoration()
    rows = await request.app[OVERVIEW].terminals()
    return {
        "restoration": restoration if restoration is not None and not restoration.seen else None,
        "waiting": await evidence.waiting(),
        "silent": await evidence.silent(),
        "undecided": await evidence.undecided(),
        "on_ledger": False,
        "put_back": [row for row in rows if row.put_back and not row.revoked],
    }


async def terminal_lists(request: web.Request, listed: int) -> dict[str, Any]:
    """The context of the terminals' table: the ``listed`` ones that most need a look, without revoked ones.

    ``listed`` = 0 takes all, revoked ones too.
    """
    everything = await request.app[OVERVIEW].terminals()
    clock = now_ms()
    ordered = sorted(everything, key=lambda row: by_urgency(row, clock))
    shown = [row for row in ordered if not row.revoked][:listed] if listed else ordered
    return {
        "now_ms": clock,
        "terminals": shown,
        "unlisted": len(everything) - len(shown),
        "held": _held(everything),
        "totals": await request.app[OVERVIEW].totals(),
    }


def _held(rows: list[TerminalRow]) -> Held:
    holding = [row for row in rows if row.held and not row.revoked]
    return Held(sum(row.held or 0 for row in holding), any(not row.online for row in holding))
