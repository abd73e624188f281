"""Taps that peers have not sealed: believed, and counted once (invariants 6, 8, 10, 11)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.certificate import Limits, issue
from crdt.columns import encode
from crdt.errors import ForkDetected, InputRefused, Malformed, NotPermitted, UnknownAuthor
from crdt.facts import CERTIFIED, CardId, Delta, Draft, Kind, ReplicaId
from crdt.frontier import GENESIS, Head
from crdt.open_segment import OpenSegment
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, card
from tests.crdt.store.relays import FARE, believe, give


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and three terminals."""
    fleet = Fleet(tmp_path, 3)
    yield fleet
    fleet.close()


def test_two_doors_see_each_others_taps_before_they_are_sealed(fleet: Fleet) -> None:
    """Passback and balance hold across doors; each fact counts once on its way from open to settled."""
    front, rear, _ = fleet.terminals
    rear.ledger.merge([], [front.author.certificate])
    assert believe(front, rear)
    front.tap(card(1), at_ms=5_000)
    assert not rear.ledger.view(card(1)).known
    assert believe(front, rear)
    view = rear.ledger.view(card(1))
    assert (view.known, view.balance_minor, view.last_fare_at_ms) == (True, 250, 5_000)
    assert rear.ledger.held() == (0, 0)
    assert rear.ledger.status()["believed"] == 2
    rear.tap(card(1), at_ms=6_000)
    assert rear.ledger.view(card(1)).balance_minor == 0
    front.tap(card(2), at_ms=6_500)
    late = front.ledger.open_segment()
    front.ledger.seal()
    give(front, rear)
    assert rear.ledger.status()["believed"] == 0
    assert rear.ledger.view(card(1)).balance_minor == 0
    assert rear.ledger.believe(front.ledger.replica, late)  # sealed meanwhile: nothing of it counts twice
    assert rear.ledger.view(card(2)).balance_minor == 250
    assert rear.ledger.status()["believed"] == 0
    front.tap(card(2), at_ms=7_000)
    assert believe(front, rear)
    fleet.push(front)
    fleet.pull(rear)
    assert rear.ledger.status()["believed"] == 0
    assert rear.ledger.view(card(2)).balance_minor == 0
    front.tap(card(2), at_ms=7_500)
    assert believe(front, rear)
    rear.ledger.forget(front.ledger.replica)
    assert rear.ledger.view(card(2)).balance_minor == 0
    assert believe(front, rear)
    rear.reopen()
    assert rear.ledger.status()["believed"] == 0


@pytest.mark.parametrize("sealed", [False, True])
def test_what_a_peer_takes_over_from_its_former_identity_counts_once(fleet: Fleet, sealed: bool) -> None:
    """Invariant 6: its open taps are written again under the new one."""
    front, rear, _ = fleet.terminals
    before = front.author.certificate
    rear.ledger.merge([], [before])
    front.write(card(1), [FARE])
    assert believe(front, rear)
    front.ledger.suspend()
    key = world.terminal(9).key
    new = issue(world.FLEET_KEY, before.terminal, "", before.role, key.public_key, before.limits)
    front.become(world.Terminal(key, new))
    if sealed:
        front.ledger.seal()
        give(front, rear)
    else:
        rear.ledger.merge([], [new])
        assert believe(front, rear)
    assert rear.ledger.view(card(1)).balance_minor == -250


def test_invariant_11_an_opening_that_is_believed_meets_a_held_one(fleet: Fleet) -> None:
    front, rear, _ = fleet.terminals
    rear.ledger.merge([], [front.author.certificate])
    front.write(card(1), [Draft(Kind.OPENING, 700)])
    rear.write(card(1), [Draft(Kind.OPENING, 500)])
    assert believe(front, rear)
    assert rear.ledger.view(card(1)).balance_minor == 700


def test_invariant_6_an_open_segment_that_was_overtaken_takes_nothing_back(fleet: Fleet) -> None:
    """Two messages of a peer may pass each other: the one that says less was there first."""
    front, rear, *_ = fleet.terminals
    rear.ledger.merge([], [front.author.certificate])
    said = []
    for _ in range(2):
        said.append(front.ledger.open_segment())
        front.tap(card(1))
    for segment in (front.ledger.open_segment(), *said):
        assert rear.ledger.believe(front.ledger.replica, segment)
        assert rear.ledger.view(card(1)).balance_minor == front.ledger.view(card(1)).balance_minor
    front.ledger.seal()
    front.tap(card(1))
    rear.ledger.merge(front.ledger.blocks_after(0, 1 << 20))
    assert rear.ledger.believe(front.ledger.replica, front.ledger.open_segment())
    assert rear.ledger.view(card(1)).balance_minor == front.ledger.view(card(1)).balance_minor


