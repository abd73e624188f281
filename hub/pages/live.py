"""Live pages: each has named parts; when the hub says that something changed, the parts that look different
are sent again over server-sent events (WHATWG HTML, section 9.2). The state is sent, never the change: a lost
or merged event costs nothing, a page that comes back after an hour needs nothing replayed, and a slow reader
can simply be dropped.

The id of each message names the parts the browser then has, so that a browser that reconnects by itself
(Last-Event-ID) gets only what differs.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from crdt.errors import LedgerError
from hub.errors import RequestRefused
from hub.events import Event, Subscription, TooManySubscribers, Topic
from hub.keys import EVENTS, OPERATORS
from hub.operators import csrf_token
from hub.pages.render import part

log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0  # live.js gives a stream up after 50 s of silence
SETTLE_S = 0.2  # a burst of events is drawn once
REST = 20  # a page rests so many times as long as it took to read and draw: 5 % of the hub each, at most
MAX_REST_S = 30.0  # and not so long that live.js gives the stream up
SEND_TIMEOUT_S = 20.0  # a browser that takes nothing for so long is dropped; it comes back by itself
RETRY_MS = 3_000  # how soon the browser should come back
MAX_ID_LENGTH = 200


@dataclass(frozen=True)
class LiveView:
    """A page with live parts: ``parts`` maps each one's name to its template, ``context`` has what they show.

    ``topics`` are what can change it; ``subject`` names the one card the page is about, if it is about one.
    """

    parts: Mapping[str, str]
    context: Callable[[web.Request], Awaitable[dict[str, Any]]]
    topics: frozenset[Topic]
    subject: Callable[[web.Request], str] = lambda _request: ""

    def concerns(self, event: Event, request: web.Request) -> bool:
        """Whether this page may look different after the event."""
        if event.topic is Topic.RELOAD:
            return True
        subject = self.subject(request).casefold()
        named = {name.casefold() for name in event.subjects}
        return event.topic in self.topics and (not subject or not named or subject in named)


class Stream:
    """One browser's open stream: remembers what the browser has and sends what differs."""

    def __init__(self, view: LiveView, request: web.Request) -> None:
        self._view = view
        self._request = request
        self._response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"}
        )
        self._taken_s = 0.0  # by the last drawing and its reading
        self._shown = _known(request.headers.get("Last-Event-ID", ""))

    async def run(self, events: Subscription) -> web.StreamResponse:
        """Serve until the browser goes, the session ends or the hub stops."""
        await self._view.context(self._request)  # a page that cannot be shown is refused before it opens
        with suppress(ConnectionError):  # the browser went, or was dropped; there is nobody to tell
            await self._response.prepare(self._request)
            try:
                await self._serve(events)
            except (RequestRefused, LedgerError):
                # Too late for an answer; the browser sees the stream end, comes back, and is told then.
                log.exception("a live page ended early")
        return self._response

    async def _serve(self, events: Subscription) -> None:
        await self._send(f"retry: {RETRY_MS}\n\n")
        while await self._request.app[OPERATORS].signed_in(self._request):
            if not await self._send_parts():
                await self._send("event: beat\ndata: alive\n\n")
            if not await self._changed(events):
                return
        await self._send("event: reload\ndata: session\n\n")

    async def _changed(self, events: Subscription) -> bool:
        """Wait for something that concerns this page, or for a heartbeat; False when the hub stops."""
        loop = asyncio.get_running_loop()
        beat = loop.time() + HEARTBEAT_S
        try:
            while (event := await events.next(max(0.0, beat - loop.time()))) is not None:
                if self._view.concerns(event, self._request):
                    await asyncio.sleep(resting_s(self._taken_s))
                    while await events.next(0) is not None:
                        pass  # the parts are drawn afresh anyway
                    break
        except StopAsyncIteration:
            return False
        return True

    async def _send_parts(self) -> bool:
        began_s = time.perf_counter()
        context = await self._view.context(self._request) | {"csrf": csrf_token(self._request)}
        drawn = {name: part(template, context) for name, template in self._view.parts.items()}
        self._taken_s = time.perf_counter() - began_s
        sent = False
        for name, html in drawn.items():
            if self._shown.get(name) == (mark := _mark(html)):
                continue
            self._shown[name] = mark
            data = json.dumps({"name": name, "html": html})
            await self._send(f"id: {_id(self._shown)}\nevent: part\ndata: {data}\n\n")
            sent = True
        return sent

    async def _send(self, text: str) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._response.write(text.encode())
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("The browser does not read its live page.") from None


def resting_s(taken_s: float) -> float:
    """How long a page that took so long to read and draw is left as it is, though something has changed."""
    return min(max(SETTLE_S, taken_s * REST), MAX_REST_S)


def stream(views: Mapping[str, LiveView]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of GET /events?view=NAME: keeps the parts of one live page current."""

    async def events(request: web.Request) -> web.StreamResponse:
        view = views.get(request.query.get("view", ""))
        if view is None:
            raise RequestRefused("unknown_view", "There is no such live page.", 404)
        try:
            with request.app[EVENTS].subscribe() as subscription:
                return await Stream(view, request).run(subscription)
        except TooManySubscribers:
            raise RequestRefused(
                "busy", "Too many live pages are open. Close one and reload this one.", 503
            ) from None

    return events


def _mark(html: str) -> str:
    return hashlib.blake2b(html.encode(), digest_size=6).hexdigest()


def _id(shown: Mapping[str, str]) -> str:
    return " ".join(f"{name}:{mark}" for name, mark in shown.items())


def _known(last_event_id: str) -> dict[str, str]:
    if len(last_event_id) > MAX_ID_LENGTH:
        return {}
    pairs = (item.partition(":") for item in last_event_id.split())
    return {name: mark for name, _, mark in pairs}
