"""A restored or copied terminal: noticed, suspended, its facts counted exactly once (invariants 4, 5, 6)."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.block import Block, parse, seal
from crdt.documents import SignedDocument
from crdt.errors import ChainBroken, ForkDetected, InputRefused, Malformed, Restored, UnknownAuthor
from crdt.facts import Delta, Kind
from crdt.forks import ForkProof
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store.conceding import Conceded
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, OpenTerminal, added_up, card, deltas_of
from tests.crdt.store.recoveries import (
    EVERYTHING,
    NEW,
    canonical,
    concede,
    deliver,
    hub_times,
    restored,
    suspended,
    tap,
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and two terminals with high-water marks."""
    fleet = Fleet(tmp_path, 2, marked=True)
    yield fleet
    fleet.close()


def test_a_restored_terminal_is_suspended_by_its_mark_and_taps_go_on(fleet: Fleet, tmp_path: Path) -> None:
    """Invariants 1 and 5: no number is sealed twice, and no passenger waits for that to be sorted out."""
    one = restored(fleet, tmp_path)
    assert suspended(one)
    assert one.ledger.status()["suspended"]
    tap(one, 7)
    assert one.ledger.seal() is None
    assert one.ledger.own_head().seq == 2
    assert one.ledger.status()["open"] == 3
    one.reopen()
    assert suspended(one)
    assert one.ledger.status()["open"] == 3


