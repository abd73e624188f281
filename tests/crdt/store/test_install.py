"""Settlements on a terminal: staged, resumed, shown all at once, exact at every instant (invariants 4, 6)."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from copy import copy as shallow_copy
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from crdt.cursor import START, Cursor, beginning
from crdt.errors import ChainBroken, ForeignFleet, ForkDetected, MisuseError
from crdt.facts import Books, CardId, Draft, FleetId, Kind
from crdt.frontier import Frontier
from crdt.settlement import NO_SERIES, CardRow, Page, seal_page
from crdt.store import fares, installer, staged_rows, tidying
from crdt.store.installer import Installer
from crdt.store.terminal import TerminalLedger
from crdt.store.terminal_schema import SETTLED, SETTLED_HEAD, STAGED
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, OpenTerminal, card

FARE = Draft(Kind.FARE, -250)
PATIENCE_S = 30


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that a few dozen cards go through everything a million cards would."""
    monkeypatch.setattr(installer, "SMALL_ROWS", 3)
    monkeypatch.setattr(installer, "CHUNK_ROWS", 4)
    monkeypatch.setattr(tidying, "CHUNK_ROWS", 4)
    monkeypatch.setattr(tidying, "SINK_ROWS", 3)
    monkeypatch.setattr(staged_rows, "SEGMENT_ROWS", 2)
    monkeypatch.setattr(installer, "BATCH_SEGMENTS", 3)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and two terminals."""
    fleet = Fleet(tmp_path, 2)
    yield fleet
    fleet.close()


def check(fleet: Fleet, terminal: OpenTerminal) -> None:
    """The view of every card is exact, and the books balance."""
    expected = fleet.believed_by(terminal)
    for which in {fact.card for fact in fleet.facts()}:
        view = terminal.ledger.view(which)
        assert view.known == (which in expected)
        assert view.balance_minor == (expected[which].balance_minor if which in expected else 0)
    books = terminal.ledger.books()
    assert books.balance
    assert books.balances_minor == sum(state.balance_minor for state in expected.values())


def tidied(terminal: OpenTerminal) -> None:
    """Wait until the background housekeeping has nothing left to do: one base, no overlay, no log."""

    def rows(connection: Connection) -> list[int]:
        generations = [
            select(func.count(func.distinct(table.c.generation))) for table in (SETTLED, SETTLED_HEAD)
        ]
        counts = [*generations, select(func.count()).select_from(STAGED)]
        return [connection.execute(count).scalar_one() for count in counts]

    pause = threading.Event()
    for _ in range(PATIENCE_S * 100):
        generations, heads, staged = terminal.database.read(rows).result()
        overlay = terminal.ledger._memory.standing.overlay_generation
        if generations <= 1 and heads <= 1 and not staged and not overlay:
            return
        pause.wait(0.01)
    raise AssertionError("the housekeeping does not come to an end")


def ride(fleet: Fleet, count: int) -> None:
    """Every terminal taps cards, some of them the same."""
    for number in range(count):
        fleet.terminals[0].tap(card(number))
        fleet.terminals[1].tap(card(number * 2))


def test_a_settlement_replaces_what_it_includes_and_nothing_else(fleet: Fleet) -> None:
    """Invariants 6 and 11: two offline buses gave the same card an opening; it counts once everywhere."""
    one, other = fleet.terminals
    one.tap(card(1))
    other.tap(card(1))
    assert other.ledger.view(card(1)).balance_minor == 250
    fleet.push(one)
    fleet.push(other)
    other.tap(card(1))
    fleet.pull(one)
    fleet.pull(other)
    assert one.ledger.held() == (0, 0)
    assert other.ledger.held() == (1, -250)
    assert one.ledger.view(card(1)).balance_minor == 0
    assert other.ledger.view(card(1)).balance_minor == -250
    check(fleet, one)
    check(fleet, other)
    fleet.heal()
    assert one.ledger.digest() == other.ledger.digest() == fleet.hub.digest().result()


def test_increments_bring_changed_cards_only(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    ride(fleet, 9)
    fleet.heal()
    one.tap(card(3))
    fleet.push(one)
    page = fleet.next_page(one)
    assert [row.card for row in page.rows] == [card(3)]
    assert page.final
    assert page.base == 2
    assert list(page.heads) == [one.ledger.replica]
    assert one.ledger.install(page)


def test_the_hotlist_comes_with_the_settlement_and_goes_with_it(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    one.tap(card(1))
    fleet.push(one)
    assert fleet.hub.set_hotlisted(card(1), True).result()
    assert fleet.hub.set_hotlisted(card(2), True).result()
    assert not fleet.hub.set_hotlisted(card(2), True).result()
    fleet.pull(one)
    assert one.ledger.view(card(1)).hotlisted
    assert one.ledger.view(card(2)).hotlisted
    one.reopen()
    assert one.ledger.view(card(1)).hotlisted
    assert one.ledger.digest() == fleet.hub.digest().result()
    fleet.hub.set_hotlisted(card(1), False).result()
    fleet.pull(one)
    assert not one.ledger.view(card(1)).hotlisted
    assert one.ledger.view(card(1)).balance_minor == 250


def test_the_passback_rule_still_knows_a_ride_that_was_settled_meanwhile(fleet: Fleet) -> None:
    """A card that is presented again right after a sync is still presented too soon; also after a restart."""
    one = fleet.terminals[0]
    one.tap(card(1), at_ms=77)
    fleet.push(one)
    fleet.pull(one)
    assert one.ledger.held() == (0, 0)
    assert one.ledger.view(card(1)).last_fare_at_ms == 77
    one.reopen()
    assert one.ledger.view(card(1)).last_fare_at_ms == 77


def test_passback_and_clock_go_on_over_a_restart_and_a_new_pairing(fleet: Fleet) -> None:
    """Online each tap is a block of its own; all of them still count, whichever identity sealed them."""
    one = fleet.terminals[0]
    count = 40
    for number in range(count):
        one.tap(card(number), at_ms=1_000 + number)
        fleet.push(one)
    fleet.pull(one)

    def remembered(terminal: OpenTerminal) -> list[int | None]:
        return [terminal.ledger.view(card(number)).last_fare_at_ms for number in range(count)]

    expected = [1_000 + number for number in range(count)]
    assert remembered(one) == expected
    one.reopen()
    assert remembered(one) == expected
    new = taken_over(one)
    assert remembered(new) == expected
    assert new.ledger.last_at_ms() == expected[-1]
    new.ledger.transact(card(0), lambda _view: ([FARE], None), 5_000)
    assert remembered(new) == [5_000, *expected[1:]]


def test_as_many_fares_are_remembered_as_is_promised_and_the_start_reads_no_more(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fares, "RECENT_FARES", 5)
    one = fleet.terminals[0]
    for number in range(9):
        one.tap(card(number), at_ms=number)
        fleet.push(one)
    one.reopen()
    met = [one.ledger.view(card(number)).last_fare_at_ms for number in range(9)]
    assert met == [None, None, None, None, 4, 5, 6, 7, 8]


@pytest.mark.usefixtures("small_steps")
def test_invariant_6_the_view_is_exact_at_every_step_of_a_settlement(fleet: Fleet) -> None:
    """While pages are staged, built, swapped and tidied up, and while taps go on in between."""
    one = fleet.terminals[0]
    for _round in range(3):
        ride(fleet, 15)
        for terminal in fleet.terminals:
            fleet.push(terminal)
        one.tap(card(1))
        done = False
        while not done:
            done = fleet.pull_one(one, limit=5)
            check(fleet, one)
            one.tap(card(4))
            check(fleet, one)
    tidied(one)
    check(fleet, one)
    fleet.heal()
    tidied(one)
    assert one.ledger.digest() == fleet.hub.digest().result()


def test_invariant_11_a_settled_opening_meets_a_held_one(fleet: Fleet) -> None:
    """The larger of the two counts; the books name the other as voided."""
    one, other = fleet.terminals
    one.write(card(1), [Draft(Kind.OPENING, 300)])
    other.write(card(1), [Draft(Kind.OPENING, 500)])
    fleet.push(one)
    fleet.pull(other)
    check(fleet, other)
    assert other.ledger.view(card(1)).balance_minor == 500
    assert other.ledger.books() == Books(800, 500, 300)
    fleet.push(other)
    fleet.pull(one)
    assert one.ledger.view(card(1)).balance_minor == 500


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("full_load", [False, True])
def test_a_settlement_may_come_before_the_last_one_is_tidied_up(
    fleet: Fleet, full_load: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the increment whose rows still lie over the base is lost, nor does it outlive a full load."""
    one, other = fleet.terminals
    ride(fleet, 12)
    fleet.heal()
    tidied(one)
    monkeypatch.setattr(one.ledger._installer.tidying, "begin", lambda: None)  # not in the background
    for number in range(20):
        other.tap(card(number))
    fleet.push(other)
    fleet.pull(one)
    assert one.ledger._memory.standing.overlay_generation
    check(fleet, one)
    if full_load:
        rows = [CardRow(card(number), 7, 0) for number in range(5)]
        assert one.ledger.install(_page(b"N" * 16, rows, position=1))
        assert [one.ledger.view(card(number)).balance_minor for number in (15, 16)] == [0, 0]
    else:
        for number in range(15, 25):
            other.tap(card(number))
        fleet.push(other)
        fleet.pull(one)
        check(fleet, one)
        one.reopen()
        tidied(one)
        check(fleet, one)


