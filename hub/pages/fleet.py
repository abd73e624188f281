"""Fares and policy: the form for the fleet's settings document."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from aiohttp import web

from crdt.facts import MAX_AMOUNT_MINOR, text_fits
from crdt.fleet import MAX_PASSBACK_S, MAX_RETENTION_DAYS, MAX_ROUTE_FARES, REFUSE, REGISTER
from hub.errors import RequestRefused
from hub.fleet_desk import FleetView
from hub.keys import SERVICE
from hub.pages import money
from hub.pages.forms import FieldError, Form, posted, whole_number
from hub.pages.notices import after, notice
from hub.pages.render import page

AMOUNTS = ("flat_fare", "opening_balance", "low_balance")
WHOLE_NUMBERS = (
    ("passback_window_s", 0, MAX_PASSBACK_S),
    ("day_starts_at_h", 0, 23),
    ("retention_days", 1, MAX_RETENTION_DAYS),
)
SPARE_LINES = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the routes' fares as typed, and what is wrong with it."""

    route: str = ""
    fare: str = ""
    error: str = ""


async def fleet(request: web.Request) -> web.Response:
    """GET /fleet"""
    view = await request.app[SERVICE].fleet.show()
    fares = [Line(*fare) for fare in _route_fares(view.values["route_fares"]).items()]
    return _page(request, view, _stored(view), fares)


async def save(request: web.Request) -> web.Response:
    """POST /fleet: all of it or nothing."""
    form = await posted(request)
    view = await request.app[SERVICE].fleet.show()
    changes = _policy(form, view.exponent)
    lines = _lines(form, view.exponent)
    if form.text("version") != str(view.version):
        form.errors[""] = (
            "Somebody saved other fares since you opened this page. Compare with the page opened anew, then "
            "save there. Until then those fares apply."
        )
    if not form.errors and not any(line.error for line in lines):
        changes["route_fares"] = "\n".join(f"{line.route}={line.fare}" for line in lines if line.route)
        try:
            await request.app[SERVICE].fleet.change(changes)
        except RequestRefused as refusal:
            form.errors[""] = str(refusal)
        else:
            raise after("/fleet", "saved")
    form.errors.setdefault("", "Mend what is marked below and save again. Until then the old fares apply.")
    return _page(request, view, form, lines)


def _page(request: web.Request, view: FleetView, form: Form, lines: list[Line]) -> web.Response:
    context = {
        "section": "/fleet",
        "currency": view.currency,
        "exponent": view.exponent,
        "notice": notice(request),
        "form": form,
        "lines": [line for line in lines if line != Line()] + [Line()] * SPARE_LINES,
    }
    status = HTTPStatus.UNPROCESSABLE_ENTITY if form.errors else HTTPStatus.OK
    return page(request, "fleet.html", context, status)


def _stored(view: FleetView) -> Form:
    return Form(dict(view.values) | {"version": str(view.version)})


def _policy(form: Form, exponent: int) -> dict[str, str]:
    """Everything but the routes' fares, as ``set_fleet`` takes it; mistakes are noted in the form."""
    changes = {}
    for name in AMOUNTS:
        amount_minor = form.read(name, lambda text: money.parse(text, exponent, 0, MAX_AMOUNT_MINOR))
        if amount_minor is not None:
            changes[name] = money.typed(amount_minor, exponent)
    for name, choices in {"unknown_card": (REGISTER, REFUSE), "negative_ride": ("yes", "no")}.items():
        if form.text(name) in choices:
            changes[name] = form.text(name)
        else:
            form.errors[name] = "Choose one of the two."
    for name, lowest, highest in WHOLE_NUMBERS:
        number = form.read(name, partial(whole_number, lowest=lowest, highest=highest))
        if number is not None:
            changes[name] = str(number)
    zone = form.read("timezone", _zone)
    if zone is not None:
        changes["timezone"] = zone
    return changes


def _zone(text: str) -> str:
    if not text:
        raise FieldError("Enter a time zone, for example Europe/Berlin or UTC.")
    return text


def _lines(form: Form, exponent: int) -> list[Line]:
    lines: list[Line] = []
    seen: set[str] = set()
    for number in range(MAX_ROUTE_FARES + SPARE_LINES):
        if f"route-{number}" not in form.values:
            break
        route, fare = form.text(f"route-{number}"), form.text(f"fare-{number}")
        if route or fare:
            lines.append(_line(route, fare, seen, exponent))
            seen.add(route)
    return lines


def _line(route: str, fare: str, seen: set[str], exponent: int) -> Line:
    if not route or "=" in route or not route.isprintable() or not text_fits(route):
        return Line(route, fare, "Enter the route of this fare: at most 64 letters and digits.")
    if route in seen:
        return Line(route, fare, f"Route {route} has a fare further up already. Keep one of the two.")
    try:
        amount_minor = money.parse(fare, exponent, 0, MAX_AMOUNT_MINOR)
    except FieldError as error:
        return Line(route, fare, str(error))
    return Line(route, money.typed(amount_minor, exponent))


def _route_fares(text: str) -> Mapping[str, str]:
    pairs = (line.rpartition("=") for line in text.splitlines() if line)
    return {route: fare for route, _, fare in pairs}
