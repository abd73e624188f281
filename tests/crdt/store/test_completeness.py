"""Proof of completeness: "taps 1-4,312 complete" or the missing ranges; who may say there are no others."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from crdt.block import Block
from crdt.certificate import Role, issue
from crdt.frontier import Frontier, Head
from crdt.revocations import NONE_REVOKED, Revocations
from crdt.signing import SigningKey
from crdt.store.blocks import NO_HEAD
from crdt.store.completeness import (
    MANY_BLOCKS,
    AuthorsDay,
    Behind,
    Complete,
    Gap,
    Known,
    Missing,
    Open,
    day_of,
    judge,
)
from crdt.store.connection import driver_connection
from crdt.store.expectations import Expected
from crdt.store.hub import HubLedger
from crdt.store.projection import catch_up, project_some
from crdt.store.silent import Silent
from tests.crdt import world
from tests.crdt.store.behind import forget_history
from tests.crdt.store.fleet import Fleet
from tests.crdt.store.test_days import DAY, HOUR_MS, NEXT, ONE, OTHER, merge, revoke, taps


def expect(hub: HubLedger, block: Block, at_ms: int, by: world.Terminal | None = ONE) -> None:
    """Somebody says that ONE's chain goes as far as this block; the terminal itself, unless it is None."""
    hub.expect({ONE.key.replica: block.head}, "HELLO", at_ms, by.key.replica if by else None).result()


def test_a_day_is_open_until_the_terminal_speaks_after_its_end_and_complete_then(fleet: Fleet) -> None:
    hub, one = fleet.hub, [ONE.key.replica]
    blocks = ONE.blocks(taps(1, 2, 3), [2])
    assert hub.day_of(one, DAY).result().completeness == Open(0, 0)
    hub.merge([block.raw for block in blocks]).result()
    expect(hub, blocks[1], DAY.start_ms + 4 * HOUR_MS)
    assert hub.day_of(one, DAY).result().completeness == Open(3, DAY.start_ms + 4 * HOUR_MS)
    expect(hub, blocks[1], DAY.end_ms)
    assert hub.day_of(one, DAY).result().completeness == Complete(3)
    assert hub.day_of(one, NEXT).result().completeness == Open(0, DAY.end_ms)


def test_a_fact_of_a_later_day_proves_the_day_before(fleet: Fleet) -> None:
    """Chains have no gaps: what lies before something held is held."""
    merge(fleet.hub, ONE.blocks(taps(1, 2, 23.9, 25), [3]))
    assert fleet.hub.day_of([ONE.key.replica], DAY).result().completeness == Complete(3)


@pytest.mark.parametrize("once_ahead", [False, True])
def test_what_was_here_before_the_day_ended_proves_nothing_however_it_is_dated(
    fleet: Fleet, once_ahead: bool
) -> None:
    """Invariant 9: its author's clock was hours ahead, and sure of itself. The hub's may have been, too."""
    clock = [DAY.end_ms + HOUR_MS if once_ahead else DAY.start_ms + 18 * HOUR_MS]
    hub = HubLedger(
        fleet.hub_database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB, now_ms=lambda: clock[0]
    )
    blocks, others = ONE.blocks(taps(1, 19, 26, 29), [4]), OTHER.blocks(taps(1, 2, author=OTHER), [2])
    merge(hub, others[:1])
    clock[0] = DAY.start_ms + 19 * HOUR_MS
    merge(hub, blocks[:1])
    clock[0] = DAY.start_ms + 20 * HOUR_MS
    merge(hub, others[1:])
    clock[0] = DAY.end_ms + 24 * HOUR_MS
    assert hub.day_of([ONE.key.replica], DAY).result().completeness == Open(2, 0)
    merge(hub, blocks[1:])
    assert hub.day_of([ONE.key.replica], DAY).result().completeness == Complete(2), "it was not here before"