@pytest.mark.usefixtures("small_steps")
def test_staging_goes_on_after_a_restart(fleet: Fleet) -> None:
    """Pages that are staged are not asked for again; nothing shows before the last is there."""
    one = fleet.terminals[0]
    ride(fleet, 12)
    for terminal in fleet.terminals:
        fleet.push(terminal)
    assert not fleet.pull_one(one, limit=6)
    series, base, after = one.ledger.settled()
    assert (base, after == START) == (0, False)
    one.reopen()
    assert one.ledger.settled() == (series, base, after)
    check(fleet, one)
    pages = [fleet.next_page(one, 6)]
    assert pages[0].after == after
    while not fleet.pull_one(one, limit=6):
        one.reopen()
        check(fleet, one)
    check(fleet, one)
    assert one.ledger.settled() == (series, 2, beginning(2))


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("increment", [False, True])
def test_a_crash_after_any_commit_of_an_install_leaves_the_old_or_the_new_settlement(
    fleet: Fleet, tmp_path: Path, increment: bool
) -> None:
    """Invariants 4 and 6: the files as they are after each commit, opened as after a power cut."""
    one = fleet.terminals[0]
    if increment:
        ride(fleet, 20)
        fleet.heal()
        tidied(one)
    ride(fleet, 20 if increment else 40)
    for terminal in fleet.terminals:
        fleet.push(terminal)
    one.tap(card(2))
    images = _images_of_every_commit(one, tmp_path / "images")
    before = dict(one.settled_heads)
    while not fleet.pull_one(one, limit=3):
        pass
    tidied(one)
    seen = set()
    for image in images:
        copy = OpenTerminal(one.author, image / one.path.name, list(one.written))
        installed = copy.ledger.status()["position"] == one.ledger.status()["position"]
        copy.settled_heads = dict(one.settled_heads if installed else before)
        seen.add(installed)
        check(fleet, copy)
        fleet.pull(copy, limit=16)
        copy.settled_heads = dict(one.settled_heads)
        check(fleet, copy)
        assert copy.ledger.digest() == one.ledger.digest()
        tidied(copy)
        check(fleet, copy)
        copy.close()
    assert seen == {False, True}
    assert len(images) > 20


