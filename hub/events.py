"""The live event bus: the ledger and the registry say what changed, pages hear it.

An event is a nudge, not a record: it says what to look at again, and the page asks `Overview` for the new
state. So an event may be merged with others or lost without harm, and a busy hour costs a page no more than
it wants to redraw. `publish` is for the event loop's thread only.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

MAX_WAITING_EVENTS = 64  # events a subscriber may be behind before it is told to reload
MAX_SUBSCRIBERS = 256  # open live pages; the server's connection cap is the outer bound
MAX_EVENT_SUBJECTS = 64  # cards or terminals named in one event; beyond that the event names none


class Topic(StrEnum):
    """What changed. The value is the name of the server-sent event."""

    LEDGER = "ledger"  # blocks merged or money booked at the hub: balances, history, latest taps, totals
    TERMINALS = "terminals"  # a terminal reported, was paired, was revoked, came or went
    CARDS = "cards"  # a card was blocked or unblocked
    FLEET = "fleet"  # fares or policy changed
    RELOAD = "reload"  # this subscriber was too slow and missed events: read everything again


@dataclass(frozen=True, slots=True)
class Event:
    """`subjects`: the cards (LEDGER, CARDS) or terminals (TERMINALS) concerned, in hex; empty means "any"."""

    topic: Topic
    subjects: tuple[str, ...] = ()


class TooManySubscribers(Exception):
    """Too many live pages are open; close one."""


class EventBus:
    """Fans events out to subscribers, each behind a bounded queue."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    @property
    def heard(self) -> bool:
        """Whether anybody would hear an event now; for any thread."""
        return bool(self._subscriptions)

    def publish(self, topic: Topic, subjects: tuple[str, ...] = ()) -> None:
        """Tell every subscriber; never waits, never raises for a slow one."""
        if len(subjects) > MAX_EVENT_SUBJECTS:
            subjects = ()
        event = Event(topic, subjects)
        for subscription in self._subscriptions:
            subscription.put(event)

    @contextmanager
    def subscribe(self) -> "Iterator[Subscription]":
        """`with bus.subscribe() as events: async for event in events: ...`; unsubscribes on the way out."""
        if len(self._subscriptions) >= MAX_SUBSCRIBERS:
            raise TooManySubscribers
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscription's iteration, so that open live pages finish and the server can stop."""
        for subscription in self._subscriptions:
            subscription.close()


class Subscription:
    """One listener's queue: an async iterator of events, which ends when the bus closes."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._closed = False
        self._wake = asyncio.Event()

    def put(self, event: Event) -> None:
        """Queue an event; equal waiting ones count once, and an overfull queue becomes one RELOAD."""
        if event not in self._waiting:
            self._waiting.append(event)
        if len(self._waiting) > MAX_WAITING_EVENTS:
            self._waiting.clear()
            self._waiting.append(Event(Topic.RELOAD))
        self._wake.set()

    def close(self) -> None:
        """End the iteration once the waiting events are read."""
        self._closed = True
        self._wake.set()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._waiting.popleft()

    async def next(self, timeout_s: float) -> Event | None:
        """The next event, or None when none came in `timeout_s` (time for a keep-alive comment).

        StopAsyncIteration when the bus closed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self.__anext__()
        except TimeoutError:
            return None
