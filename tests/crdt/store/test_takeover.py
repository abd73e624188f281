"""What a new identity takes over from the one before: taps that were not sealed, if it may write them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.certificate import Limits
from crdt.errors import MisuseError, NotPermitted
from crdt.facts import CERTIFIED, Draft, Kind
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, OpenTerminal, card
from tests.crdt.store.recoveries import FARE, NEW, deliver, suspended, tap


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and two terminals with high-water marks."""
    fleet = Fleet(tmp_path, 2, marked=True)
    yield fleet
    fleet.close()


def test_taps_that_are_not_sealed_keep_an_identity_that_could_seal_them(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    tap(one, 1)
    with pytest.raises(MisuseError, match="seal the open taps"):
        one.become(NEW)
    one.ledger.suspend()
    assert one.ledger.seal() is None
    one.become(NEW)
    assert not suspended(one)


def test_invariant_10_a_new_identity_takes_over_only_what_it_may_write(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    one.write(card(1), [Draft(Kind.OPENING, 500), FARE])
    one.ledger.suspend()
    old = one.author
    modest = world.terminal(8, Limits(frozenset({Kind.FARE}), 0, 300, 0))
    with pytest.raises(NotPermitted, match="does not allow a OPENING of 500"):
        one.become(modest)
    one.author = old
    one.reopen()
    assert suspended(one)
    assert one.ledger.status()["open"] == 2


def test_invariant_10_an_allowance_that_does_not_suffice_is_said_and_loses_nothing(fleet: Fleet) -> None:
    """What cannot be sealed stays in the open segment, and the next identity's allowance can seal it."""
    one = fleet.terminals[0]
    for number in range(3):
        one.write(card(number), [Draft(Kind.OPENING, 500)])
    one.ledger.suspend()
    one.become(world.terminal(8, Limits(CERTIFIED, 500, 500, 1_200)))
    assert one.ledger.credit_left() == -300
    assert one.ledger.status()["credit_left"] == -300
    with pytest.raises(NotPermitted, match="may give 1200 minor units of credit in all"):
        one.ledger.seal()
    with pytest.raises(NotPermitted):
        one.write(card(9), [Draft(Kind.OPENING, 1)])
    tap(one, 5)
    one.ledger.retire()
    assert suspended(one)
    one.become(NEW)
    deliver(fleet, one)
    assert one.ledger.status()["open"] == 0
    assert fleet.hub.books().result().deltas_minor == 1_250


def test_invariant_10_a_tap_may_not_give_more_credit_than_is_left(tmp_path: Path) -> None:
    author = world.terminal(8, Limits(CERTIFIED, 500, 500, 1_200))
    terminal = OpenTerminal(author, tmp_path / "terminal.db")
    terminal.write(card(1), [Draft(Kind.OPENING, 500), FARE])
    terminal.ledger.seal()
    terminal.write(card(2), [Draft(Kind.OPENING, 500)])
    assert terminal.ledger.credit_left() == 200
    with pytest.raises(NotPermitted, match="and this would make it 1500"):
        terminal.write(card(3), [Draft(Kind.OPENING, 500)])
    terminal.reopen()
    assert terminal.ledger.credit_left() == 200
    terminal.write(card(3), [Draft(Kind.OPENING, 200)])
    assert terminal.ledger.seal() is not None
    terminal.close()