def _images_of_every_commit(terminal: OpenTerminal, directory: Path) -> list[Path]:
    """Copies the terminal's files after each of its commits from now on, before anybody can write again."""
    images: list[Path] = []
    writer = terminal.database._writer
    wrote = writer._wrote

    def copy(rows: int) -> None:
        image = directory / str(len(images))
        image.mkdir(parents=True)
        for file in terminal.path.parent.glob(terminal.path.name + "*"):
            shutil.copy(file, image)
        images.append(image)
        wrote(rows)

    writer._wrote = copy
    return images


def taken_over(terminal: OpenTerminal) -> OpenTerminal:
    """The terminal paired anew while its old ledger is still in somebody's hands."""
    author = world.terminal(7)
    terminal.ledger.seal()
    new = TerminalLedger(terminal.database, world.FLEET_KEY.public_key, author.key, author.certificate)
    again = shallow_copy(terminal)
    again.author, again.ledger = author, new
    return again


def test_a_page_that_comes_to_a_retired_ledger_changes_nothing(fleet: Fleet) -> None:
    """Invariant 6: the new ledger's memory would count twice what the settlement includes."""
    one = fleet.terminals[0]
    fleet.book(card(1), Draft(Kind.TOPUP, 1000))
    fleet.pull(one)
    one.write(card(1), [FARE])
    fleet.push(one)
    page = fleet.next_page(one)
    new = taken_over(one)
    with pytest.raises(MisuseError, match="given to another ledger"):
        one.ledger.install(page)
    assert new.ledger.view(card(1)).balance_minor == 750
    assert new.ledger.held() == (1, -250)
    assert new.ledger.install(page)
    assert new.ledger.view(card(1)).balance_minor == 750
    assert new.ledger.held() == (0, 0)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("increment", [False, True])