def test_a_word_noted_by_a_clock_that_was_ahead_proves_no_day_once_that_is_set_right(fleet: Fleet) -> None:
    """Invariant 9: it was said before the day ended, and what was tapped after it is on its way."""
    clock = [DAY.end_ms + HOUR_MS // 2]
    hub = HubLedger(
        fleet.hub_database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB, now_ms=lambda: clock[0]
    )
    block, *others = ONE.blocks(taps(1), []) + OTHER.blocks(taps(1, 2, author=OTHER), [1, 1])
    merge(hub, [block])
    expect(hub, block, clock[0])
    clock[0] = DAY.end_ms - HOUR_MS // 2
    merge(hub, others[:1])
    clock[0] = DAY.end_ms + 12 * HOUR_MS
    merge(hub, others[1:])
    assert isinstance(hub.day_of([ONE.key.replica], DAY).result().completeness, Open)


def test_a_clock_that_is_set_right_while_nobody_comes_takes_its_words_back(fleet: Fleet) -> None:
    """Invariant 9: neither the word nor the tap, whose author's clock was ahead as well, is from after the
    day; the hub looks at its clock before the day ends, and nothing is merged."""
    clock = [DAY.end_ms + 2 * HOUR_MS]
    hub = HubLedger(
        fleet.hub_database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB, now_ms=lambda: clock[0]
    )
    blocks = ONE.blocks(taps(1, 26), [1])
    merge(hub, blocks)
    expect(hub, blocks[-1], clock[0])
    clock[0] = DAY.end_ms - HOUR_MS
    hub.see_time().result()
    clock[0] = DAY.end_ms + 12 * HOUR_MS
    assert hub.day_of([ONE.key.replica], DAY).result().completeness == Open(1, DAY.end_ms - HOUR_MS)


def test_what_came_before_the_clock_was_set_right_proves_no_day(fleet: Fleet) -> None:
    """Invariant 9: each quarter of an hour was noted an hour too early, so they are noted anew."""
    clock = [DAY.start_ms]
    hub = HubLedger(
        fleet.hub_database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB, now_ms=lambda: clock[0]
    )
    (block,) = ONE.blocks(taps(1, 29), [])
    others = OTHER.blocks(taps(1, 2, 3, author=OTHER), [1, 1, 1])
    for hour, one in ((23, others[0]), (24, others[1]), (23, block), (24, others[2])):
        clock[0] = DAY.start_ms + hour * HOUR_MS
        merge(hub, [one])
    clock[0] = DAY.end_ms + 12 * HOUR_MS
    assert hub.day_of([ONE.key.replica], DAY).result().completeness == Open(1, 0)


def test_missing_facts_are_named(fleet: Fleet) -> None:
    """A peer that carried them, or the terminal itself, said how far the chain goes."""
    hub, one = fleet.hub, [ONE.key.replica]
    blocks = ONE.blocks(taps(1, 2, 3, 4, 25), [2, 2, 1])
    merge(hub, blocks[:1])
    expect(hub, blocks[1], DAY.start_ms + 5 * HOUR_MS, by=None)
    gap = Gap(ONE.key.replica, 1, 3, 4)
    assert hub.day_of(one, DAY).result().completeness == Missing(1, (gap,), 0)
    expect(hub, blocks[2], DAY.end_ms + HOUR_MS)
    gap = Gap(ONE.key.replica, 1, 3, 5)
    assert hub.day_of(one, DAY).result().completeness == Missing(1, (gap,), 0)
    merge(hub, blocks[1:3])
    assert hub.day_of(one, DAY).result().completeness == Complete(4)
    expect(hub, blocks[3], DAY.end_ms + 3 * HOUR_MS)
    assert hub.day_of(one, DAY).result().completeness == Missing(4, (Gap(ONE.key.replica, 4, 6, 6),), 0)
    merge(hub, blocks[3:])
    assert hub.day_of(one, DAY).result().completeness == Complete(4)


def test_what_was_missing_before_the_day_began_is_not_of_the_day(fleet: Fleet) -> None:
    """Yesterday's gap says nothing of today: it is open, not missing."""
    blocks = ONE.blocks(taps(1, 2, 3), [2])
    merge(fleet.hub, blocks[:1])
    expect(fleet.hub, blocks[1], NEXT.start_ms - HOUR_MS)
    assert fleet.hub.day_of([ONE.key.replica], NEXT).result().completeness == Open(0, NEXT.start_ms - HOUR_MS)


def paired_anew(hub: HubLedger) -> world.Terminal:
    """ONE under another identity."""
    key = SigningKey(b"A" * 32)
    terminal, limits = ONE.certificate.terminal, world.ANYTHING
    certificate = issue(world.FLEET_KEY, terminal, "bus 1", Role.TERMINAL, key.public_key, limits)
    hub.merge([], [certificate]).result()
    return world.Terminal(key, certificate)


def started_again(fleet: Fleet) -> HubLedger:
    """The hub of another process on what is on the disk."""
    fleet.hub_database.close()
    fleet.open_hub()
    return fleet.hub


def say_all(hub: HubLedger, author: world.Terminal, at_ms: int, former: Frontier | None = None) -> None:
    """The author says that it has nothing more. `former`: where its storage has those who wrote there."""
    hub.expect({}, "HELLO", at_ms, author.key.replica, former or {}).result()


def test_a_bus_day_spans_the_identities_of_a_terminal(fleet: Fleet) -> None:
    """Re-paired at noon: the new identity has the storage of the old one, which ends where that says."""
    hub = fleet.hub
    again = paired_anew(hub)
    before, later = ONE.blocks(taps(1, 2), []), again.blocks(taps(13, 14, author=again), [])
    both = [ONE.key.replica, again.key.replica]
    merge(hub, before + later)
    shown = {ONE.key.replica: before[0].head}
    say_all(hub, again, DAY.start_ms + 15 * HOUR_MS, shown)
    assert hub.day_of(both, DAY).result().completeness == Open(4, DAY.start_ms + 15 * HOUR_MS)
    assert hub.silent().result() == []
    say_all(hub, again, DAY.end_ms)
    assert hub.day_of(both, DAY).result().completeness == Complete(4)
    say_all(hub, again, NEXT.end_ms)
    assert hub.day_of(both, NEXT).result().completeness == Complete(0), "it has ended for good"


def test_another_storage_says_nothing_of_what_the_lost_one_wrote_last(fleet: Fleet) -> None:
    """A dead SD card: the takings since it was last heard are unknown, until an operator gives them up."""
    hub = fleet.hub
    again, both = paired_anew(hub), [ONE.key.replica, SigningKey(b"A" * 32).replica]
    before = ONE.blocks(taps(1, 2), [])
    merge(hub, before)
    heard_ms = DAY.start_ms + 3 * HOUR_MS
    say_all(hub, ONE, heard_ms)
    say_all(hub, again, DAY.end_ms)
    unknown = Silent(ONE.key.replica, 3, heard_ms)
    assert hub.day_of(both, DAY).result().completeness == Open(2, heard_ms, (unknown,))
    assert hub.silent().result() == [unknown]
    until_heard = replace(DAY, end_ms=heard_ms)
    assert hub.day_of(both, until_heard).result().completeness == Complete(2), "what it said itself"
    assert hub.give_up(ONE.key.replica).result()
    assert hub.day_of(both, DAY).result().completeness == Complete(2)
    assert hub.silent().result() == []
    assert not hub.give_up(ONE.key.replica).result()


@pytest.mark.parametrize("ahead_h", [0, 2, 24])
def test_who_spoke_last_is_no_matter_of_the_hubs_clock(fleet: Fleet, ahead_h: int) -> None:
    """Invariant 9: it stood ahead when the lost storage spoke, and was set right before the next one did."""
    hub = fleet.hub
    expect(hub, ONE.blocks(taps(1), [])[0], DAY.start_ms, by=None)
    hub = started_again(fleet)
    again = paired_anew(hub)
    heard_ms = DAY.start_ms + ahead_h * HOUR_MS
    say_all(hub, ONE, heard_ms)
    say_all(hub, again, DAY.start_ms + HOUR_MS)
    unknown = Silent(ONE.key.replica, 0, heard_ms)
    assert hub.silent().result() == [unknown]
    hub = started_again(fleet)
    say_all(hub, again, DAY.start_ms + 3 * HOUR_MS)
    assert hub.silent().result() == [unknown]
    say_all(hub, ONE, DAY.start_ms + HOUR_MS)
    assert [one.replica for one in hub.silent().result()] == [again.key.replica]


def test_whose_word_was_given_up_speaks_in_its_turn_again(fleet: Fleet) -> None:
    """Invariant 9: also where the hub's clock goes back between the words."""
    hub = fleet.hub
    again = paired_anew(hub)
    say_all(hub, ONE, DAY.end_ms)
    say_all(hub, again, DAY.end_ms + HOUR_MS)
    assert hub.give_up(ONE.key.replica).result()
    say_all(hub, ONE, DAY.start_ms)
    assert [one.replica for one in hub.silent().result()] == [again.key.replica]


def test_what_was_said_at_a_time_that_has_not_come_yet_proves_no_day() -> None:
    """Invariant 9: the hub's clock was ahead, or is behind now; else a lost storage's last word would hold
    for all days until then."""
    said = Known(ONE.key.replica, 1, 1, DAY.start_ms, Expected(heard_ms=DAY.end_ms + HOUR_MS))
    assert judge(DAY, [said], DAY.end_ms) == Open(1, DAY.end_ms + HOUR_MS)
    assert judge(DAY, [said], DAY.end_ms + HOUR_MS) == Complete(1)


@pytest.mark.parametrize("shown", ["none of it", "its beginning", "another branch", "as far as is held"])
def test_only_who_has_all_of_a_former_chain_that_is_known_ends_it(fleet: Fleet, shown: str) -> None:
    """An older image of the storage does not know what the lost one wrote, nor what it only named."""
    hub = fleet.hub
    again, both = paired_anew(hub), [ONE.key.replica, SigningKey(b"A" * 32).replica]
    blocks = ONE.blocks(taps(1, 2, 3), [2])
    heads = {
        "none of it": NO_HEAD,
        "its beginning": blocks[0].head,
        "another branch": Head(4, bytes(32)),
        "as far as is held": blocks[0].head,
    }
    if shown == "as far as is held":  # and less than it has named
        merge(hub, blocks[:1])
        expect(hub, blocks[1], DAY.start_ms - HOUR_MS)
    else:
        merge(hub, blocks)
    say_all(hub, again, DAY.end_ms, {ONE.key.replica: heads[shown]})
    found = hub.day_of(both, DAY).result().completeness
    assert isinstance(found, Open)
    assert [one.replica for one in found.silent] == [ONE.key.replica]
    say_all(hub, again, DAY.end_ms + HOUR_MS, {ONE.key.replica: blocks[1].head})
    merge(hub, blocks[1:])
    assert hub.day_of(both, DAY).result().completeness == Complete(3)


def test_an_identity_that_sealed_nothing_ends_too_and_only_with_its_storage(fleet: Fleet) -> None:
    """Paired twice in a row; or driven off, and dead before it came back."""
    hub = fleet.hub
    again, both = paired_anew(hub), [ONE.key.replica, SigningKey(b"A" * 32).replica]
    say_all(hub, again, DAY.end_ms)
    assert isinstance(hub.day_of(both, DAY).result().completeness, Open)
    say_all(hub, again, DAY.end_ms + HOUR_MS, {ONE.key.replica: NO_HEAD})
    assert hub.day_of(both, DAY).result().completeness == Complete(0)


def test_nobody_speaks_for_an_identity_whose_old_image_was_put_back(fleet: Fleet) -> None:
    """It fetched the chain that it shows from the hub; what the storage of before wrote since is nowhere."""
    hub = fleet.hub
    again, both = paired_anew(hub), [ONE.key.replica, SigningKey(b"A" * 32).replica]
    blocks = ONE.blocks(taps(1, 2), [])
    merge(hub, blocks)
    revoke(hub, 1, NONE_REVOKED.with_replaced({ONE.key.replica: 3}))
    say_all(hub, again, DAY.end_ms, {ONE.key.replica: blocks[0].head})
    unknown = Silent(ONE.key.replica, 3, 0)
    assert hub.day_of(both, DAY).result().completeness == Open(2, 0, (unknown,))
    assert hub.give_up(ONE.key.replica).result()
    assert hub.day_of(both, DAY).result().completeness == Complete(2)


def test_no_terminal_ends_an_identity_of_another(fleet: Fleet) -> None:
    """Invariant 8: a terminal's word is of itself."""
    hub = fleet.hub
    blocks = ONE.blocks(taps(1, 2), [])
    merge(hub, blocks)
    say_all(hub, OTHER, DAY.end_ms, {ONE.key.replica: blocks[0].head})
    assert hub.day_of([ONE.key.replica], DAY).result().completeness == Open(2, 0)


def test_one_that_was_given_up_and_speaks_again_goes_on(fleet: Fleet) -> None:
    """The operator was wrong: its taps are waited for as before."""
    hub = fleet.hub
    again, both = paired_anew(hub), [ONE.key.replica, SigningKey(b"A" * 32).replica]
    say_all(hub, again, DAY.end_ms)
    assert hub.give_up(ONE.key.replica).result()
    say_all(hub, ONE, DAY.start_ms + HOUR_MS)
    assert isinstance(hub.day_of(both, DAY).result().completeness, Open)


def test_a_revoked_author_that_is_here_up_to_its_cut_off_keeps_no_day_open(fleet: Fleet) -> None:
    """It was taken out of service: of each later day it has no taps, and nobody has to say so."""
    hub, one = fleet.hub, [ONE.key.replica]
    blocks = ONE.blocks(taps(1, 2, 3), [2])
    merge(hub, blocks[:1])
    revoke(hub, 1, Revocations({ONE.key.replica: 2}))
    assert hub.day_of(one, DAY).result().completeness == Complete(1)
    assert hub.day_of(one, NEXT).result().completeness == Complete(0)
    revoke(hub, 2, Revocations({ONE.key.replica: 4}))
    assert hub.day_of(one, NEXT).result().completeness == Open(0, 0), "the rest counts, and is not here"
    merge(hub, blocks[1:])
    assert hub.day_of(one, NEXT).result().completeness == Complete(0)


def test_a_fork_leaves_a_day_contested_until_somebody_resolves_it(fleet: Fleet) -> None:
    """Facts in quarantine are taps that somebody may have made."""
    hub = fleet.hub
    mine = ONE.blocks(taps(1, 2, 25), [])
    rival = ONE.blocks(taps(1, 3), [])
    merge(hub, mine)
    hub.merge([rival[0].raw]).result()
    assert hub.day_of([ONE.key.replica], DAY).result().completeness == Missing(2, (), 3)


def test_a_day_is_not_counted_from_the_blocks_of_a_history_that_is_far_behind(fleet: Fleet) -> None:
    """Bounded time: a chain may be years long, and until the history has come near nothing is said."""
    hub, one = fleet.hub, [ONE.key.replica]
    rides = taps(*[1.0] * (MANY_BLOCKS + 1), 25)
    blocks = ONE.blocks(rides, [1] * len(rides))
    merge(hub, blocks)
    assert hub.day_of(one, DAY).result().completeness == Complete(MANY_BLOCKS + 1)
    fleet.hub_database.write_and_wait(forget_history)
    assert hub.day_of(one, DAY).result() == AuthorsDay(Behind(), None)
    while hub.lag().result() > MANY_BLOCKS:
        fleet.hub_database.write_and_wait(lambda connection: project_some(connection, 9))
    assert hub.lag().result() > 0
    assert hub.day_of(one, DAY).result().completeness == Complete(MANY_BLOCKS + 1)
    fleet.hub_database.write_and_wait(lambda connection: catch_up(connection, 9))
    assert hub.day_of(one, DAY).result().completeness == Complete(MANY_BLOCKS + 1)


def test_the_count_is_exact_while_the_history_lags(fleet: Fleet) -> None:
    """The proof rests on the record, not on how far the projection is."""
    blocks = ONE.blocks(taps(*(hour / 10 for hour in range(1, 60)), 25), [3] * 20)
    merging = fleet.hub.merge([block.raw for block in blocks])
    merging.result()
    counted = fleet.hub.day_of([ONE.key.replica], DAY)
    assert counted.result().completeness == Complete(59)
    fleet.hub_database.write_and_wait(lambda connection: catch_up(connection, 9))
    whole = fleet.hub.day_of([ONE.key.replica], DAY).result()
    assert whole.figures is not None
    assert (whole.completeness, whole.figures.fares_minor) == (Complete(59), 59 * -250)
    forgetting = fleet.hub_database.write(forget_history)
    counted = fleet.hub.day_of([ONE.key.replica], DAY)
    forgetting.result()
    assert counted.result() == whole
    assert fleet.hub.day_of([ONE.key.replica], DAY).result() == whole


known = st.builds(
    Known,
    replica=st.just(ONE.key.replica),
    taps=st.integers(0, 5),
    held_seq=st.integers(0, 9),
    last_ms=st.sampled_from([0, DAY.start_ms, DAY.end_ms - 1, DAY.end_ms]),
    expected=st.builds(
        Expected,
        seq=st.integers(0, 12),
        at_ms=st.sampled_from([DAY.start_ms, DAY.start_ms + 1, DAY.end_ms]),
        heard_ms=st.sampled_from([0, DAY.end_ms - 1, DAY.end_ms]),
        ended=st.booleans(),
    ),
    contested=st.integers(0, 1),
)


@given(authors=st.lists(known, max_size=4))
def test_a_day_is_complete_only_when_every_identitys_is_and_never_when_anything_is_missing(
    authors: list[Known],
) -> None:
    found = judge(DAY, authors, DAY.end_ms)
    each = [judge(DAY, [one], DAY.end_ms) for one in authors]
    count = sum(one.taps for one in authors)
    if isinstance(found, Complete):
        assert found.taps == count
        assert all(isinstance(one, Complete) for one in each)
    elif isinstance(found, Open):
        assert found.until == count
        assert not any(isinstance(one, Missing) for one in each)
    else:
        assert found.taps == count
        assert any(isinstance(one, Missing) for one in each)
        assert all(gap.first_seq <= gap.last_seq and 0 <= gap.after_tap <= count for gap in found.gaps)


@pytest.mark.parametrize("server", ["file"], indirect=True)
def test_a_day_costs_the_same_however_much_was_written_on_others(fleet: Fleet) -> None:
    """Invariant 8: every look at a page of days went through all that each of the buses ever wrote."""
    blocks = ONE.blocks(taps(1, *[30] * 400), [1] * 401)
    merge(fleet.hub, blocks[:40])
    few = effort(fleet)
    merge(fleet.hub, blocks[40:])
    assert effort(fleet) < 1.1 * few


def effort(fleet: Fleet) -> int:
    """How many instructions of SQLite's machine it takes to add the terminal's day up."""
    taken: list[None] = []

    def work(connection: Connection) -> None:
        driver: Any = driver_connection(connection)
        driver.set_progress_handler(lambda: taken.append(None), 1)
        found = day_of(connection, [ONE.key.replica], DAY, Revocations(), DAY.end_ms)
        driver.set_progress_handler(None, 1)
        assert found.figures is not None
        assert found.figures.taps == 1

    fleet.hub_database.read_and_wait(work)
    return len(taken)
