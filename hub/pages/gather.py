"""What several pages show, gathered once: the money format, the terminals, the clock of this rendering."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from hub.excerpt import Excerpt, page_number
from hub.keys import EVIDENCE, OVERVIEW, SERVICE
from hub.terminal_row import TerminalRow
from hub.terminalwords import by_urgency


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
    return {
        "restoration": restoration if restoration is not None and not restoration.seen else None,
        "waiting": await evidence.waiting(),
        "silent": await evidence.silent(),
        "undecided": await evidence.undecided(),
        "on_ledger": False,
        "put_back": await request.app[OVERVIEW].put_back(),
    }


async def terminal_lists(request: web.Request, listed: int = 0) -> dict[str, Any]:
    """The context of the terminals' table: the ``listed`` ones that most need a look, without revoked ones.

    ``listed`` = 0 takes the page of all that the address names, with revoked ones.
    """
    rows, clock = await request.app[OVERVIEW].terminals(), now_ms()
    ordered = await asyncio.to_thread(sorted, rows, key=lambda row: by_urgency(row, clock))
    excerpt = None if listed else Excerpt.of(ordered, page_number(request.query.get("page")))
    shown = [row for row in ordered if not row.revoked][:listed] if excerpt is None else excerpt.rows
    return {
        "now_ms": clock,
        "terminals": shown,
        "unlisted": len(rows) - len(shown) if excerpt is None else 0,
        "excerpt": excerpt,
        "held": _held(rows),
        "totals": await request.app[OVERVIEW].totals(),
    }


def _held(rows: Sequence[TerminalRow]) -> Held:
    holding = [row for row in rows if row.held and not row.revoked]
    return Held(sum(row.held or 0 for row in holding), any(not row.online for row in holding))