@pytest.mark.parametrize("step", range(1, 12, 2))
def test_a_new_ledger_takes_over_in_the_middle_of_an_install(
    fleet: Fleet, increment: bool, step: int
) -> None:
    """Invariant 6: neither tidies away or shows what the other is building, at whatever commit it comes."""
    one = fleet.terminals[0]
    if increment:
        ride(fleet, 20)
        fleet.heal()
    for number in range(50):
        fleet.book(card(number), Draft(Kind.TOPUP, 100))
    made: list[OpenTerminal] = []
    steps = iter(range(1, 1000))
    name = "_put_rows" if increment else "_stage"
    original = getattr(Installer, name)

    def part(self: Installer, *arguments: object) -> None:
        original(self, *arguments)
        if next(steps) == step:
            made.append(taken_over(one))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Installer, name, part)
        with contextlib.suppress(MisuseError):
            fleet.pull(one, limit=16)
    new = made[0] if made else taken_over(one)
    check(fleet, new)
    fleet.pull(new, limit=16)
    tidied(new)
    check(fleet, new)
    assert new.ledger.digest() == fleet.hub.digest().result()


@pytest.mark.usefixtures("small_steps")
def test_taps_go_on_while_a_large_settlement_is_installed(fleet: Fleet) -> None:
    """Invariant 7: a tap waits for one short transaction, and every view on the way is exact."""
    one = fleet.terminals[0]
    for number in range(150):
        fleet.terminals[1].write(card(number), [Draft(Kind.TOPUP, 1000)])
    fleet.push(fleet.terminals[1])
    stop = threading.Event()
    views: list[int] = []

    def ride_on() -> None:
        while not stop.is_set():
            views.append(one.write(card(500), [FARE]).balance_minor)

    rider = threading.Thread(target=ride_on)
    rider.start()
    try:
        fleet.pull(one, limit=40)
        tidied(one)
    finally:
        stop.set()
        rider.join(PATIENCE_S)
    assert views == [-250 * number for number in range(len(views))]
    check(fleet, one)


def test_a_card_that_changes_while_one_is_paging_comes_again(fleet: Fleet) -> None:
    """THE RULE of settlement: what is staged at the final page is exactly the state at its position."""
    one, other = fleet.terminals
    for number in range(10):
        other.tap(card(number))
    fleet.push(other)
    assert not fleet.pull_one(one, limit=4)
    other.tap(card(0))
    other.tap(card(9))
    fleet.push(other)
    fleet.book(card(1), Draft(Kind.TOPUP, 99))
    fleet.pull(one, limit=4)
    check(fleet, one)
    assert one.ledger.view(card(0)).balance_minor == 0
    assert one.ledger.digest() == fleet.hub.digest().result()


def test_invariant_6_an_older_page_does_not_follow_a_newer_one(fleet: Fleet) -> None:
    """A hub's other process may give one that is some seconds old; a card left out for later is not in it."""
    one, other = fleet.terminals
    ride(fleet, 2)
    fleet.heal()
    other.tap(card(1))
    other.tap(card(2))
    fleet.push(other)
    at = fleet.hub.totals().result().position
    series, base, after = one.ledger.settled()
    older = fleet.hub.page(series, base, Cursor(at, card(2), seen=at), 1).result()
    assert older.final
    other.tap(card(1))
    fleet.push(other)
    newer = fleet.hub.page(series, base, after, 1).result()
    assert newer.until.place == older.after.place
    assert not newer.final
    assert not fleet.install(one, newer)
    with pytest.raises(ChainBroken):
        one.ledger.install(older)
    check(fleet, one)
    fleet.pull(one, 1)
    check(fleet, one)
    assert one.ledger.digest() == fleet.hub.digest().result()


