"""Live pages: the state comes by itself, and neither a slow reader nor an ended session stays on."""

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from crdt.facts import Kind
from hub.app import Hub
from hub.events import EventBus, Topic
from hub.keys import EVENTS, OPERATORS
from hub.operators import SESSION_COOKIE, Operators
from hub.pages import dashboard, live
from hub.sessions import Sessions
from tests.hub.conftest import PASSWORD, Depot, running
from tests.hub.pages.world import Visitor, operator
from tests.hub.terminal import CARD


@dataclass(frozen=True)
class Message:
    """One server-sent event."""

    event: str
    data: str
    id: str

    @property
    def part(self) -> str:
        """The name of the part that the message brings."""
        return str(json.loads(self.data)["name"])

    @property
    def html(self) -> str:
        return str(json.loads(self.data)["html"])


class Stream:
    """An open stream of server-sent events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def next(self) -> Message | None:
        """The next event; None at the stream's end."""
        fields: dict[str, str] = {}
        async for line in self._response.content:
            text = line.decode().rstrip("\n")
            if not text and "data" in fields:
                return Message(fields.get("event", ""), fields["data"], fields.get("id", ""))
            name, _, value = text.partition(": ")
            if text:
                fields[name] = value
        return None

    async def until(self, part: str, text: str) -> Message:
        """The next message that brings this text in this part."""
        while (message := await self.next()) is not None:
            if message.event == "part" and message.part == part and text in message.html:
                return message
        raise AssertionError(f"the stream ended before {part} said {text!r}")


@asynccontextmanager
async def listening(person: Visitor, view: str, last_id: str = "") -> AsyncIterator[Stream]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    async with person.session.get(f"/events?view={view}", headers=headers) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store"
        yield Stream(response)


async def test_a_tap_arrives_by_itself(depot: Depot) -> None:
    """Issue: "a live dashboard page ... over server-sent events"."""
    bus = await depot.pair("Bus 12")
    async with operator(depot) as person, listening(person, "overview") as stream:
        await stream.until("taps", "No taps yet.")
        await bus.push(bus.taps(500, kind=Kind.OPENING))
        await stream.until("taps", CARD.hex().upper())
        await bus.push(bus.taps(-250))
        await stream.until("taps", "−2.50")


async def test_a_card_page_follows_its_card(depot: Depot) -> None:
    bus, card = await depot.pair("Bus 12"), CARD.hex().upper()
    async with operator(depot) as person, listening(person, f"card&card={card}") as stream:
        await stream.until("history", "Nothing has happened on this card.")
        await bus.push(bus.taps(1250, kind=Kind.OPENING))
        await stream.until("balance", "12.50")
        await person.post(f"/cards/{card}/block", {}, form=f"/cards/{card}")
        await stream.until("block", "Unblock this card")


async def test_a_browser_that_comes_back_gets_only_what_differs(depot: Depot) -> None:
    """The id of a message names what the browser has: a lost connection costs no repetition."""
    async with operator(depot) as person:
        async with listening(person, "overview") as stream:
            last = [await stream.next() for _ in dashboard.OVERVIEW_VIEW.parts][-1]
            assert last is not None
        async with listening(person, "overview", last.id) as stream:
            message = await stream.next()
            assert message is not None
            assert message.event == "beat"
        async with listening(person, "overview", "x" * 500) as stream:
            message = await stream.next()
            assert message is not None
            assert message.event == "part"


async def test_the_stream_ends_with_the_session(depot: Depot) -> None:
    bus = await depot.pair("Bus 12")
    async with operator(depot) as person, listening(person, "overview") as stream:
        await stream.until("taps", "No taps yet.")
        await depot.ask("POST", "/password", {"password": PASSWORD + " 2"})
        assert (await person.get("/")).status == 303
        await bus.push(bus.taps(500, kind=Kind.OPENING))
        message = await stream.next()
        while message is not None and message.event == "part":
            message = await stream.next()
        assert message is not None
        assert message.event == "reload"
        assert await stream.next() is None


async def test_unknown_live_page_is_refused(depot: Depot) -> None:
    async with operator(depot) as person, person.session.get("/events?view=secrets") as response:
        assert response.status == 404
    async with operator(depot) as person, person.session.get("/events?view=card&card=x") as response:
        assert response.status == 400


async def test_a_hub_that_stops_ends_its_live_pages(founded: Hub) -> None:
    """An open dashboard does not hold up a restart: its stream ends, whole, and is not cut off."""
    async with AsyncExitStack() as browser:
        async with running(founded) as depot:
            person = await browser.enter_async_context(operator(depot))
            stream = await browser.enter_async_context(listening(person, "overview"))
            await stream.until("taps", "No taps yet.")
        assert await stream.next() is None


async def test_a_page_that_is_dear_to_read_is_read_seldom(
    founded: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rest is for the reading too: an overview of many terminals costs far more to read than to draw."""
    monkeypatch.setattr(live, "REST_OF_READING", 5)
    sessions = Sessions(founded.database, 60, 60, lambda: 0, os.urandom)
    token, loop, bus = await sessions.begin(), asyncio.get_running_loop(), EventBus()
    readings: list[tuple[float, float]] = []

    async def dear(_request: web.Request) -> dict[str, Any]:
        began_s = loop.time()
        await asyncio.sleep(0.1)
        readings.append((began_s, loop.time()))
        bus.publish(Topic.LEDGER)
        return {"title": "", "text": str(len(readings))}

    view = live.LiveView({"text": "error.html"}, dear, frozenset({Topic.LEDGER}))
    app = web.Application()
    app[EVENTS] = bus
    app[OPERATORS] = Operators(founded.database, sessions, b"k" * 32, 5, time.monotonic)
    app.router.add_get("/events", live.stream({"dear": view}))
    cookies = {"Cookie": f"{SESSION_COOKIE}={token}"}
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession(server.make_url("/"), headers=cookies) as browser,
        browser.get("/events?view=dear") as response,
    ):
        for _ in range(3):
            await Stream(response).next()
    shown = readings[1:]  # the first is for whether there is such a page at all
    assert all(after[0] - before[1] >= 0.5 for before, after in itertools.pairwise(shown))
    assert len(shown) >= 3


async def test_a_browser_that_does_not_read_is_dropped(founded: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 8: memory stays bounded. The slow one comes back by itself and gets the state afresh."""
    monkeypatch.setattr(live, "SEND_TIMEOUT_S", 0.1)
    sessions = Sessions(founded.database, 60, 60, lambda: 0, os.urandom)
    token, ended = await sessions.begin(), asyncio.Event()

    async def large(_request: web.Request) -> dict[str, Any]:
        return {"title": "", "text": "x" * 16_000_000}

    view = live.LiveView({"large": "error.html"}, large, frozenset())

    async def events(request: web.Request) -> web.StreamResponse:
        try:
            return await live.stream({"large": view})(request)
        finally:
            ended.set()

    app = web.Application()
    app[EVENTS] = EventBus()
    app[OPERATORS] = Operators(founded.database, sessions, b"k" * 32, 5, time.monotonic)
    app.router.add_get("/events", events)
    async with TestServer(app) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        cookie = f"Cookie: {SESSION_COOKIE}={token}"
        writer.write(f"GET /events?view=large HTTP/1.1\r\nHost: hub\r\n{cookie}\r\n\r\n".encode())
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        await ended.wait()
        with suppress(ConnectionError):
            while await reader.read(1_000_000):
                pass
        assert reader.at_eof() or reader.exception() is not None
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
