"""Copies of one storage that are alive at once: no ride counts twice, and none drops (invariants 4 and 5)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.simulation.copies.checks import check_books, heal, look
from tests.simulation.copies.mutations import MUTATIONS
from tests.simulation.copies.play import cheap_arithmetic, play
from tests.simulation.copies.world import World
from tests.simulation.mutations.planting import Mutation, planted
from tests.simulation.play import first_failure, unscanned
from tests.simulation.replaying import digests
from tests.simulation.signatures import simulated_signatures

SEEDS = 40


def test_each_ride_counts_once_in_the_end() -> None:
    """Invariants 4, 5 and 6: each view after every step, the hub once everything works again."""
    failed = first_failure(0, SEEDS, play=play)
    assert failed is None, "\n".join([*failed.trace, failed.failure, f"seed {failed.seed}"])


def test_a_seed_is_the_same_in_every_process() -> None:
    """ "A failing seed replays exactly"."""
    assert len(digests("tests.simulation.copies.main", "--seeds", "2", "--seed", "7")) == 1


@pytest.mark.parametrize("bug", MUTATIONS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_found(bug: Mutation) -> None:
    """What the plays do not find they do not guard."""
    with planted(bug):
        found = first_failure(bug.first, bug.seeds, play=play)
    assert found is not None, f"not found in {bug.seeds} seeds: {bug.name}"
    assert play(found.seed).failure == "", "the same seed fails without the bug"


@contextmanager
def world() -> Iterator[World]:
    """A copy called A1, and T1; healed in the end."""
    with cheap_arithmetic(), unscanned(), simulated_signatures():
        one = World(1, look)
        yield one
        one.hub.work()
        check_books(one)
        heal(one)
        one.close()


def test_what_two_copies_have_that_a_third_contradicts_counts_once_when_both_are_paired() -> None:
    """Both have the same block where the hub has another; each is paired anew, and writes it again."""
    with world() as one:
        (a1,) = one.copies
        a0 = one.copy(a1)
        one.tap(a0)
        one.sync(a0)
        one.tap(a1)
        a1.ledger.seal()
        a2 = one.copy(a1)
        for body in (a1, a2):
            assert one.pair(body) is None
        for body in (a1, a2):
            one.sync(body)


def test_what_is_open_in_suspended_copies_counts_once_under_names_of_their_own() -> None:
    """Two are paired under other names, and the third is renewed."""
    with world() as one:
        (a1,) = one.copies
        one.tap(a1)
        a2, a3 = one.copy(a1), one.copy(a1)
        for body in one.copies:
            body.ledger.suspend()
        for body, bus in ((a2, "bus 22"), (a3, "bus 23")):
            assert one.pair(body, bus) is None
        for body in (a2, a3, a1):
            one.sync(body)


def test_what_a_copy_wrote_again_under_a_name_of_its_own_is_not_adopted() -> None:
    """A peer brings the block to the hub that contradicts the chain there, and an operator adopts it."""
    with world() as one:
        (a1,), (t1,) = one.copies, one.others
        a2 = one.copy(a1)
        one.tap(a1)
        one.sync(a1)
        one.tap(a2)
        a2.ledger.seal()
        one.meet(a2, t1)
        a2.ledger.suspend()
        assert one.pair(a2, "bus 22") is None
        for body in (a2, t1):
            one.sync(body)
        one.adopt(one.hub.undecided())


def test_what_a_copy_counted_of_a_hub_that_was_put_back_counts_once_when_another_was_renewed() -> None:
    """The hub forgets as whom the one wrote it, gives the other a new identity, and pairs the one anew."""
    with world() as one:
        (a1,) = one.copies
        one.tap(a1)
        a2 = one.copy(a1)
        a2.ledger.suspend()
        one.backups = [one.hub.backup()]
        one.sync(a2)
        one.put_hub_back(0, whole=False)
        a1.ledger.suspend()
        for body in (a1, a2):
            one.sync(body)
        one.pair(a2)
        one.sync(a2)


def test_what_was_open_counts_once_where_one_copy_is_promised_what_another_has_ended() -> None:
    """A pairing is not taken up, a copy is renewed meanwhile; the hub is put back to before that is used."""
    with world() as one:
        (a1,) = one.copies
        one.tap(a1)
        a2 = one.copy(a1)
        for body in (a1, a2):
            body.ledger.suspend()
        one.pair(a1, leaves=True)
        one.sync(a2, leaves=True)
        one.backups = [one.hub.backup()]
        one.sync(a2)
        one.put_hub_back(0, whole=False)
        for body in (a1, a2):
            one.sync(body)


def test_a_terminal_keeps_its_taps_that_is_paired_and_does_not_know_that_its_identity_has_ended() -> None:
    """A copy was renewed; what this one had not sent stays in its view, and it writes it again itself."""
    with world() as one:
        (a1,) = one.copies
        a2 = one.copy(a1)
        one.tap(a2)
        a2.ledger.suspend()
        one.sync(a2)
        one.tap(a1)
        assert one.pair(a1) is None
        look(a1)
        one.sync(a1)
        look(a1)
        one.hub.work()
        assert not one.hub.undecided()


def test_a_terminal_keeps_its_taps_whose_identity_ends_after_it_was_paired_anew() -> None:
    """A copy is renewed then; as above."""
    with world() as one:
        (a1,) = one.copies
        a2 = one.copy(a1)
        one.tap(a1)
        assert one.pair(a1, "bus 22") is None
        one.tap(a2)
        a2.ledger.suspend()
        one.sync(a2)
        look(a1)
        one.sync(a1)
        look(a1)
        one.hub.work()
        assert not one.hub.undecided()


@pytest.mark.parametrize("names", [("bus 22", "bus 22"), ("bus 22", "bus 23"), ("bus 12", "bus 22")])
def test_a_pairing_that_was_left_is_finished_by_another_under_whichever_name(names: tuple[str, str]) -> None:
    """What was promised in it is of another terminal than the one that asks."""
    left, finished = names
    with world() as one:
        (a1,) = one.copies
        one.tap(a1)
        a1.ledger.suspend()
        one.pair(a1, left, leaves=True)
        assert one.pair(a1, finished) is None


@pytest.mark.parametrize("paired", [False, True])
def test_a_copy_gives_way_also_within_a_block_that_spans_what_it_had_settled(paired: bool) -> None:
    """The hub was put back to before that, and another copy has sent it as a longer block."""
    with world() as one:
        (a1,) = one.copies
        one.tap(a1)
        one.sync(a1)
        a2 = one.copy(a1)
        one.backups = [one.hub.backup()]
        one.tap(a2)
        one.sync(a2)
        one.put_hub_back(0, whole=False)
        for _ in range(2):
            one.tap(a1)
        one.sync(a1)
        if paired:
            assert one.pair(a2, "bus 22") is None
        one.sync(a2)
        look(a2)
        assert not a2.ledger.suspended


def test_a_list_of_a_number_that_was_given_twice_comes_to_those_who_have_the_other() -> None:
    """The hub was put back and has not noticed; by the list that is lost, a copy's old chain goes on."""
    with world() as one:
        (a1,), (t1,) = one.copies, one.others
        for body in (a1, t1):
            one.sync(body)
        one.backups = [one.hub.backup()]
        t1.ledger.suspend()
        one.sync(t1)
        one.tap(a1)
        a1.ledger.seal()
        a2 = one.copy(a1)
        for body in (a1, a2):
            one.meet(body, t1)
        one.put_hub_back(0, whole=False)
        assert one.pair(a2, "bus 22") is None
        a1.ledger.suspend()
        assert one.pair(a1) is None
        for body in (a2, a1):
            one.sync(body)
            look(body)
        one.hub.work()
        assert not one.hub.undecided()
