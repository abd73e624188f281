"""The demo's page: one document, its live state as server-sent events, and the visitor's actions.

Plain HTTP, on loopback only. Nobody but the person who started the demo can use it: the address carries a
random token, and another site's page in the same browser is stopped by the Host and Origin checks.
"""

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jinja2
from aiohttp import web

from .errors import DemoError
from .stage import Stage

log = logging.getLogger(__name__)

HERE: Final = Path(__file__).parent
STAGE: Final = web.AppKey("stage", Stage)
TOKEN: Final = web.AppKey("token", str)
DOCUMENT: Final = web.AppKey("document", str)
TEMPLATE: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True
).get_template("demo.html")

MAX_BODY_BYTES: Final = 4096
MAX_LIVE_PAGES: Final = 16
KEEPALIVE_S: Final = 10.0
STATIC: Final[Mapping[str, str]] = {
    "demo.css": "text/css",
    "demo.js": "text/javascript",
    "drag.js": "text/javascript",
    "render.js": "text/javascript",
    "mark.svg": "image/svg+xml",
}
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_page(stage: Stage, token: str, document: Mapping[str, str]) -> web.Application:
    """The page's application. `document`: dashboard_url and password, shown to the visitor."""
    app = web.Application(middlewares=[_guard], client_max_size=MAX_BODY_BYTES)
    app[STAGE], app[TOKEN] = stage, token
    app[DOCUMENT] = TEMPLATE.render(document)
    app.add_routes(
        [
            web.get("/{token}/", _document),
            web.get("/{token}/static/{name}", _static),
            web.get("/{token}/events", _events),
            web.post("/{token}/act", _act),
        ]
    )
    return app


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lets in who knows the token and asks for a loopback name; sets every answer's headers."""
    try:
        _check(request)
        response = await handler(request)
    except web.HTTPException as refusal:
        refusal.headers.update(HEADERS)
        raise
    if not response.prepared:
        response.headers.update(HEADERS)
    return response


def _check(request: web.Request) -> None:
    if (urlsplit(f"//{request.host}").hostname or "") not in {"127.0.0.1", "localhost"}:
        raise web.HTTPForbidden(text="This page is for the machine it runs on.")
    token = request.match_info.get("token", "")
    if not hmac.compare_digest(token.encode(errors="replace"), request.app[TOKEN].encode()):
        raise web.HTTPNotFound(text="Open the address that the demo printed; it ends in a secret word.")
    if request.method == "POST" and request.headers.get("Origin") != f"http://{request.host}":
        raise web.HTTPForbidden(text="Another site may not use this page.")


async def _document(request: web.Request) -> web.Response:
    return web.Response(text=request.app[DOCUMENT], content_type="text/html")


async def _static(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in STATIC:
        raise web.HTTPNotFound
    text = await asyncio.to_thread((HERE / "static" / name).read_text, encoding="utf-8")
    return web.Response(text=text, content_type=STATIC[name])


async def _events(request: web.Request) -> web.StreamResponse:
    """Snapshots for as long as the page is open; each one whole, so that a lost one is no harm."""
    board = request.app[STAGE].board
    if board.readers >= MAX_LIVE_PAGES:
        raise web.HTTPServiceUnavailable(text="Too many pages of this demo are open.")
    response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
    await response.prepare(request)
    with suppress(ConnectionError), board.reading():
        version = 0
        while (news := await board.next(version, KEEPALIVE_S)) is not None:
            if news.version == version:
                await response.write(b": still here\n\n")
                continue
            version = news.version
            await response.write(b"event: snapshot\ndata: " + json.dumps(news.content).encode() + b"\n\n")
    return response


async def _act(request: web.Request) -> web.Response:
    """One action; the answer is {"message": ...} when there is something to say at once."""
    try:
        action = await request.json()
    except ValueError:
        raise web.HTTPBadRequest(text="An action is a JSON object.") from None
    if not isinstance(action, dict):
        raise web.HTTPBadRequest(text="An action is a JSON object.")
    try:
        return web.json_response(await perform(request.app[STAGE], action))
    except DemoError as error:
        return web.json_response({"message": str(error)}, status=409)


async def perform(stage: Stage, action: Mapping[str, Any]) -> dict[str, str]:
    """Does what an action's name says; DemoError for one that does not exist or cannot be done now."""
    name, bus, card = (str(action.get(key, "")) for key in ("action", "bus", "card"))
    if name == "new-card":
        return {"card": stage.new_card()}
    if name == "present":
        await stage.present(bus, card)
    elif name in {"cut", "restore"}:
        stage.set_network(bus, connected=name == "restore")
    elif name == "kill":
        await stage.kill(bus)
    elif name == "start":
        await stage.restart(bus)
    else:
        raise DemoError(f"There is no action {name!r}.")
    return {}
