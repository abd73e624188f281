"""A chain gives way together with the list of revocations that ends it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.block import parse
from crdt.documents import SignedDocument
from crdt.errors import ChainBroken, ForeignFleet
from crdt.facts import FleetId, ReplicaId
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store.conceding import Conceded
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, card
from tests.crdt.store.recoveries import EVERYTHING, tap


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and two terminals."""
    fleet = Fleet(tmp_path, 2)
    yield fleet
    fleet.close()


def a_list(
    cut_offs: dict[ReplicaId, int], replaced: ReplicaId, fleet: FleetId = world.FLEET
) -> SignedDocument:
    body = Revocations(cut_offs, frozenset({replaced})).encode()
    return SignedDocument.seal(world.HUB_KEY, fleet, REVOKED_DOCUMENT, 1, body)


def test_a_list_that_comes_with_a_chain_cuts_off_others_with_it(fleet: Fleet) -> None:
    """Invariant 6: all that it says holds at once, and what was written again counts on."""
    one, other = fleet.terminals
    old, foreign = one.ledger.replica, other.ledger.replica
    for terminal in (one, other):
        for at_ms in (1, 2):
            tap(terminal, at_ms)
            terminal.ledger.seal()
    one.ledger.merge(other.ledger.blocks_after(0, EVERYTHING), [other.author.certificate])
    first, second = one.ledger.blocks_after(0, EVERYTHING, old)
    listed = a_list({old: 1, foreign: 1}, old)
    done = one.ledger.concede(old, [first], ended=True, listed=listed)
    assert done == Conceded(1, (parse(second).hash,))
    assert {replica: head.seq for replica, head in one.ledger.frontier().items()} == {old: 1, foreign: 1}
    views, held = [one.ledger.view(card(number)) for number in range(5)], one.ledger.held()
    assert held == (3, -750)
    assert one.ledger.concede(old, [first], ended=True, listed=listed) == Conceded(0, ())
    one.reopen()
    assert ([one.ledger.view(card(number)) for number in range(5)], one.ledger.held()) == (views, held)


def test_a_list_that_ends_a_chain_before_the_blocks_given_asks_for_earlier_ones(fleet: Fleet) -> None:
    """Invariant 4: what it cuts off there is written again as well, or nothing is done."""
    one = fleet.terminals[0]
    old = one.ledger.replica
    for at_ms in (1, 2, 3):
        tap(one, at_ms)
        one.ledger.seal()
    listed = a_list({old: 1}, old)
    chain = one.ledger.blocks_after(0, EVERYTHING, old)
    before = one.ledger.status(), one.ledger.digest()
    with pytest.raises(ChainBroken):
        one.ledger.concede(old, [], after_seq=2, ended=True, listed=listed)
    assert (one.ledger.status(), one.ledger.digest()) == before
    assert one.ledger.document(REVOKED_DOCUMENT) is None
    assert one.ledger.concede(old, chain[:1], ended=True, listed=listed).reissued == 2


def test_a_list_of_another_fleet_changes_nothing(fleet: Fleet) -> None:
    """Invariant 8: it is refused with the chain that it came with."""
    one = fleet.terminals[0]
    tap(one, 1)
    one.ledger.seal()
    before = one.ledger.status(), one.ledger.digest()
    listed = a_list({one.ledger.replica: 0}, one.ledger.replica, FleetId(bytes(16)))
    with pytest.raises(ForeignFleet):
        one.ledger.concede(one.ledger.replica, [], ended=True, listed=listed)
    assert (one.ledger.status(), one.ledger.digest()) == before
