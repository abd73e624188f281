"""Invariants 3 and 10: a hub that may not write one fact that is due still writes all the others.

An earlier identity may have had another certificate, and adopted what this one may not give back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from crdt.block import Block
from crdt.certificate import AuthorCertificate, Limits, issue
from crdt.facts import Kind
from crdt.store import said_again
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from crdt.store.resolutions import ADOPTED, UNDONE
from tests.crdt import world
from tests.crdt.store.branches import OTHER, as_of, facts, renewed
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.quarantined import at_rest, in_quarantine

EARLIER: Final = renewed(world.Terminal(world.HUB_KEY, world.HUB), b"O")
LATER: Final = renewed(EARLIER, b"P")
AGAIN: Final = renewed(OTHER)
RIDES: Final = facts((1, Kind.FARE, -70), (2, Kind.FARE, -30), author=OTHER)
COPIES: Final = EARLIER.blocks(as_of(RIDES, EARLIER), [])
MODEST: Final = {
    "at once": replace(world.HUB.limits, max_credit_minor=50),
    "in all": replace(world.HUB.limits, allowance_minor=50),
}


@contextmanager
def hub_with(database: Database, author: world.Terminal, limits: Limits) -> Iterator[HubLedger]:
    """The fleet's hub under this identity, which may write so much."""
    before = author.certificate
    certificate = issue(world.FLEET_KEY, before.terminal, before.name, before.role, before.public_key, limits)
    hub = HubLedger(database, world.FLEET_KEY.public_key, author.key, certificate)
    try:
        yield hub
        at_rest(hub)
    finally:
        hub.close()


def give(hub: HubLedger, author: AuthorCertificate, *blocks: Block) -> None:
    """Merge them; wait until the hub has compared."""
    hub.merge([block.raw for block in blocks], [author]).result()
    at_rest(hub)


def in_the_record(hub: HubLedger) -> None:
    """The terminal's own count, and nothing in quarantine says what was copied."""
    give(hub, OTHER.certificate, *OTHER.blocks(RIDES, []))


def in_quarantine_and_again(hub: HubLedger) -> None:
    """The hub had adopted a branch, and the terminal's new identity writes it again."""
    give(hub, OTHER.certificate, *OTHER.blocks(facts((4, Kind.FARE, -1), author=OTHER), []))
    give(hub, OTHER.certificate, *OTHER.blocks(RIDES, []))
    give(hub, AGAIN.certificate, *AGAIN.blocks(as_of(RIDES, AGAIN), []))
    assert {entry.resolution for entry in in_quarantine(hub).result()} == {ADOPTED}


def balances(hub: HubLedger) -> list[int]:
    """Of the cards that rode."""
    return [hub.balance(card(number)).result() for number in (1, 2)]


@pytest.mark.parametrize("limits", MODEST.values(), ids=MODEST.keys())
@pytest.mark.parametrize("come", [in_the_record, in_quarantine_and_again])
def test_what_may_not_be_written_is_told_and_the_rest_is_written(
    come: Callable[[HubLedger], None], limits: Limits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All comparing failed at the one fact, each time again, until an identity came that may write it."""
    with Database.open(tmp_path / "hub.db", KEY) as database:
        with hub_with(database, world.Terminal(world.HUB_KEY, world.HUB), limits) as hub:
            give(hub, EARLIER.certificate, *COPIES)
            come(hub)
            assert balances(hub) == [-140, -30]
        assert "does not let it write 1 of the facts that are due" in caplog.text
        with hub_with(database, LATER, world.HUB.limits) as hub:
            at_rest(hub)
            assert balances(hub) == [-70, -30]
            assert {entry.resolution for entry in in_quarantine(hub).result()} <= {UNDONE}


@pytest.mark.parametrize("limits", MODEST.values(), ids=MODEST.keys())
def test_what_it_may_not_take_back_of_a_ride_that_is_there_twice_waits_for_an_identity_that_may(
    limits: Limits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays noted. Nothing else would tell of it when nobody brings anything any more."""
    with Database.open(tmp_path / "hub.db", KEY) as database:
        with hub_with(database, world.Terminal(world.HUB_KEY, world.HUB), limits) as hub:
            for author in (OTHER, AGAIN):
                give(hub, author.certificate, *author.blocks(as_of(RIDES, author), []))
            assert balances(hub) == [-140, -30]
            assert database.read_and_wait(said_again.are_noted)
        assert "does not let it write 1 of the facts that are due" in caplog.text
        with hub_with(database, LATER, world.HUB.limits) as hub:
            at_rest(hub)
            assert balances(hub) == [-70, -30]
            assert not database.read_and_wait(said_again.are_noted)
