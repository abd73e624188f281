"""Live events: bounded for the hub, and a slow page is told to reload instead of missing something."""

import asyncio

import pytest

from hub.events import (
    MAX_EVENT_SUBJECTS,
    MAX_SUBSCRIBERS,
    MAX_WAITING_EVENTS,
    Event,
    EventBus,
    TooManySubscribers,
    Topic,
)


async def test_every_subscriber_hears_what_happens_while_it_listens() -> None:
    bus = EventBus()
    bus.publish(Topic.FLEET)
    with bus.subscribe() as one, bus.subscribe() as two:
        bus.publish(Topic.LEDGER, ("04a1",))
        assert await anext(one) == await anext(two) == Event(Topic.LEDGER, ("04a1",))
    bus.publish(Topic.LEDGER)


async def test_somebody_hears_while_a_page_is_open() -> None:
    """What the ledger tells is not brought to the event loop for nobody, and for whoever is there."""
    bus = EventBus()
    heard = [bus.heard]
    with bus.subscribe():
        heard.append(bus.heard)
    assert [*heard, bus.heard] == [False, True, False]


async def test_a_waiting_subscriber_is_woken() -> None:
    bus = EventBus()
    with bus.subscribe() as events:
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        bus.publish(Topic.TERMINALS)
        assert await waiting == Event(Topic.TERMINALS)


async def test_repeated_events_wait_once() -> None:
    bus = EventBus()
    with bus.subscribe() as events:
        for _ in range(10 * MAX_WAITING_EVENTS):
            bus.publish(Topic.LEDGER)
        bus.close()
        assert [event async for event in events] == [Event(Topic.LEDGER)]


async def test_a_slow_subscriber_is_told_to_reload_and_costs_no_more_memory() -> None:
    bus = EventBus()
    with bus.subscribe() as events:
        for number in range(MAX_WAITING_EVENTS + 1):
            bus.publish(Topic.LEDGER, (str(number),))
        bus.publish(Topic.CARDS)
        bus.close()
        assert [event async for event in events] == [Event(Topic.RELOAD), Event(Topic.CARDS)]


async def test_an_event_about_very_many_cards_is_about_any() -> None:
    bus = EventBus()
    with bus.subscribe() as events:
        bus.publish(Topic.LEDGER, tuple(str(number) for number in range(MAX_EVENT_SUBJECTS + 1)))
        assert await anext(events) == Event(Topic.LEDGER)


async def test_nothing_to_say_is_none_and_the_end_is_the_end() -> None:
    bus = EventBus()
    with bus.subscribe() as events:
        assert await events.next(0.001) is None
        bus.close()
        with pytest.raises(StopAsyncIteration):
            await events.next(60)


async def test_too_many_live_pages_are_refused() -> None:
    bus = EventBus()
    listening = [bus.subscribe() for _ in range(MAX_SUBSCRIBERS)]
    for subscription in listening:
        subscription.__enter__()
    with pytest.raises(TooManySubscribers), bus.subscribe():
        pass
    listening[0].__exit__(None, None, None)
    with bus.subscribe():
        pass