def test_a_page_that_does_not_continue_is_refused_and_changes_nothing(fleet: Fleet) -> None:
    """Invariant 8: replayed, skipped and foreign pages."""
    one = fleet.terminals[0]
    ride(fleet, 8)
    for terminal in fleet.terminals:
        fleet.push(terminal)
    first = fleet.next_page(one, 5)
    fleet.install(one, first)
    second = fleet.next_page(one, 5)
    third = fleet.hub.page(second.series, second.base, second.until, 5).result()
    before = one.ledger.settled(), one.ledger.status(), one.ledger.digest()
    with pytest.raises(ChainBroken, match="does not continue"):
        one.ledger.install(third)
    foreign = seal_page(
        world.HUB_KEY,
        FleetId(bytes(16)),
        second.series,
        0,
        second.after,
        second.until,
        second.rows,
        9,
        final=False,
    )
    with pytest.raises(ForeignFleet):
        one.ledger.install(foreign)
    assert before == (one.ledger.settled(), one.ledger.status(), one.ledger.digest())
    fleet.install(one, second)
    with pytest.raises(ChainBroken):
        one.ledger.install(second)
    fleet.pull(one, 5)
    check(fleet, one)


def test_another_hub_means_a_full_load_that_replaces(fleet: Fleet) -> None:
    """A hub with another series: cards it does not know are gone, what the terminal holds itself is not."""
    one, other = fleet.terminals
    one.tap(card(1))
    other.tap(card(2))
    fleet.heal()
    one.tap(card(3))
    new = _page(b"N" * 16, [CardRow(card(7), 70, 0)], position=1)
    assert one.ledger.install(new)
    one.settled_heads = {}
    check_only = {card(1): 250, card(2): 0, card(3): 250, card(7): 70}
    assert {which: one.ledger.view(which).balance_minor for which in check_only} == check_only
    assert one.ledger.held() == (4, 500)
    assert one.ledger.settled() == (b"N" * 16, 1, beginning(1))


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("count", [2, 5])
def test_a_full_load_that_begins_anew_has_nothing_of_the_one_that_broke_off(fleet: Fleet, count: int) -> None:
    """Invariant 6: what another hub, or the same one before it was put back, had begun to give is void."""
    one, other = fleet.terminals
    for number in range(12):
        other.tap(card(number))
    fleet.push(other)
    assert not fleet.pull_one(one, limit=6)
    rows = [CardRow(card(number), 70, 0) for number in range(20, 20 + count)]
    assert one.ledger.install(_page(b"N" * 16, rows, position=1))
    assert not any(one.ledger.view(card(number)).known for number in range(12))
    assert [one.ledger.view(row.card).balance_minor for row in rows] == [70] * count
    tidied(one)


def test_a_terminal_ahead_of_its_hub_is_loaded_anew(fleet: Fleet, tmp_path: Path) -> None:
    """Invariant 4: a hub restored from an old backup gets everything back from the terminals."""
    one, other = fleet.terminals
    one.tap(card(1))
    other.tap(card(2))
    fleet.heal()
    backup = tmp_path / "backup.db"
    fleet.hub_database.close()
    shutil.copy(tmp_path / "hub.db", backup)
    fleet.open_hub()
    one.tap(card(1))
    other.tap(card(1))
    fleet.heal()
    expected = fleet.hub.digest().result()
    fleet.hub_database.close()
    shutil.copy(backup, tmp_path / "hub.db")
    fleet.open_hub()
    fleet.pull(one)
    check(fleet, one)
    assert one.ledger.held() == (1, -250)
    fleet.heal()
    assert fleet.hub.digest().result() == expected == one.ledger.digest() == other.ledger.digest()


