"""What the ledger's writer thread tells of each commit, as events on the event loop's bus."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from crdt.store.hub import Change, HubLedger
from hub.cardids import card_text
from hub.events import MAX_EVENT_SUBJECTS, EventBus, Topic


@contextmanager
def live_events(ledger: HubLedger, bus: EventBus) -> Iterator[None]:
    """Hands the changes on until the block ends; within a running event loop."""
    loop = asyncio.get_running_loop()

    def changed(change: Change) -> None:
        if not bus.heard:  # waking the event loop for nobody costs as much as a small merge
            return
        told = change.replicas or change.history or change.suspects
        topic = Topic.LEDGER if told else Topic.CARDS
        cards = tuple(map(card_text, change.cards)) if len(change.cards) <= MAX_EVENT_SUBJECTS else ()
        loop.call_soon_threadsafe(bus.publish, topic, cards)

    stop = ledger.on_commit(changed)
    try:
        yield
    finally:
        stop()
