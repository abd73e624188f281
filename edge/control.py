"""The control socket: JSON over HTTP on a Unix socket, for farebox-tech and nobody outside this machine.

    GET  /status         what the terminal is and how it does
    GET  /cards/{hex}    what it believes of a card
    POST /pair           {"code": "4-7K2M9QX", "hub": "host:port" (optional)}
    POST /sync           talk to the hub now
    GET  /settings       what is set of the terminal by technician and hub
    POST /settings       {"route": "12", ...}: set some of it
    GET  /peers          other terminals it knows of, and how it stands with each
    POST /export         {"after": {replica: number} or null} -> a courier file
    POST /import         a courier file -> {"new", "known", "settled", "refused", "missing", ...}

Errors are {"error": code, "message": sentence}. Whoever may open the socket (mode 0600) may do all of it.
"""

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web

from crdt.errors import LedgerError, MisuseError
from crdt.facts import CardId, ReplicaId, check_card
from edge.addresses import HubAddress, parse_address
from edge.courier import Export, Import
from edge.errors import (
    CodeRefused,
    ControlError,
    EdgeError,
    HubImpostor,
    HubUnreachable,
    PairedElsewhere,
    PairingRefused,
    SettingNotTaken,
)
from edge.local import DELTAS_HEADER, UNSEALED_HEADER
from edge.report import Report
from edge.terminal import Terminal
from edge.terminal_settings import OwnSettings
from edge.uplink import Uplink

log = logging.getLogger(__name__)

BACKLOG = 16
MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""Of a request that is read as a whole: the numbers of all the authors that a courier file may name fit."""
CHUNK_BYTES = 64 * 1024

Pair = Callable[[str, HubAddress | None], Awaitable[None]]
"""Pair with this code, at this address or where a hub is found. Raises EdgeError."""


@dataclass(frozen=True, slots=True)
class Controls:
    """What the requests act on."""

    report: Report
    uplink: Uplink
    pair: Pair
    peers: Callable[[], list[dict[str, Any]]]
    terminal: Terminal
    settings: OwnSettings


CONTROLS = web.AppKey("CONTROLS", Controls)


def control_app(controls: Controls) -> web.Application:
    """The aiohttp application."""
    app = web.Application(client_max_size=MAX_REQUEST_BYTES, middlewares=[_errors])
    app[CONTROLS] = controls
    app.add_routes(
        [
            web.get("/status", _status),
            web.get("/cards/{card}", _card),
            web.post("/pair", _pair),
            web.post("/sync", _sync),
            web.get("/settings", _settings),
            web.post("/settings", _set),
            web.get("/peers", _peers),
            web.post("/export", _export),
            web.post("/import", _import),
        ]
    )
    return app


def bind(path: Path) -> socket.socket:
    """A listening socket that only this user and root may open.

    A socket file that is there already is a dead terminal's: the ledger's lock keeps a second live one away.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        # On Linux the mode set before bind is the file's: it is never open to others, not for a moment.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ControlError(
            f"The control socket {path} cannot be made ({error.strerror or error})."
        ) from error
    listener.setblocking(False)
    return listener


async def _status(request: web.Request) -> web.Response:
    controls = request.app[CONTROLS]
    return web.json_response(await asyncio.to_thread(controls.report.for_technician, controls.uplink.status))


async def _card(request: web.Request) -> web.Response:
    text = request.match_info["card"].replace(":", "").replace(" ", "")
    try:
        card = CardId(bytes.fromhex(text))
        check_card(card)
    except (ValueError, MisuseError):
        return _error(
            HTTPStatus.BAD_REQUEST, "card", "A card number is 8 to 32 hex digits, such as 04A1B2C3D4E5F6."
        )
    said = await asyncio.to_thread(request.app[CONTROLS].report.card, card)
    if said is None:
        return _error(
            HTTPStatus.CONFLICT, "not_paired", "This terminal is not paired yet: farebox-tech pair CODE"
        )
    return web.json_response(said)