@pytest.mark.parametrize("staging", [False, True])
def test_a_hub_restored_and_gone_on_loads_anew_what_it_has_forgotten(
    fleet: Fleet, tmp_path: Path, staging: bool
) -> None:
    """Invariant 4 and 6: the same series and a higher position, but of another history."""
    one, other = fleet.terminals
    fleet.book(card(1), Draft(Kind.TOPUP, 100))
    fleet.heal()
    backup = tmp_path / "backup.db"
    fleet.hub_database.close()
    shutil.copy(tmp_path / "hub.db", backup)
    fleet.open_hub()
    for number in range(1, 5):
        fleet.book(card(number), Draft(Kind.TOPUP, 10_000))
    if staging:
        assert not fleet.pull_one(one, limit=2)
    else:
        fleet.pull(one)
        assert one.ledger.view(card(1)).balance_minor == 10_100
    fleet.hub_database.close()
    shutil.copy(backup, tmp_path / "hub.db")
    fleet.open_hub()
    del fleet.booked[1:]
    for number in range(10, 20):
        other.tap(card(number))
        fleet.push(other)
    assert fleet.next_page(one).restarts
    fleet.heal()
    check(fleet, one)
    assert one.ledger.view(card(1)).balance_minor == 100
    assert one.ledger.digest() == fleet.hub.digest().result() == other.ledger.digest()


def test_a_hub_that_is_started_again_goes_on_with_increments(fleet: Fleet) -> None:
    """What it said before its restarts it still knows, changes or none in between."""
    one, other = fleet.terminals
    ride(fleet, 6)
    fleet.heal()
    for number in range(3):
        for _ in range(2):
            fleet.hub_database.close()
            fleet.open_hub()
        assert fleet.next_page(one).base == one.ledger.settled()[1] > 0
        fleet.book(card(number), Draft(Kind.TOPUP, 100))
        page = fleet.next_page(one)
        assert [row.card for row in page.rows] == [card(number)]
        fleet.pull(one)
        check(fleet, one)
    assert [row.card for row in fleet.next_page(other).rows] == [card(0), card(1), card(2)]
    fleet.heal()
    assert one.ledger.digest() == fleet.hub.digest().result() == other.ledger.digest()


def test_a_settlement_of_facts_this_ledger_never_wrote_proves_a_restored_image(fleet: Fleet) -> None:
    """Invariant 5: installing it would drop or double money, so it is refused and nothing changes."""
    one = fleet.terminals[0]
    one.tap(card(1))
    fleet.push(one)
    fleet.pull(one)
    head = one.ledger.own_head()
    before = one.ledger.settled(), one.ledger.digest()
    ahead = head._replace(seq=head.seq + 1)
    otherwise = head._replace(hash=b"?" * 32)
    for claimed in (ahead, otherwise):
        heads = {one.ledger.replica: claimed}
        with pytest.raises(ForkDetected):
            one.ledger.install(_page(b"S" * 16, [], position=2, base=1, heads=heads))
        with pytest.raises(ForkDetected):
            one.ledger.install(_page(b"N" * 16, [CardRow(card(1), 1, 0)], position=2, heads=heads))
    assert before == (one.ledger.settled(), one.ledger.digest())


def test_the_first_question_of_a_new_terminal(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    assert one.ledger.settled() == (NO_SERIES, 0, START)
    assert fleet.pull_one(one)
    assert one.ledger.settled() == (b"S" * 16, 0, START)
    one.tap(card(1))
    fleet.push(one)
    fleet.pull(one)
    assert one.ledger.settled() == (b"S" * 16, 1, Cursor(2, b""))


def _page(
    series: bytes,
    rows: list[CardRow],
    position: int,
    base: int = 0,
    heads: Frontier | None = None,
) -> Page:
    after = beginning(base)
    last = Cursor(position, replica=max(heads)) if heads else after
    until = Cursor(position, rows[-1].card) if rows else last
    return seal_page(
        world.HUB_KEY,
        world.FLEET,
        series,
        base,
        after,
        until,
        rows,
        position,
        heads,
        final=True,
    )


def test_cards_of_every_length_keep_their_order(fleet: Fleet) -> None:
    """Card ids of 4, 7, 10 and 16 bytes, some the beginning of others."""
    one = fleet.terminals[0]
    ids = [CardId(b"\x04" * length) for length in (4, 7, 10, 16)] + [CardId(bytes(4)), CardId(b"\xff" * 16)]
    for number, which in enumerate(ids):
        one.write(which, [Draft(Kind.FARE, -number)])
    fleet.push(one)
    fleet.pull(one, limit=2)
    check(fleet, one)
    assert one.ledger.digest() == fleet.hub.digest().result()