def test_a_restart_is_no_restore(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    for at_ms in range(5):
        tap(one, at_ms)
        one.ledger.seal()
        one.reopen()
        assert not suspended(one)


def test_a_copy_that_sealed_nothing_since_is_noticed_too(fleet: Fleet, tmp_path: Path) -> None:
    """Its open taps may have been sealed, and sent, by the one that is gone."""
    one = fleet.terminals[0]
    tap(one, 1)
    image = one.image(tmp_path / "image")
    one.restore(image)
    assert suspended(one)


def test_it_writes_again_exactly_what_the_hub_lacks(fleet: Fleet, tmp_path: Path) -> None:
    """Issue 3: a new replica id in the same exchange; facts keep card, kind, amount, time and context."""
    one = restored(fleet, tmp_path)
    old = one.ledger.replica
    tap(one, 7)
    tap(one, 8)
    done = concede(fleet, one, old)
    assert done == Conceded(0, ())  # 7 and 8, with the numbers of 5 and 6, stay open; 3 and 4 the hub has
    assert one.ledger.status()["open"] == 2
    assert suspended(one)
    assert concede(fleet, one, old) == Conceded(0, ())
    tap(one, 9)
    one.become(NEW)
    assert not suspended(one)
    assert one.ledger.status()["open"] == 3
    deliver(fleet, one)
    assert hub_times(fleet) == Counter(range(1, 10))
    assert [fact.seq for raw in canonical(fleet, NEW.key.replica) for fact in deltas_of(parse(raw))] == [
        1,
        2,
        3,
    ]
    fleet.pull(one)
    assert one.ledger.digest() == fleet.hub.digest().result()
    assert one.ledger.held() == (0, 0)
    one.reopen()
    assert not suspended(one)


def test_the_view_is_exact_from_the_restore_to_the_settlement(fleet: Fleet, tmp_path: Path) -> None:
    """Invariant 6: settled + what is held, each fact once; the restored image's own taps count all along."""
    one = restored(fleet, tmp_path)
    old = one.ledger.replica

    def check(*times: int) -> None:
        expected = added_up(
            Delta(old, seq, card(at_ms % 5), Kind.FARE, -250, at_ms) for seq, at_ms in enumerate(times, 1)
        )
        for number in range(5):
            state = expected.get(card(number))
            assert one.ledger.view(card(number)).balance_minor == (state.balance_minor if state else 0)
        assert one.ledger.books().balance

    check(1, 2, 3, 4)
    tap(one, 7)
    check(1, 2, 3, 4, 7)
    with pytest.raises(ForkDetected, match="restored or copied"):
        fleet.pull(one)
    check(1, 2, 3, 4, 7)
    assert list(one.ledger.contested(fleet.next_page(one))) == [old]
    concede(fleet, one, old)
    check(1, 2, 3, 4, 5, 6, 7)
    assert not one.ledger.contested(fleet.next_page(one))
    fleet.pull(one)
    check(1, 2, 3, 4, 5, 6, 7)
    one.reopen()
    check(1, 2, 3, 4, 5, 6, 7)
    one.become(NEW)
    check(1, 2, 3, 4, 5, 6, 7)
    deliver(fleet, one)
    fleet.pull(one)
    check(1, 2, 3, 4, 5, 6, 7)


def cloned(fleet: Fleet, tmp_path: Path) -> tuple[OpenTerminal, list[Block]]:
    """A copied image whose marks were copied too: it seals beside what the hub holds. And those blocks."""
    one = fleet.terminals[0]
    tap(one, 1)
    deliver(fleet, one)
    tap(one, 2)
    image = one.image(tmp_path / "image")
    tap(one, 3)
    deliver(fleet, one)
    one.marked = False
    one.restore(image)
    assert not suspended(one)
    tap(one, 4)
    first = one.ledger.seal()
    tap(one, 5)
    second = one.ledger.seal()
    tap(one, 6)
    assert first is not None
    assert second is not None
    return one, [first, second]


def test_a_fork_is_proven_quarantined_and_nobodys_money_counts_twice_or_drops(
    fleet: Fleet, tmp_path: Path
) -> None:
    one, fork = cloned(fleet, tmp_path)
    old = one.ledger.replica
    done = concede(fleet, one, old)
    assert done == Conceded(2 + 0, tuple(block.hash for block in fork))
    assert concede(fleet, one, old) == Conceded(0, ())
    assert one.ledger.reissued() == [block.hash for block in fork]
    entries = one.ledger.quarantined(9)
    assert [entry.raw for entry in entries] == [block.raw for block in fork]
    assert one.ledger.quarantined(1) == entries[:1]
    assert entries[0].counted is not None
    ForkProof(entries[0].counted, entries[0].raw).verify(world.TERMINALS[0].certificate)
    one.ledger.evidence_delivered([entries[0].hash])
    assert one.ledger.quarantined(9) == entries[1:]
    one.become(NEW)
    deliver(fleet, one)
    assert hub_times(fleet) == Counter([1, 2, 3, 4, 5, 6])
    assert one.ledger.status()["quarantined"] == 2
    fleet.pull(one)
    assert one.ledger.digest() == fleet.hub.digest().result()


def test_a_branch_that_somebody_else_brings_is_not_said_to_be_written_again(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Invariant 4: of a disk that is gone a peer has blocks; the hub, told so, would never count them."""
    one, fork = cloned(fleet, tmp_path)
    old = one.ledger.replica
    concede(fleet, one, old)
    one.become(NEW)
    gone = [Delta(old, seq, card(1), Kind.FARE, -250, 90 + seq) for seq in (1, 2)]
    branch = world.TERMINALS[0].blocks(gone, [1])
    refused = one.ledger.merge([block.raw for block in branch]).refused
    assert [type(each.error) for each in refused] == [ForkDetected] * 2
    for _ in range(2):
        assert set(one.ledger.reissued()) == {block.hash for block in fork}
        one.ledger.evidence_delivered([entry.hash for entry in one.ledger.quarantined(9)])
    assert one.ledger.quarantined(9) == []


def test_an_earlier_identity_is_conceded_without_suspending_the_present_one(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Paired anew before anybody noticed the fork: its facts go into the present identity's open segment."""
    one, fork = cloned(fleet, tmp_path)
    old = one.ledger.replica
    one.ledger.retire()
    one.become(NEW)
    tap(one, 7)
    with pytest.raises(ForkDetected, match=old.hex()):
        fleet.pull(one)
    done = concede(fleet, one, old)
    assert done.reissued == 3
    assert not suspended(one)
    assert set(done.quarantined) > {block.hash for block in fork}
    deliver(fleet, one)
    fleet.pull(one)
    assert hub_times(fleet) == Counter([1, 2, 3, 4, 5, 6, 7])
    assert one.ledger.digest() == fleet.hub.digest().result()


def test_blocks_that_continue_the_hubs_chain_stay_and_are_sent(fleet: Fleet) -> None:
    """Their facts may reach the hub by another path; written again they would count twice."""
    one = fleet.terminals[0]
    tap(one, 1)
    deliver(fleet, one)
    tap(one, 2)
    one.ledger.seal()
    tap(one, 3)
    assert concede(fleet, one, one.ledger.replica) == Conceded(0, ())
    assert suspended(one)
    one.become(NEW)
    deliver(fleet, one)
    assert hub_times(fleet) == Counter([1, 2, 3])


def test_a_part_of_the_hubs_chain_will_do_when_it_begins_where_both_agree(
    fleet: Fleet, tmp_path: Path
) -> None:
    one, fork = cloned(fleet, tmp_path)
    old = one.ledger.replica
    whole = canonical(fleet, old)
    tap(fleet.terminals[1], 9)
    other = fleet.terminals[1].ledger.seal()
    assert other is not None
    before = one.ledger.status(), one.ledger.digest()
    wrong: list[tuple[list[bytes], type[InputRefused]]] = [
        ([whole[1], whole[0]], ChainBroken),
        ([other.raw], UnknownAuthor),
        ([whole[0], other.raw], UnknownAuthor),
        ([b"junk"], Malformed),
    ]
    for raws, error in wrong:
        with pytest.raises(error):
            one.ledger.concede(old, raws)
    with pytest.raises(UnknownAuthor):
        one.ledger.concede(other.header.replica, [other.raw])
    assert (one.ledger.status(), one.ledger.digest()) == before
    done = one.ledger.concede(old, whole[1:])
    assert done.quarantined == tuple(block.hash for block in fork)


def test_what_continues_a_chain_that_has_ended_is_written_again(fleet: Fleet) -> None:
    """Invariant 4: the hub takes no more of it, so nothing of it stays to be sent as what it was."""
    one = fleet.terminals[0]
    old = one.ledger.replica
    tap(one, 1)
    fleet.push(one)
    tap(one, 2)
    beyond = one.ledger.seal()
    assert beyond is not None
    assert one.ledger.concede(old, canonical(fleet, old)).quarantined == ()
    done = one.ledger.concede(old, canonical(fleet, old), ended=True)
    assert (done.reissued, done.quarantined) == (beyond.header.count, (beyond.hash,))
    assert one.ledger.suspended
    one.become(world.terminal(7))
    again = one.ledger.seal()
    assert again is not None
    assert [fact.card for fact in deltas_of(again)] == [fact.card for fact in deltas_of(beyond)]
    fleet.push(one)
    fleet.heal()
    assert one.ledger.digest() == fleet.hub.digest().result()


@pytest.mark.parametrize("shown", [0, 1])
def test_what_is_below_the_cut_off_of_a_chain_that_has_ended_is_not_written_again(
    fleet: Fleet, shown: int
) -> None:
    """Invariant 5: a hub that shows less than it ended the chain with, put back say, takes the rest as it
    is."""
    one = fleet.terminals[0]
    old = one.ledger.replica
    for at_ms in (1, 2):
        tap(one, at_ms)
        one.ledger.seal()
    tap(one, 3)
    beyond = one.ledger.seal()
    assert beyond is not None
    body = Revocations({old: 2}, frozenset({old})).encode()
    listed = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)
    assert fleet.hub.put_document(listed).result()
    chain = one.ledger.blocks_after(0, EVERYTHING, old)
    assert one.ledger.put_document(listed)
    done = one.ledger.concede(old, chain[:shown], ended=True)
    assert done == Conceded(1, (beyond.hash,))
    one.become(NEW)
    deliver(fleet, one)
    assert hub_times(fleet) == Counter([1, 2, 3])
    assert one.ledger.digest() == fleet.hub.digest().result()


def test_blocks_that_begin_after_the_chains_parted_are_not_enough(fleet: Fleet, tmp_path: Path) -> None:
    one, _ = cloned(fleet, tmp_path)
    old = one.ledger.replica
    original = fleet.terminals[0].author
    whole = [parse(raw) for raw in canonical(fleet, old)]
    later = Delta(old, 4, card(1), Kind.FARE, -1, 99)
    following = seal(original.key, world.FLEET, [later], whole[-1].hash)
    with pytest.raises(ChainBroken, match="ask for earlier"):
        one.ledger.concede(old, [following.raw])


def test_ones_own_block_from_a_peer_proves_the_restore(fleet: Fleet, tmp_path: Path) -> None:
    """Without marks, without a hub: whoever hears of its own forgotten block seals nothing more."""
    one, other = fleet.terminals
    tap(one, 1)
    image = one.image(tmp_path / "image")
    block = one.ledger.seal()
    assert block is not None
    assert not other.ledger.merge([block.raw], [one.author.certificate]).refused
    one.marked = False
    one.restore(image)
    forged = block.raw[:-1] + bytes([block.raw[-1] ^ 1])
    assert not isinstance(one.ledger.merge([forged]).refused[0].error, Restored)
    assert not suspended(one)
    report = one.ledger.merge([block.raw])
    assert [type(each.error) for each in report.refused] == [Restored]
    assert suspended(one)
    assert one.ledger.own_head().seq == 0
    assert one.ledger.held() == (1, -250)
    one.reopen()
    assert suspended(one)
    deliver(fleet, other)
    assert concede(fleet, one, one.ledger.replica) == Conceded(0, ())
    one.become(NEW)
    deliver(fleet, one)
    assert hub_times(fleet) == Counter([1])
