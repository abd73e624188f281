"""The whole ledger: what is missing, what does not count and why, what can be lost; deciding about it."""

from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from hub.adopting import no_block
from hub.errors import RequestRefused
from hub.events import Topic
from hub.evidence import QuarantineRow, WaitingRow
from hub.excerpt import page_number
from hub.keys import EVIDENCE, EXPOSURES, SERVICE
from hub.pages.forms import posted
from hub.pages.gather import alerts, money_format
from hub.pages.live import LiveView
from hub.pages.notices import after, notice
from hub.pages.render import page
from hub.silent_row import SilentRow

LISTS = ("quarantine", "overdrawn", "flags")  # whose pages the address of this page names


async def _context(request: web.Request) -> dict[str, Any]:
    evidence = request.app[EVIDENCE]
    pages = {name: page_number(request.query.get(name)) for name in LISTS}
    return (
        await money_format(request)
        | await alerts(request)
        | {
            "on_ledger": True,
            "quarantine": await evidence.quarantine(pages["quarantine"]),
            "flags": await evidence.flags(pages["flags"]),
            "overdrawn": await evidence.overdrawn(pages["overdrawn"]),
            "exposure": await request.app[EXPOSURES].get(),
        }
    )


LEDGER_VIEW = LiveView(
    parts={
        "alerts": "_alerts.html",
        "waiting": "_waiting.html",
        "quarantine": "_quarantine.html",
        "exposure": "_exposure.html",
        "overdrawn": "_overdrawn.html",
        "flags": "_flags.html",
    },
    context=_context,
    topics=frozenset({Topic.LEDGER, Topic.TERMINALS, Topic.FLEET}),
)


async def ledger(request: web.Request) -> web.Response:
    """GET /ledger?quarantine=PAGE and so on; the first pages where it says none"""
    pages = {name: page_number(request.query[name]) for name in LISTS if name in request.query}
    events = "/events?" + urlencode({"view": "ledger"} | pages)
    frame = {"section": "/ledger", "events": events, "notice": notice(request)}
    return page(request, "ledger.html", frame | await _context(request))


async def block(request: web.Request) -> web.Response:
    """GET /ledger/blocks/{block}?entries=PAGE: what it is, what it says, and what may become of it."""
    row = await _block(request)
    entries = await request.app[EVIDENCE].entries(row.block, page_number(request.query.get("entries")))
    context = {"section": "/ledger", "row": row, "entries": entries}
    return page(request, "block.html", context | await money_format(request))


async def adopt(request: web.Request) -> web.Response:
    """POST /ledger/blocks/{block}/adopt: gone=yes, others=yes or none."""
    row, form = await _block(request), await posted(request)
    if form.text("gone") != "yes":
        raise RequestRefused("unsure", "Nothing was booked: tick the box if what it says is so.", 422)
    await request.app[SERVICE].adopt(row.block, others=form.text("others") == "yes")
    raise after("/ledger", "adopted")


async def accept(request: web.Request) -> web.Response:
    """POST /ledger/blocks/{block}/accept: what its revoked terminal wrote counts."""
    row = await _block(request)
    await request.app[SERVICE].accept(row.terminal)
    raise after("/ledger", "accepted")


async def ask_give_up(request: web.Request) -> web.Response:
    """GET /ledger/waiting/{replica}: what it means, and are you sure."""
    return page(request, "give_up.html", {"section": "/ledger", "row": await _waiting(request)})


async def give_up(request: web.Request) -> web.Response:
    """POST /ledger/waiting/{replica}"""
    await request.app[SERVICE].give_up((await _waiting(request)).replica)
    raise after("/ledger", "given-up")


async def ask_give_up_silent(request: web.Request) -> web.Response:
    """GET /ledger/silent/{replica}: what it means, and are you sure."""
    return page(request, "silent.html", {"section": "/ledger", "row": await _silent(request)})


async def give_up_silent(request: web.Request) -> web.Response:
    """POST /ledger/silent/{replica}"""
    await request.app[SERVICE].give_up((await _silent(request)).replica)
    raise after("/ledger", "given-up")


async def dismiss(request: web.Request) -> web.Response:
    """POST /ledger/flags/{replica}/{code}"""
    await request.app[SERVICE].dismiss(request.match_info["replica"], request.match_info["code"])
    raise after("/ledger")


async def take_notice_away(request: web.Request) -> web.Response:
    """POST /ledger/notice"""
    await request.app[SERVICE].take_notice_away()
    raise after("/ledger")


async def _block(request: web.Request) -> QuarantineRow:
    row = await request.app[EVIDENCE].block(request.match_info["block"])
    if row is not None:
        return row
    raise no_block()


async def _waiting(request: web.Request) -> WaitingRow:
    for row in await request.app[EVIDENCE].waiting():
        if row.replica == request.match_info["replica"]:
            return row
    raise RequestRefused("not_waiting", "Nothing is missing of this author.", HTTPStatus.NOT_FOUND)


async def _silent(request: web.Request) -> SilentRow:
    for row in await request.app[EVIDENCE].silent():
        if row.replica == request.match_info["replica"]:
            return row
    raise RequestRefused("not_waiting", "Nobody waits for this identity.", HTTPStatus.NOT_FOUND)