async def _pair(request: web.Request) -> web.Response:
    body = await _json(request)
    code, hub = body.get("code"), body.get("hub") or None
    if not isinstance(code, str) or not isinstance(hub, str | None):
        return _error(
            HTTPStatus.BAD_REQUEST, "code", 'Give the pairing code the hub shows: {"code": "4-7K2M9QX"}.'
        )
    try:
        address = None if hub is None else parse_address(hub)
    except ValueError as expected:
        return _error(HTTPStatus.BAD_REQUEST, "hub", f"The hub's address must be {expected}.")
    controls = request.app[CONTROLS]
    await controls.pair(code, address)
    await controls.uplink.sync_now()
    return await _status(request)


async def _sync(request: web.Request) -> web.Response:
    controls = request.app[CONTROLS]
    await controls.uplink.sync_now()
    return await _status(request)


async def _settings(request: web.Request) -> web.Response:
    return web.json_response(request.app[CONTROLS].settings.say())


async def _set(request: web.Request) -> web.Response:
    controls = request.app[CONTROLS]
    said = await asyncio.to_thread(controls.settings.change, await _json(request))
    controls.uplink.changed()
    return web.json_response(said)


async def _peers(request: web.Request) -> web.Response:
    return web.json_response({"peers": request.app[CONTROLS].peers()})


async def _export(request: web.Request) -> web.StreamResponse:
    after = _numbers((await _json(request)).get("after"))
    export = await asyncio.to_thread(Export, request.app[CONTROLS].terminal, after)
    counts = {DELTAS_HEADER: str(export.deltas), UNSEALED_HEADER: str(export.unsealed)}
    response = web.StreamResponse(headers=counts)
    await response.prepare(request)
    parts = export.parts()
    try:
        while part := await asyncio.to_thread(next, parts, b""):
            await response.write(part)
    except ConnectionError:  # its stick is full or was pulled, and it says so itself
        log.warning("an export ended early: who asked for it has broken off")
    except (EdgeError, LedgerError) as error:
        # The answer has begun, so it can only be broken off: a file without its end is noticed as such.
        log.warning("an export ended early: %s", error)
        if request.transport is not None:
            request.transport.abort()
    return response


async def _import(request: web.Request) -> web.Response:
    importing = Import(request.app[CONTROLS].terminal)
    try:
        async for chunk in request.content.iter_chunked(CHUNK_BYTES):
            await asyncio.to_thread(importing.take, chunk)
    except ConnectionError:  # its file cannot be read any further, and it says so itself
        log.warning("an import ended early: who sent it has broken off; what was merged before stays")
        return _error(HTTPStatus.BAD_REQUEST, "cut_short", "The file did not come to its end.")
    return web.json_response(await asyncio.to_thread(importing.end))


def _numbers(given: object) -> dict[ReplicaId, int] | None:
    """{replica in hex: number}. Raises HTTPBadRequest."""
    if given is None:
        return None
    if not isinstance(given, dict):
        given = {"": ""}
    try:
        return {ReplicaId(bytes.fromhex(replica)): int(seq) for replica, seq in given.items()}
    except (ValueError, TypeError):
        raise web.HTTPBadRequest(text='"after" maps replicas in hex to numbers, or is null.') from None


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.text())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="The request is not a JSON object.")
    return body


_STATUS_OF: tuple[tuple[type[EdgeError], HTTPStatus, str], ...] = (
    (CodeRefused, HTTPStatus.FORBIDDEN, "code"),
    (HubImpostor, HTTPStatus.FORBIDDEN, "impostor"),
    (PairedElsewhere, HTTPStatus.CONFLICT, "paired_elsewhere"),
    (PairingRefused, HTTPStatus.BAD_GATEWAY, "refused"),
    (HubUnreachable, HTTPStatus.BAD_GATEWAY, "unreachable"),
    (SettingNotTaken, HTTPStatus.BAD_REQUEST, "setting"),
    (EdgeError, HTTPStatus.CONFLICT, "trouble"),
)


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _error(HTTPStatus(error.status), "request", error.text or error.reason)
    except EdgeError as error:
        status, code = next((status, code) for kind, status, code in _STATUS_OF if isinstance(error, kind))
        return _error(status, code, str(error))
    except LedgerError as error:
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, "ledger", str(error))


def _error(status: HTTPStatus, code: str, message: str) -> web.Response:
    return web.json_response({"error": code, "message": message}, status=status)
