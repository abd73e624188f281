"""An operator's correction takes nothing back that was adopted, at whatever moment it is booked."""

from contextlib import closing
from pathlib import Path

from crdt.certificate import Limits
from crdt.documents import SignedDocument
from crdt.facts import Context, Delta, Draft, Kind
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from tests.crdt import world
from tests.crdt.store.branches import caught_up, give
from tests.crdt.store.depots import SOLD_ON, Depot
from tests.crdt.store.fleet import Fleet, card
from tests.crdt.store.quarantined import at_rest

DESK = Context("", "", "desk")
AT_MS = 6_000


def test_invariant_10_nobody_makes_money_of_a_correction_by_claiming_what_it_corrects(fleet: Fleet) -> None:
    """A seller beyond its cut-off brings the contrary of an operator's correction: the hub books nothing."""
    seller = world.terminal(78, Limits(frozenset({Kind.FARE, Kind.TOPUP}), 500_000, 500_000, 100))
    fleet.hub.enrol(seller.certificate).result()
    fleet.hub.append(card(1), [Draft(Kind.ADJUSTMENT, -300_000)], AT_MS, DESK).result()
    caught_up(fleet.hub)
    ended = Revocations().with_replaced({seller.key.replica: 0}).encode()
    fleet.hub.put_document(
        SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, ended)
    ).result()
    contrary = Delta(seller.key.replica, 1, card(1), Kind.TOPUP, 300_000, AT_MS, DESK)
    give(fleet.hub, *seller.blocks([contrary], [1]))
    at_rest(fleet.hub)
    assert fleet.hub.balance(card(1)).result() == -300_000


def test_a_correction_at_the_moment_of_a_lost_sale_is_one(tmp_path: Path) -> None:
    """With the clock set back, and the sale adopted later: both count."""
    with closing(Depot(tmp_path)) as depot:
        depot.hub.append(SOLD_ON, [Draft(Kind.TOPUP, 1000)], AT_MS).result()
        depot.go_back(noticed=False)
        depot.hub.append(SOLD_ON, [Draft(Kind.ADJUSTMENT, -1000)], AT_MS).result()
        depot.bring_back()
        depot.restart()
        depot.adopt()
        assert depot.believes()[9] == 0
