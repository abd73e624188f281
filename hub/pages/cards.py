"""Cards: the list, the search by UID, one card with its history, topping up and blocking."""

import logging
import re
import secrets
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from crdt.errors import StoreError
from crdt.facts import MAX_AMOUNT_MINOR
from hub.errors import RequestRefused
from hub.events import Topic
from hub.fleet_desk import FleetView
from hub.keys import OVERVIEW, SERVICE
from hub.overview import MAX_ROWS, CardRow
from hub.pages import money
from hub.pages.forms import FieldError, Form, posted
from hub.pages.gather import money_format
from hub.pages.live import LiveView
from hub.pages.notices import after, notice
from hub.pages.render import page

log = logging.getLogger(__name__)

PAGE_ROWS = 100
HISTORY_ROWS = 50
LONG_HISTORY_ROWS = MAX_ROWS
LARGE_RIDES = 100  # a top-up for more rides than this has to be confirmed
CARD_LENGTHS = (8, 14, 20, 32)
"""Hex digits of a card's id: 4, 7 or 10 bytes of an ISO 14443 UID, 16 of a virtual card."""

_UID = re.compile(r"[0-9A-F]{0,32}")


def _uid(text: str) -> str:
    uid = re.sub(r"[\s:.-]", "", text).upper()
    if not _UID.fullmatch(uid):
        raise FieldError("A UID has up to 32 of the digits 0 to 9 and A to F, for example 04A1B2C3D4E5F6.")
    return uid


def just_before(prefix: str) -> str:
    """The last card id that sorts before every id that starts with ``prefix`` (hex digits); "" is the start.

    Ids sort byte by byte, so the prefix less one, filled up with F, is the greatest id below it.
    """
    number = int(prefix, 16)
    return f"{number - 1:0{len(prefix)}X}".ljust(32, "F") if number else ""


async def cards(request: web.Request) -> web.Response:
    """GET /cards?uid=PREFIX&after=CARD"""
    form = Form({"uid": request.query.get("uid", ""), "after": request.query.get("after", "")})
    uid, start = form.read("uid", _uid), form.read("after", _uid)
    rows: list[CardRow] = []
    if uid is not None:
        begin = start or (just_before(uid) if uid else "")
        found = await request.app[OVERVIEW].cards(begin, PAGE_ROWS)
        rows = [row for row in found if row.card.startswith(uid)]
    if uid and len(rows) == 1 and rows[0].card == uid:
        raise web.HTTPSeeOther(f"/cards/{uid}")
    context = {
        "section": "/cards",
        "form": form,
        "uid": form.text("uid") if uid is None else uid,
        "whole_card": uid if uid and len(uid) in CARD_LENGTHS else "",
        "cards": rows,
        "page_rows": PAGE_ROWS,
        "following": _following(uid or "", rows),
    }
    status = HTTPStatus.UNPROCESSABLE_ENTITY if form.errors else HTTPStatus.OK
    return page(request, "cards.html", await money_format(request) | context, status)


def _following(uid: str, rows: list[CardRow]) -> str:
    if len(rows) < PAGE_ROWS:
        return ""
    return "/cards?" + urlencode(({"uid": uid} if uid else {}) | {"after": rows[-1].card})


async def _context(request: web.Request) -> dict[str, Any]:
    wanted = request.match_info.get("card") or request.query.get("card", "")
    long = request.query.get("entries") == "more"
    limit = LONG_HISTORY_ROWS if long else HISTORY_ROWS
    card = await request.app[OVERVIEW].card(wanted, limit)
    context = {"card": card, "older": len(card.history) >= limit, "longer": not long}
    return await money_format(request) | context


CARD_VIEW = LiveView(
    parts={"balance": "_balance.html", "block": "_block.html", "history": "_history.html"},
    context=_context,
    topics=frozenset({Topic.LEDGER, Topic.CARDS, Topic.FLEET}),
    subject=lambda request: request.query.get("card", ""),
)


async def _card_page(request: web.Request, form: Form, large_minor: int = 0) -> web.Response:
    context = await _context(request)
    watched = {"view": "card", "card": context["card"].card}
    if not context["longer"]:
        watched["entries"] = "more"
    frame = {
        "section": "/cards",
        "events": "/events?" + urlencode(watched),
        "notice": notice(request),
        "form": form,
        "large_minor": large_minor,
        # A form shown again after a failure keeps its id: what was booked after all is not booked twice.
        "request_id": form.text("request") or secrets.token_hex(16),
    }
    status = HTTPStatus.UNPROCESSABLE_ENTITY if form.errors else HTTPStatus.OK
    return page(request, "card.html", frame | context, status)


async def card(request: web.Request) -> web.Response:
    """GET /cards/{card}"""
    return await _card_page(request, Form())


async def top_up(request: web.Request) -> web.Response:
    """POST /cards/{card}/topup: booked once, however often the form arrives."""
    form = await posted(request)
    uid = _path_card(request)
    fleet = await request.app[SERVICE].fleet.show()
    exponent = fleet.exponent
    amount_minor = form.read("amount", lambda text: money.parse(text, exponent, 1, MAX_AMOUNT_MINOR))
    if amount_minor is None:
        return await _card_page(request, form)
    if _is_large(amount_minor, fleet) and form.text("large") != str(amount_minor):
        form.errors["amount"] = (
            f"This pays for more than {LARGE_RIDES} rides. Nothing was booked yet: "
            "tick the box if it is right."
        )
        return await _card_page(request, form, large_minor=amount_minor)
    try:
        booking = await request.app[SERVICE].top_up(
            uid, money.typed(amount_minor, exponent), form.text("request")
        )
    except RequestRefused as refusal:
        form.errors["amount"] = f"{refusal} Nothing was booked."
        return await _card_page(request, form)
    except StoreError as error:
        log.exception("a top-up may not have been booked")
        form.errors["amount"] = (
            f"{error} It is not certain whether this was booked. Send this form again: the same form is "
            "booked once at most."
        )
        return await _card_page(request, form)
    raise after(f"/cards/{uid}", "again" if booking.repeated else "topped-up")


async def block(request: web.Request) -> web.Response:
    """POST /cards/{card}/block: blocked=yes or no."""
    form = await posted(request)
    uid = _path_card(request)
    blocked = form.text("blocked") == "yes"
    await request.app[SERVICE].set_blocked(uid, blocked)
    raise after(f"/cards/{uid}", "blocked" if blocked else "unblocked")


def _is_large(amount_minor: int, fleet: FleetView) -> bool:
    """Whether the amount looks like a slip, such as a forgotten decimal point."""
    fare_minor = money.parse(fleet.values["flat_fare"], fleet.exponent, 0, MAX_AMOUNT_MINOR)
    return 0 < LARGE_RIDES * fare_minor < amount_minor


def _path_card(request: web.Request) -> str:
    try:
        return _uid(request.match_info["card"])
    except FieldError as error:
        raise RequestRefused("bad_card", str(error), HTTPStatus.NOT_FOUND) from None
