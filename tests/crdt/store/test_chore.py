"""Background work, and whom it tells of what it did."""

from collections.abc import Iterator

import pytest

from crdt.facts import CardId
from crdt.store.hub import HubLedger
from crdt.store.hub_schema import HUB_METADATA
from crdt.store.inline import InlineDatabase
from crdt.store.recording import Change
from tests.crdt import world
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.test_overdrawn import OTHER, rides


@pytest.fixture
def database() -> Iterator[InlineDatabase]:
    """Its work in the background waits until it is run."""
    with InlineDatabase.open(None, KEY, eager=False) as opened:
        opened.create(HUB_METADATA)
        yield opened


def hub_on(database: InlineDatabase, heard: list[CardId]) -> HubLedger:
    hub = HubLedger(database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB)

    def hear(change: Change) -> None:
        if change.position:
            heard.extend(change.cards)

    hub.on_commit(hear)
    return hub


def test_what_a_ledger_had_begun_is_done_and_told_by_the_one_after_it(database: InlineDatabase) -> None:
    """A hub that was put back begins twice, as it gets a new key: nobody hears the first one any more."""
    first: list[CardId] = []
    second: list[CardId] = []
    hub = hub_on(database, first)
    hub.merge(rides(1), [OTHER.certificate]).result()
    hub.set_floor(0).result()
    hub.close()
    assert first == [card(1)], "by the merge; no card has been judged so far"
    hub = hub_on(database, second)
    while database.run_background():
        pass
    assert hub.overdrawn().result() == 1
    assert (first, second) == ([card(1)], [card(1)])
    hub.close()
    assert database.run_background() == 0