def test_invariant_10_no_more_credit_is_believed_than_an_author_may_give(fleet: Fleet) -> None:
    author = world.terminal(9, Limits(CERTIFIED, 2_000, 2_000, 3_000))
    rear = fleet.terminals[0].ledger
    rear.merge([], [author.certificate])
    openings = [Delta(author.key.replica, seq, card(seq), Kind.OPENING, 2_000, 1_000) for seq in (1, 2)]
    assert rear.believe(author.key.replica, OpenSegment(Head(0, GENESIS), 1, encode(openings[:1]).data))
    with pytest.raises(NotPermitted):
        rear.believe(author.key.replica, OpenSegment(Head(0, GENESIS), 2, encode(openings).data))
    assert [rear.view(card(seq)).balance_minor for seq in (1, 2)] == [2_000, 0]


def test_a_segment_counts_only_right_after_what_is_held(fleet: Fleet) -> None:
    front, rear, _ = fleet.terminals
    front.write(card(1), [FARE])
    front.ledger.seal()
    front.write(card(1), [FARE])
    rear.ledger.merge([], [front.author.certificate])
    assert not believe(front, rear)
    assert not rear.ledger.view(card(1)).known
    give(front, rear)
    assert believe(front, rear)
    assert rear.ledger.view(card(1)).balance_minor == -500


def test_invariant_8_an_open_segment_that_is_wrong_changes_nothing(fleet: Fleet) -> None:
    front, rear, _ = fleet.terminals
    modest = world.terminal(9, Limits(frozenset({Kind.FARE}), 0, 300, 0))
    give_certificates = [front.author.certificate, modest.certificate]
    rear.ledger.merge([], give_certificates)
    front.write(card(1), [FARE])
    front.ledger.seal()
    give(front, rear)
    front.write(card(1), [FARE])
    assert believe(front, rear)
    before = rear.ledger.view(card(1)), rear.ledger.status()
    good = front.ledger.open_segment()
    minted = encode([Delta(modest.key.replica, 1, card(1), Kind.TOPUP, 5, 1)]).data
    wrong: list[tuple[ReplicaId, OpenSegment, type[InputRefused]]] = [
        (front.ledger.replica, OpenSegment(good.after, 1, good.payload + b"?"), Malformed),
        (front.ledger.replica, OpenSegment(Head(1, b"?" * 32), 1, good.payload), ForkDetected),
        (front.ledger.replica, OpenSegment(Head(2**48 - 1, b"?" * 32), 1, good.payload), Malformed),
        (modest.key.replica, OpenSegment(Head(0, GENESIS), 1, minted), NotPermitted),
        (rear.ledger.replica, OpenSegment(Head(0, GENESIS), 0, b""), UnknownAuthor),
        (ReplicaId(b"?" * 16), OpenSegment(Head(0, GENESIS), 0, b""), UnknownAuthor),
    ]
    for replica, segment, error in wrong:
        with pytest.raises(error):
            rear.ledger.believe(replica, segment)
    assert (rear.ledger.view(card(1)), rear.ledger.status()) == before


def test_passback_goes_by_the_fare_that_is_nearest_in_time(fleet: Fleet) -> None:
    """A door whose clock is far ahead does not hide the fare that was taken here a moment ago."""
    front, rear, _ = fleet.terminals
    front.write(card(1), [FARE], at_ms=9_000_000)
    front.write(card(2), [FARE], at_ms=61_000)
    front.ledger.seal()
    rear.write(card(2), [FARE], at_ms=1_000)
    rear.write(card(1), [FARE], at_ms=60_000)
    give(front, rear)

    def last(which: CardId) -> int | None:
        return rear.ledger.transact(which, lambda view: ((), view.last_fare_at_ms), 62_000)

    assert (last(card(1)), last(card(2))) == (60_000, 61_000)
    assert rear.ledger.view(card(1)).last_fare_at_ms == 9_000_000
    rear.reopen()
    assert (last(card(1)), last(card(2))) == (60_000, 61_000)
    assert rear.ledger.last_at_ms() == 60_000
