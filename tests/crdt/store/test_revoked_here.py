"""The list of revocations on a terminal: for what it holds, merges and believes, and for itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.columns import encode
from crdt.documents import SignedDocument
from crdt.errors import InputRefused, RefusalCode, Revoked
from crdt.open_segment import OpenSegment
from crdt.revocations import REVOKED_DOCUMENT
from crdt.store import pruning
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, card, deltas_of
from tests.crdt.store.relays import EVERYTHING, FARE, blocks, revoked, ride


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and three terminals."""
    fleet = Fleet(tmp_path, 3)
    yield fleet
    fleet.close()


def test_a_revocation_holds_at_once_for_what_is_held_merged_and_believed(fleet: Fleet) -> None:
    """What a stolen terminal wrote after its cut-off stops counting; what it earned before counts on."""
    one, other, _ = fleet.terminals
    ride(one, 4)
    chain = blocks(one)
    other.ledger.merge([block.raw for block in chain[:3]], [one.author.certificate])
    other.write(card(9), [FARE])
    assert other.ledger.put_document(revoked(1, {one.ledger.replica: 2}))
    assert other.ledger.held() == (3, -750)
    assert other.ledger.frontier()[one.ledger.replica] == chain[1].head
    assert [entry.raw for entry in other.ledger.quarantined(9)] == [chain[2].raw]
    assert other.ledger.quarantined(9)[0].reason is RefusalCode.REVOKED
    report = other.ledger.merge([chain[2].raw, chain[3].raw])
    assert [type(each.error) for each in report.refused] == [Revoked, Revoked]
    with pytest.raises(Revoked):
        other.ledger.believe(
            one.ledger.replica, OpenSegment(chain[1].head, 1, encode(deltas_of(chain[2])).data)
        )
    assert not other.ledger.put_document(revoked(1, {}))
    before = other.ledger.status(), other.ledger.digest()
    other.reopen()
    assert (other.ledger.status(), other.ledger.digest()) == before
    assert other.ledger.revocations().cut_offs == {one.ledger.replica: 2}
    assert not other.ledger.suspended
    assert other.ledger.put_document(revoked(2, {}))
    assert len(other.ledger.merge([chain[2].raw, chain[3].raw]).added) == 2
    assert other.ledger.held() == (5, -1250)
    assert other.ledger.status()["quarantined"] == 0


def test_a_revoked_terminal_seals_no_more_and_uses_no_number_twice(fleet: Fleet) -> None:
    """Invariant 5, for one that is revoked by mistake and comes back as another."""
    one = fleet.terminals[0]
    ride(one, 3)
    head = one.ledger.own_head()
    one.ledger.put_document(revoked(1, {one.ledger.replica: 1}))
    assert one.ledger.suspended
    one.write(card(5), [FARE])
    assert one.ledger.seal() is None
    assert one.ledger.own_head() == head
    assert one.ledger.held() == (2, -500)
    one.reopen()
    assert one.ledger.suspended
    one.become(world.terminal(7))
    block = one.ledger.seal()
    assert block is not None
    assert [fact.card for fact in deltas_of(block)] == [card(5)]


@pytest.mark.parametrize("list_first", [True, False])
@pytest.mark.parametrize("held", [0, 2])
@pytest.mark.parametrize("cut_off", [4, 2, 0])
def test_what_was_only_settled_of_a_revoked_author_is_no_head_once_it_is_not(
    cut_off: int, held: int, list_first: bool, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 2: whoever knows its later facts from an earlier settlement alone agrees with the hub again,
    and has nothing to bring that it does not hold."""
    one, other, third = fleet.terminals
    for number in range(1, 4):
        one.tap(card(number))
        fleet.push(one)
        if number == 1:
            other.ledger.merge(one.ledger.blocks_after(0, EVERYTHING), [one.author.certificate])
    third.tap(card(4))
    fleet.push(third)
    other.ledger.merge(third.ledger.blocks_after(0, EVERYTHING), [third.author.certificate])
    fleet.pull(other)
    if not held:
        monkeypatch.setattr(pruning, "RECENT_FARES", 0)
        assert other.ledger.prune(1 << 40, 0, 0)
        assert not blocks(other, one.ledger.replica)
    listed = revoked(1, {one.ledger.replica: cut_off})
    fleet.hub.put_document(listed).result()
    if list_first:
        other.ledger.put_document(listed)
    fleet.pull(other)
    other.ledger.put_document(listed)
    theirs = fleet.hub.heads().result()
    assert other.ledger.frontier() == theirs
    assert other.ledger.digest() == fleet.hub.digest().result()
    other.reopen()
    assert other.ledger.frontier() == theirs


def test_an_unreadable_list_of_revocations_changes_nothing(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    broken = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 5, b"\xff\xff")
    with pytest.raises(InputRefused):
        one.ledger.put_document(broken)
    assert one.ledger.document(REVOKED_DOCUMENT) is None
