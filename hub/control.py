"""The control socket: what `farebox-hub invite` and the like ask the running hub, JSON on a Unix socket.

Whoever may open the socket (mode 0600, in the state directory) may do everything; there is no password.
"""

import os
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web

from hub.bodies import json_object
from hub.errors import RequestRefused, SetupError
from hub.keys import ABOUT, DAYBOOK, OVERVIEW, SERVICE
from hub.overview import TapRow

BACKLOG = 16


def control_routes() -> list[web.RouteDef]:
    """Everything the control socket answers to."""
    return [
        web.get("/status", status),
        web.get("/terminals", terminals),
        web.post("/terminals/revoke", revoke),
        web.post("/terminals/accept", accept),
        web.post("/invite", invite),
        web.get("/cards", cards),
        web.get("/cards/{card}", card),
        web.post("/cards/{card}/block", block),
        web.post("/cards/{card}/unblock", unblock),
        web.get("/latest", latest),
        web.post("/topup", top_up),
        web.get("/fleet", fleet),
        web.get("/days/{day}", day),
        web.post("/days/{day}/close", close_day),
        web.post("/fleet", set_fleet),
        web.post("/password", set_password),
    ]


def bind(path: Path) -> socket.socket:
    """A listening socket at `path` that only this user (and root) may open.

    A socket file that is there is a dead hub's: the ledger's lock keeps a second live one away.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        # On Linux the mode given to the socket before bind is the file's, so it is never open to others.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SetupError(f"The control socket {path} cannot be made: {error}.") from error
    listener.setblocking(False)
    return listener


async def status(request: web.Request) -> web.Response:
    """GET /status: fleet, URL and the books."""
    totals = await request.app[OVERVIEW].totals()
    return _answer({**asdict(request.app[ABOUT]), **asdict(totals), "balanced": totals.balanced})


async def terminals(request: web.Request) -> web.Response:
    """GET /terminals"""
    return _answer([row._asdict() for row in await request.app[OVERVIEW].terminals()])


async def revoke(request: web.Request) -> web.Response:
    """POST /terminals/revoke {"terminal": name or id, "cut_off": number or null}"""
    body = await json_object(request)
    return _answer(asdict(await request.app[SERVICE].revoke(_text(body, "terminal"), _cut_off(body))))


async def accept(request: web.Request) -> web.Response:
    """POST /terminals/accept {"terminal": name or id, "cut_off": number or null}"""
    body = await json_object(request)
    return _answer(asdict(await request.app[SERVICE].accept(_text(body, "terminal"), _cut_off(body))))


async def invite(request: web.Request) -> web.Response:
    """POST /invite -> {"code", "expires_at_ms"}"""
    return _answer(asdict(await request.app[SERVICE].invite()))


async def cards(request: web.Request) -> web.Response:
    """GET /cards?after=HEX&limit=N"""
    limit = _whole(request.query.get("limit", "100"))
    rows = await request.app[OVERVIEW].cards(request.query.get("after", ""), limit)
    return _answer([asdict(row) for row in rows])


async def card(request: web.Request) -> web.Response:
    """GET /cards/{card}?limit=N"""
    limit = _whole(request.query.get("limit", "100"))
    found = await request.app[OVERVIEW].card(request.match_info["card"], limit)
    return _answer({**asdict(found), "history": [_tap(row) for row in found.history]})


async def block(request: web.Request) -> web.Response:
    """POST /cards/{card}/block"""
    return await _set_blocked(request, blocked=True)


async def unblock(request: web.Request) -> web.Response:
    """POST /cards/{card}/unblock"""
    return await _set_blocked(request, blocked=False)


async def latest(request: web.Request) -> web.Response:
    """GET /latest?limit=N"""
    limit = _whole(request.query.get("limit", "50"))
    return _answer([_tap(row) for row in await request.app[OVERVIEW].latest(limit)])


async def top_up(request: web.Request) -> web.Response:
    """POST /topup {"card", "amount": decimal text, "request": id}"""
    body = await json_object(request)
    booking = await request.app[SERVICE].top_up(
        _text(body, "card"), _text(body, "amount"), _text(body, "request")
    )
    return _answer(asdict(booking))


async def fleet(request: web.Request) -> web.Response:
    """GET /fleet"""
    return _answer(asdict(await request.app[SERVICE].fleet.show()))


async def set_fleet(request: web.Request) -> web.Response:
    """POST /fleet {name: text}, see hub.fleettext"""
    body = await json_object(request)
    changes = {name: _text(body, name) for name in body}
    return _answer(asdict(await request.app[SERVICE].fleet.change(changes)))


async def day(request: web.Request) -> web.Response:
    """GET /days/{day}: 2026-11-21, today or yesterday"""
    return _answer(asdict(await request.app[DAYBOOK].report(request.match_info["day"])))


async def close_day(request: web.Request) -> web.Response:
    """POST /days/{day}/close"""
    return _answer(asdict(await request.app[DAYBOOK].close(request.match_info["day"])))


async def set_password(request: web.Request) -> web.Response:
    """POST /password {"password"}: a new operator's password; every session ends"""
    await request.app[SERVICE].set_password(_text(await json_object(request), "password"))
    return _answer({})


async def _set_blocked(request: web.Request, *, blocked: bool) -> web.Response:
    await request.app[SERVICE].set_blocked(request.match_info["card"], blocked)
    return _answer({})


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise RequestRefused("malformed", f"The request needs {name[:40]!r} as text.")
    return value


def _cut_off(body: dict[str, Any]) -> int | None:
    value = body.get("cut_off")
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise RequestRefused("malformed", "A cut-off is a whole number, or left out.")
    return value


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise RequestRefused("malformed", f"{text[:40]!r} is not a whole number.")
    return int(text)


def _tap(row: TapRow) -> dict[str, Any]:
    return {**asdict(row), "kind": row.kind.name.lower()}


def _answer(value: Any) -> web.Response:
    return web.json_response(value)
